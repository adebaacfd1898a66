"""Choosing among many solutions of one problem: score aggregation, votes, best-of-N, curves over N."""
