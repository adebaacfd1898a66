"""Experiments side by side: numbers against the first, one correction for all, curves, and their page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import toy_stages as toy
from toy_numbers import KEYS, measured

from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.orchestration.comparison import compare, curve_folders
from e2h_pipeline.orchestration.experiments import Experiments
from e2h_pipeline.report.compare import compare_html
from e2h_pipeline.statistics.multiple import holm, p_value_of_interval


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiments]:
    with measured(tmp_path_factory.mktemp("compared")) as found:
        yield found


def test_the_others_are_compared_with_the_first(experiments: Experiments) -> None:
    found = compare(experiments, KEYS)
    assert [side["experiment"] for side in found["experiments"]] == KEYS
    rows = {(row["policy"], row["method"], row["levels"]): row for row in found["numbers"]}
    rl = rows["rl", "greedy", "hard"]
    assert [round(one["difference"], 3) for one in rl["differences"]] == [0.001, 0.3]
    assert rl["values"][2]["accuracy"] - rl["values"][0]["accuracy"] == pytest.approx(0.3, abs=0.01)
    vote = rows["sft", "majority", "hard"]
    assert vote["values"][2] is None and vote["differences"][1] is None
    assert vote["n"] == 4 and vote["differences"][0]["difference"] == 0
    assert [one["roots"] for one in found["upstream"]] == [["rl_policy"], ["rl_policy"]]
    assert {row["n"] for row in compare(experiments, KEYS, everything=True)["numbers"]} == {1, 2, 4}


def test_one_correction_covers_all_comparisons(experiments: Experiments) -> None:
    found = compare(experiments, KEYS)
    told = [one for i in (0, 1) for row in found["numbers"] if (one := row["differences"][i])]
    p_values = [
        p_value_of_interval(one["difference"], one["ci_low"], one["ci_high"], found["confidence"])
        for one in told
    ]
    assert len(told) == 15  # three level groups; three methods of one experiment, two of the other
    assert [one["holm"] for one in told] == pytest.approx(holm(p_values))


def test_the_page_has_numbers_curves_and_what_differs(experiments: Experiments) -> None:
    found = compare(experiments, KEYS)
    text = compare_html(found, curve_folders(experiments, found), "now")
    assert all(f"</span> {key}</th>" in text for key in KEYS)
    heads = re.findall(r'<th scope="col">(.*?)</th>', text)[:5]
    assert heads == ["A", "B", "B − A", "C", "C − A"]
    assert text.index("TOY, hard levels") < text.index("TOY, all levels")
    (row,) = re.findall(r'<tr><th scope="row">RL with the easy evaluator, greedy.*?</tr>', text, re.DOTALL)[
        :1
    ]
    cells = re.findall(r"<td( class=\"clear\")?><b>(.*?)</b>", row)
    assert [value for _, value in cells[2::2]] == ["+0.1", "+30.0"] and cells[4][0]
    figures = re.findall(r'<svg role="img" aria-label="(.*?)"', text)
    assert figures[0].startswith("TOY · hard levels") and any("Reward" in name for name in figures)
    assert not any("validation" in name for name in figures)  # no such curve
    assert "B: majority vote" in text and "C: majority vote" not in text
    banners = re.findall(r'<div class="banner".*?</div>', text)
    assert len(banners) == 1 and "rl policy of B stopped after 3 updates: KL" in banners[0]
    assert "15 comparisons of this page" in text
    assert '<td class="left">recipe</td><td class="left">seed</td>' in text


def test_a_leak_of_one_is_told_above_all(experiments: Experiments) -> None:
    found = compare(experiments, KEYS[:2])
    found["experiments"][1] |= {"leaks": ["a <b> leak"], "strict": False}
    text = compare_html(found, curve_folders(experiments, found), "now")
    assert text.index("the numbers of B do not count") < text.index("<h1>")
    assert "a &lt;b&gt; leak" in text and '<td class="left">no</td>' in text


def test_an_experiment_without_results_is_an_error(experiments: Experiments) -> None:
    with pytest.raises(StoreError, match="toy/seed=9 has no results yet"):
        compare(experiments, [KEYS[0], f"{toy.KEY}/seed=9"])
