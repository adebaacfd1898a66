"""How stages that let the evaluator judge say so: its kind may have a reader and layouts of its own."""

from __future__ import annotations

EVALUATOR = ("reward.kind", "reward.evaluator")
"""Fields of the recipe that say how the evaluator is read."""
READ_BY = ("reward.kind/reader", "reward.layouts")
"""Registries that read it."""
