"""Problem records, their sources (ladder, MATH, PRM800K), and the split by supervision."""
