"""The page of all experiments: newest first, every one of them, and each thing read once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_numbers import BEGUN, KEYS, SAME, measured

from e2h_pipeline.artifacts import store as store_module
from e2h_pipeline.operations.index import index_rows, write_index
from e2h_pipeline.orchestration.experiments import Experiments
from e2h_pipeline.report.index import index_html


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiments]:
    with measured(tmp_path_factory.mktemp("indexed")) as found:
        yield found


def test_every_experiment_is_there_and_says_what_a_reader_must_know(experiments: Experiments) -> None:
    rows = {row.key: row for row in index_rows(experiments)}
    assert rows.keys() == {*KEYS, SAME, BEGUN}
    assert rows[SAME].numbers == rows[KEYS[0]].numbers  # shared, and shown for both
    assert rows[BEGUN].benchmark == "" and not any(rows[BEGUN].numbers)
    greedy = [rows[key].numbers[-1] for key in KEYS]
    assert [told is not None and "guard" in told.beside for told in greedy] == [False, True, False]
    made = [row.made for row in index_rows(experiments)]
    assert made == sorted(made, reverse=True)


def test_manifests_are_read_a_few_times_however_many_experiments_share_them(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[Path] = Counter()
    real = store_module.read_manifest

    def counted(folder: Path) -> Any:
        read[folder] += 1
        return real(folder)

    monkeypatch.setattr(store_module, "read_manifest", counted)
    index_rows(experiments)
    assert len(read) == 11  # three policies and tables, five recipes
    assert max(read.values()) <= 2  # as an experiment's own, and as an input or with its files


def test_the_page_has_a_table_for_each_benchmark_and_links_other_pages(experiments: Experiments) -> None:
    reports = experiments.store.home / "reports"
    reports.mkdir(exist_ok=True)
    (reports / "sweep-a b.html").write_text("")
    text = write_index(experiments, "now").read_text(encoding="utf-8")
    assert "<h1>5 experiments</h1>" in text and 'href="sweep-a%20b.html"' in text
    tables = re.findall(r"<table.*?</table>", text, re.DOTALL)
    assert len(tables) == 2
    assert all(f"{key}</th>" in tables[0] for key in (*KEYS, SAME)) and BEGUN not in tables[0]
    assert f"{BEGUN}</th>" in tables[1]
    assert "best-of-N" not in tables[0]  # nobody has it


def test_numbers_of_two_benchmarks_share_no_table_and_a_leak_is_marked() -> None:
    row = {"made": "2026-12-01T10:11:12+00:00", "numbers": [None], "notes": [], "easy": "", "report": ""}
    rows = [
        {**row, "key": "a<b>", "benchmark": "MATH500", "notes": ["LEAK"], "report": "../x.html"},
        {**row, "key": "c", "benchmark": "LADDER500"},
    ]
    text = index_html(rows, headlines=["SFT greedy"], others=[], home="/home", told="now")
    math, ladder = re.findall(r"<table.*?</table>", text, re.DOTALL)
    assert '<a href="../x.html">a&lt;b&gt;</a> <strong class="leak">LEAK</strong>' in math
    assert "2026-12-01 10:11<" in math and "LEAK" not in ladder
