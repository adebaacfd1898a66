"""Names that go into result tables."""

from __future__ import annotations

# Benchmark by problem source. Numbers of different sources never share a row name.
BENCHMARKS = {"ladder": "LADDER500", "math": "MATH500"}
