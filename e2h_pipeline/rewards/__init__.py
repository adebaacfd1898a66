"""Step labels, the process reward model and its data, and scoring in one forward pass."""
