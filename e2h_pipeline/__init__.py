"""Easy-to-hard generalization as a pipeline: every number traced to the easy data that fed it.

Kept free of imports on purpose: `definitions.py` lives in this package although it sits above
`assets` and `resources`, and opening the Dagster code location must not load torch.
"""
