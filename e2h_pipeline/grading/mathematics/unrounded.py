"""`math-exact`: our grader without its tier `rounded`."""

from __future__ import annotations

from e2h_pipeline.grading.mathematics.grader import MathGrader


class UnroundedMathGrader(MathGrader):
    """`MathGrader` that takes no rounded decimals: `0.333333` is not 1/3."""

    name = "math-exact"
    rounds = False
