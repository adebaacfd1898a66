"""Sampling: engines behind one protocol, and the sample pool that survives a kill."""
