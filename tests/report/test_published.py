import numpy as np

from e2h_pipeline.report.published import LABEL, published_curves
from e2h_pipeline.report.view import benchmark_sections


def test_the_papers_main_setting_is_shown_on_math500_alone() -> None:
    majority, weighted, best = published_curves("MATH500", "hard", 1024)
    assert list(majority.x) == [2**i for i in range(11)]
    assert (majority.y[0], weighted.y[-1], best.y[-1]) == (6.84, 22.77, 15.66)
    assert [series.y[-1] for series in published_curves("MATH500", "all", 1024)] == [37.10, 40.47, 31.55]
    assert [len(series.x) for series in published_curves("MATH500", "all", 64)] == [7, 7, 7]
    assert not published_curves("MATH500", "easy", 1024)  # the paper has none
    assert not published_curves("LADDER500", "hard", 1024)


def test_synthetic_numbers_never_stand_beside_them() -> None:
    def rows(benchmark: str) -> list[dict[str, object]]:
        return [
            {
                "benchmark": benchmark,
                "policy": "sft",
                "method": method,
                "evaluator": "",
                "aggregation": aggregation,
                "n": n,
                "levels": levels,
                "accuracy": float(np.log2(n) / 20),
                "ci_low": 0.0,
                "ci_high": 0.9,
                "problems": 10,
                "grader": "math",
            }
            for method, aggregation in (("majority", ""), ("weighted-vote", "product"))
            for n in (1, 2, 4)
            for levels in ("hard", "all")
        ]

    [math] = benchmark_sections(rows("MATH500"), [])
    [ladder] = benchmark_sections(rows("LADDER500"), [])
    assert LABEL in [legend.label for legend in math.curve_legend]
    assert LABEL not in [legend.label for legend in ladder.curve_legend]
    assert all("#9fc8e2" in drawing.svg for drawing in math.curves)
    assert not any("#9fc8e2" in drawing.svg for drawing in ladder.curves)
