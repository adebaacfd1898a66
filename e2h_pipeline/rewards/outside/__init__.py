"""Evaluators that others have trained: one short file for each layout, behind the protocol of `layout`."""
