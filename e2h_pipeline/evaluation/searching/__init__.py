"""What search is worth at equal compute: the stages searched_samples and search_metrics."""
