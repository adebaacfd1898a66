"""Measuring: graded pools, accuracy with intervals, ranking quality, performance gap recovered."""
