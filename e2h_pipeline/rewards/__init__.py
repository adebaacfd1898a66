"""Evaluators: their kinds, training on easy labels, validation, and scoring in one forward pass."""
