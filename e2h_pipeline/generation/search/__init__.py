"""How samples of a question are found: one file for each method."""
