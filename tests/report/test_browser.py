"""The report in a real browser: it loads and runs nothing, fits a phone, prints, and its filters
work."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from browser import Page, browser, needs_browser

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.evaluation.choices import choices_schema
from e2h_pipeline.report.html import Subject, write_report
from e2h_pipeline.report.lineage_view import with_links
from e2h_pipeline.statistics.levels import POOLED_GROUPS

pytestmark = needs_browser
SCRIPT = (
    "<script>document.title='run'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='run'\">"
)
VISIBLE = "[...document.querySelectorAll('{}')].filter(e => e.offsetParent !== null).length"


def _choices() -> list[dict[str, object]]:
    """Six problems of three levels; on levels 4 and 5 majority and evaluator differ."""
    rows = []
    for i in range(6):
        level = 3 + i % 3
        for role, right in (("majority", level == 3), ("weighted-vote", True)):
            rows.append(
                {
                    "problem_id": f"p{i}",
                    "level": level,
                    "question": f"What is $\\frac{{{i}}}{{2}}$? {SCRIPT}",
                    "gold": r"\frac{1}{2}",
                    "roles": [role],
                    "sample": i,
                    "completion": f"{SCRIPT} $x=\\boxed{{{i}}}$ {'long ' * 60}\n\n# Answer\n\n{i}",
                    "answer": str(i),
                    "right": right,
                    "votes": 2,
                    "weight": 0.5,
                    "step_scores": [0.1, 0.9],
                    "samples": 4,
                    "right_samples": 2,
                }
            )
    return rows


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, str]]:
    folder = tmp_path_factory.mktemp("report")
    shown = [("sft", "greedy", "", 1), ("sft", "majority", "", 4), ("sft", "weighted-vote", "product", 4)]
    metrics = [
        {
            "benchmark": "LADDER500",
            "grader": "exact/1",
            "policy": policy,
            "method": method,
            "evaluator": "easy_prm" if aggregation else "",
            "aggregation": aggregation,
            "n": n,
            "levels": levels,
            "accuracy": 0.5,
            "ci_low": 0.4,
            "ci_high": 0.6,
            "problems": 6,
        }
        for policy, method, aggregation, n in shown
        for levels in ("1", "2", "3", "4", "5", *POOLED_GROUPS)
    ]
    lengths = [
        {"policy": "sft", "decoding": decoding, "levels": levels, "tokens": 20.0, "problems": 6}
        for decoding in ("greedy", "sampled")
        for levels in POOLED_GROUPS
    ]
    difference = {"first": "weighted-vote product", "second": "majority", "n": 4, "difference": 0.1}
    differences = [
        {**difference, "benchmark": "LADDER500", "levels": g, "ci_low": 0.02, "ci_high": 0.2, "problems": 6}
        for g in POOLED_GROUPS
    ]
    for name, rows in (("metrics", metrics), ("differences", differences), ("lengths", lengths)):
        write_table(folder / "bm" / f"{name}.parquet", pa.Table.from_pylist(rows))
    write_table(folder / "rr" / "choices.parquet", pa.Table.from_pylist(_choices(), choices_schema()))
    assert read_table(folder / "rr" / "choices.parquet").num_rows == 12
    lineage = [
        {
            "asset": "easy_problems",
            "data_version": "e" * 64,
            "code_version": "c" * 64,
            "created": "2026-11-21T22:56:07+00:00",
            "run_id": "run-1",
            "tracking_url": "http://127.0.0.1:5000/#/experiments/1/runs/2",
            "wall_seconds": 1.0,
            "inputs": [],
        },
        {
            "asset": "benchmark_metrics",
            "data_version": "b" * 64,
            "code_version": "d" * 64,
            "created": "2026-11-21T22:57:07+00:00",
            "run_id": None,
            "tracking_url": "javascript:document.title='run'",
            "wall_seconds": 2.0,
            "inputs": ["easy_problems"],
        },
    ]
    write_report(
        {"benchmark_metrics": folder / "bm", "rerank_metrics": folder / "rr"},
        lineage,
        folder / "page",
        Subject("ladder", {"name": "ladder", "description": SCRIPT, "evaluation": {"confidence": 0.95}}),
    )
    with browser(folder / "profile") as tab:
        yield tab, (folder / "page" / "report.html").as_uri()


def test_it_asks_for_nothing_and_runs_nothing(page: tuple[Page, str]) -> None:
    tab, address = page
    tab.open(address)
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.run("document.title") == "ladder · easy-to-hard report"
    assert tab.run("document.images.length") == 0
    assert (tab.requested, tab.troubles) == ([address], [])
    assert tab.picture().startswith(b"\x89PNG")


@pytest.mark.parametrize(("width", "height"), [(360, 740), (768, 1024), (1280, 900)])
def test_it_fits_the_window(page: tuple[Page, str], width: int, height: int) -> None:
    tab, address = page
    tab.open(address, width, height)
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.run("document.documentElement.scrollWidth") <= width


def test_filters_by_level_and_by_what_happened(page: tuple[Page, str]) -> None:
    tab, address = page
    tab.open(address)
    cards = VISIBLE.format(".card")
    assert tab.run(cards) == 6
    for level, outcome, left in (
        ("5", "all", 2),
        ("5", "rescued", 2),
        ("3", "rescued", 0),
        ("all", "rescued", 4),
    ):
        tab.run(f"document.getElementById('level-{level}').click()")
        tab.run(f"document.getElementById('outcome-{outcome}').click()")
        assert tab.run(cards) == left, (level, outcome)
        assert tab.run(VISIBLE.format(".nothing")) == (left == 0)


def test_formulas_are_drawn_and_steps_shaded(page: tuple[Page, str]) -> None:
    tab, address = page
    tab.open(address)
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    # A drawn fraction has its numerator above its denominator.
    edges = "[...document.querySelector('mfrac').children].map(e => e.getBoundingClientRect())"
    assert tab.run(f"{edges}[0].bottom <= {edges}[1].top")
    color = "getComputedStyle(document.querySelector('.solution .s{}')).borderLeftColor"
    assert tab.run(color.format(0)) == "rgb(213, 94, 0)" and tab.run(color.format(4)) == "rgb(0, 114, 178)"


def test_lineage_links_servers_that_run_and_web_pages_alone(page: tuple[Page, str], tmp_path: Path) -> None:
    tab, address = page
    tab.open(address)
    links = "[...document.querySelectorAll('.lineage a[href]')].map(a => a.href).join(' ')"
    assert tab.run(links) == ""  # servers of the own machine may be gone, or on other ports
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert "run-1" in tab.run("document.querySelector('.lineage').innerText")
    file = tmp_path / "linked.html"
    text = Path(unquote(urlsplit(address).path)).read_text(encoding="utf-8")
    servers = {"dagster": "http://127.0.0.1:3333{}".format, "mlflow": "https://mlflow.example/{}".format}
    file.write_text(with_links(text, servers), encoding="utf-8")
    tab.open(file.as_uri())
    assert tab.run(links) == (
        "http://127.0.0.1:3333/runs/run-1 https://mlflow.example/#/experiments/1/runs/2"
    )


def test_it_prints(page: tuple[Page, str]) -> None:
    tab, address = page
    tab.open(address)
    assert tab.printed().startswith(b"%PDF")


def test_it_is_dark_where_people_prefer_that(page: tuple[Page, str]) -> None:
    tab, address = page
    seen = {}
    colors = (
        "['body', 'svg text', 'thead th', 'tbody th'].map(e => getComputedStyle(document.querySelector(e)))"
        ".map((s, i) => [s.backgroundColor, i == 1 ? s.fill : s.color]).flat().join('|')"
    )
    try:
        for scheme in ("light", "dark"):
            tab.scheme(scheme)
            tab.open(address)
            seen[scheme] = tab.run(colors).split("|")
    finally:
        tab.scheme("light")
    assert seen["light"][0] == "rgb(255, 255, 255)" and seen["light"][3] == "rgb(61, 69, 80)"
    assert seen["dark"][0] == "rgb(20, 24, 29)" and seen["dark"][3] == "rgb(211, 217, 225)"
    assert seen["dark"][6] == seen["dark"][0]  # a head that stays in place hides what moves below it


def test_heads_of_rows_stay_in_place_on_a_phone(page: tuple[Page, str]) -> None:
    tab, address = page
    tab.open(address, 390, 844)
    table = "[...document.querySelectorAll('.scroll')].find(e => e.scrollWidth > e.clientWidth + 20)"
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    left = f"({table}).querySelector('tbody th').getBoundingClientRect().left"
    before = tab.run(left)
    tab.run(f"({table}).scrollLeft = 60")
    assert tab.run(f"({table}).scrollLeft") == 60 and tab.run(left) == before


def test_pictures_have_names_and_the_page_has_a_main_part(page: tuple[Page, str]) -> None:
    tab, address = page
    tab.open(address)
    names = tab.run("[...document.querySelectorAll('svg')].map(s => s.getAttribute('aria-label'))")
    assert len(names) > 3 and all(names) and len(set(names)) == len(names)
    assert tab.run("[...document.querySelectorAll('svg')].every(s => s.getAttribute('role') == 'img')")
    assert tab.run("document.querySelectorAll('main').length") == 1
    assert tab.run("document.querySelector('main').contains(document.querySelector('h1'))")


def test_figures_and_tables_can_be_saved(page: tuple[Page, str], tmp_path: Path) -> None:
    tab, address = page
    tab.open(address)
    counted = "[document.querySelectorAll('{}').length, document.querySelectorAll('{} a[download]').length]"
    figures, links = tab.run(counted.format("figure", "figure .save"))
    assert figures and links == 2 * figures
    tables, links = tab.run(counted.format("table", "p.save"))
    assert tables and links == tables
    figure = tab.saved("document.querySelector('figure .save a[download$=svg]')", tmp_path)
    root = ElementTree.parse(figure).getroot()
    assert root.tag.endswith("svg") and "majority vote" in "".join(root.itertext())
    link = "[...document.querySelectorAll('p.save a')].find(a => a.download.includes('policies'))"
    with tab.saved(link, tmp_path).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["easy low"] for row in rows] == ["40.0", "40.0"]
    assert (tab.requested, tab.troubles) == ([address], [])
