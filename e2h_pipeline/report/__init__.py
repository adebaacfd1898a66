"""The report: one static HTML page per experiment, plots inside, nothing fetched from anywhere."""
