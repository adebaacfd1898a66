"""Kinds of evaluator: one short file each, behind the protocol of `base`."""
