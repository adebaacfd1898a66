"""Asset checks find planted errors, and pass otherwise."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import toy_stages as toy
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.checks import split_integrity, supervision_firewall
from e2h_pipeline.artifacts.lineage import trace
from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.definitions import build
from e2h_pipeline.stages import findings
from e2h_pipeline.stages.answer_columns import answer_columns
from e2h_pipeline.stages.spec import STAGES

AUDIT = {
    "problem_source",
    "gold_answers",
    "rerank_metrics",
    "evaluator_generalization",
    "early_stop_metrics",
    "rl_audit",
    "search_metrics",
    "benchmark_metrics",
    "report",
}
SPLIT = {"easy_problems", "hard_questions", "benchmark_questions"}


def _graph() -> dict[str, set[str]]:
    graph = build().resolve_asset_graph()
    return {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }


def test_the_real_graph_keeps_gold_from_training() -> None:
    graph = _graph()
    assert {name for name in graph if name in STAGES and STAGES[name].audit} == AUDIT
    assert {name for name in graph if name in STAGES and STAGES[name].declassifies} == SPLIT
    assert findings.graph_findings(graph, AUDIT, SPLIT) == []
    assert {name for name in graph if "problem_source" in graph[name]} == {*SPLIT, "gold_answers"}


@pytest.mark.parametrize(
    ("asset", "upstream", "says"),
    [
        ("easy_evaluator", "gold_answers", "easy_evaluator depends on gold_answers"),
        ("rl_policy", "rerank_metrics", "rl_policy depends on gold_answers, problem_source, rerank_metrics"),
        ("base_model", "benchmark_metrics", "sft_policy depends on"),
        ("easy_step_labels", "problem_source", "easy_evaluator depends on problem_source"),
    ],
)
def test_a_planted_edge_is_found(asset: str, upstream: str, says: str) -> None:
    graph = _graph()
    graph[asset] = graph[asset] | {upstream}
    assert any(says in finding for finding in findings.graph_findings(graph, AUDIT, SPLIT))


def _make(store: ArtifactStore, asset: str, *inputs: Artifact) -> Artifact:
    def body(draft: Draft) -> None:
        (draft.out / "data.txt").write_text(asset)

    refs = {a.asset: InputRef(key=a.key, data_version=a.data_version) for a in inputs}
    return store.obtain(Request(asset, "c0de", inputs=refs), body)[0]


def test_a_manifest_that_reaches_gold_is_found(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    gold = _make(store, "gold_answers")
    evaluator = _make(store, "easy_evaluator", _make(store, "easy_labels", gold))
    metrics = _make(store, "rerank_metrics", gold)
    source = _make(store, "problem_source")
    policy = _make(store, "sft_policy", _make(store, "easy_problems", source))
    samples = _make(store, "easy_samples", policy, source)
    made = [trace(store, artifact) for artifact in (evaluator, metrics, policy, samples)]
    assert findings.manifest_findings(made, AUDIT, SPLIT) == [
        f"easy_evaluator {evaluator.key[:16]} was made from gold_answers",
        f"easy_samples {samples.key[:16]} was made from problem_source",
    ]


@pytest.mark.parametrize("column", ["answer", "payload"])
def test_a_question_table_with_answers_is_found(tmp_path: Path, column: str) -> None:
    table = pa.table({"problem_id": ["h"], "question": ["1+1"], column: ["2"]})
    write_table(tmp_path / "hard" / "data.parquet", table)
    assert findings.column_findings({"hard_questions": tmp_path / "hard"}) == [
        f"hard_questions has column {column}"
    ]


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("shape", ["plain", "in a list", "boxed", "worked out", "number"])
def test_a_column_of_answers_is_known_by_its_content(tmp_path: Path, shape: str, share: float) -> None:
    """Under any name, whole or in part; the same column shuffled is let through, and so is a column
    of small numbers that are answers by chance."""
    rng = random.Random(7)
    ids = [f"h{i}" for i in range(200)]
    answers = {name: str(rng.randint(0, 40)) for name in ids}
    told = [answers[name] if i < share * len(ids) else str(rng.randint(0, 40)) for i, name in enumerate(ids)]
    shown = {
        "plain": list,
        "in a list": lambda cells: [["by a book", cell] for cell in cells],
        "boxed": lambda cells: [f"We see that it is $\\boxed{{{cell}}}$, which is so." for cell in cells],
        "worked out": lambda cells: [f"1+2=3 and so x={cell}." for cell in cells],
        "number": lambda cells: [float(cell) for cell in cells],
    }[shape]
    chance = [str(i % 5 + 1) for i in range(len(ids))]
    table = pa.table(
        {
            "problem_id": ids,
            "level": [4 + i % 2 for i in range(len(ids))],
            "remark": shown(told),
            "mixed": shown(rng.sample(told, len(told))),
            "chance": shown(chance),
        }
    )
    write_table(tmp_path / "hard" / "data.parquet", table)
    gold = pa.table({"problem_id": ids, "answer": [answers[name] for name in ids]})
    write_table(tmp_path / "gold" / "data.parquet", gold)
    (found,) = findings.column_findings({"hard_questions": tmp_path / "hard"}, tmp_path / "gold")
    assert found.startswith("hard_questions has column remark, which holds answers: ")
    assert findings.column_findings({"hard_questions": tmp_path / "hard"}) == []  # without gold: by name


def test_agreement_by_hand() -> None:
    """Answers 1, 1, 2, 3 beside cells 1, 2, 2, 3: three rows agree. Shuffled, each 1 meets the one
    cell with a 1 with probability 1/4, the 2 one of two, the 3 one: 1.25 in the mean."""
    table = pa.table({"problem_id": ["a", "b", "c", "d"], "x": ["1", "2", "2", "3"]})
    gold = {"a": "1", "b": "1", "c": "2", "d": "3"}
    found = answer_columns(table, gold, chance=1)["x"]
    assert (found.rows, found.agree, found.expected) == (4, 3, 1.25)
    assert found.chance == pytest.approx(math.exp(-(3 * math.log(3 / 1.25) - 3 + 1.25)))


@settings(deadline=None)
@given(st.lists(st.sampled_from("12345"), min_size=30, max_size=200), st.randoms(use_true_random=False))
def test_a_shuffled_column_is_not_taken_for_answers(answers: list[str], rng: random.Random) -> None:
    ids = [str(i) for i in range(len(answers))]
    table = pa.table({"problem_id": ids, "x": rng.sample(answers, len(answers))})
    gold = dict(zip(ids, answers, strict=True))
    few = len(set(answers)) < 3  # nearly constant: a shuffle changes little, and tells nothing
    assert few or answer_columns(table, gold) == {} or table["x"].to_pylist() == answers


def test_another_file_beside_the_questions_is_found(tmp_path: Path) -> None:
    write_table(tmp_path / "hard" / "data.parquet", pa.table({"problem_id": ["a"], "question": ["1+1"]}))
    (tmp_path / "hard" / "notes.txt").write_text("2")
    assert findings.column_findings({"hard_questions": tmp_path / "hard"}) == [
        "hard_questions holds notes.txt besides its table"
    ]


def _rows(ids: list[str], level: int | None, **columns: Any) -> pa.Table:
    return pa.table(
        {
            "problem_id": ids,
            "level": [level] * len(ids),
            "question": [f"What is {i}?" for i in ids],
            **columns,
        }
    )


def _split(folder: Path, **changes: pa.Table) -> list[str]:
    parts = {
        "easy_problems": _rows(["e1", "e2"], 2),
        "hard_questions": _rows(["h1"], 5),
        "benchmark_questions": _rows(["b1", "b2"], 4),
        "gold_answers": _rows(["h1", "b1", "b2"], 4),
        **changes,
    }
    for name, table in parts.items():
        write_table(folder / name / "data.parquet", table)
    return findings.split_findings({name: folder / name for name in parts}, (1, 2, 3))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"easy_problems": _rows(["e1", "e1"], 2)}, "easy_problems: e1 there twice"),
        ({"easy_problems": _rows(["e1", "b1"], 2)}, "easy_problems and benchmark_questions share b1"),
        ({"easy_problems": _rows(["e1"], 4)}, r"easy_problems has levels \[4\], which are not easy"),
        ({"hard_questions": _rows(["h1"], 3)}, r"hard_questions has easy or unknown levels \[3\]"),
        (
            {"hard_questions": _rows(["h1"], None)},
            r"hard_questions has easy or unknown levels \[None\]",
        ),
        ({"gold_answers": _rows(["h1", "b1"], 4)}, "no gold answer for b2"),
        ({"gold_answers": _rows(["h1", "b1", "b2", "e1"], 4)}, "gold answers without a question: e1"),
    ],
)
def test_split_integrity(tmp_path: Path, changes: dict[str, pa.Table], says: str | None) -> None:
    found = _split(tmp_path, **changes)
    assert (says is None and not found) or (says and re.search(says, "\n".join(found)))


def test_a_benchmark_text_under_another_id_is_found(tmp_path: Path) -> None:
    copied = _rows(["h9"], 5).set_column(2, "question", [["What  is b1?"]])
    found = _split(tmp_path, hard_questions=copied)
    assert "hard_questions has 1 questions that are same in benchmark_questions: h9 as b1" in found


@pytest.mark.parametrize(("text", "kind"), [("what is E1", "same"), ("Tell me: what is e1?", "reworded")])
def test_an_easy_problem_among_the_hard_ones_is_found(tmp_path: Path, text: str, kind: str) -> None:
    copied = _rows(["h1"], 5).set_column(2, "question", [[text]])
    assert _split(tmp_path, hard_questions=copied) == [
        f"easy_problems has 1 questions that are {kind} in hard_questions: e1 as h1"
    ]


def _trained(
    folder: Path, question: str, problem_id: str = "e1", *, hard: bool = False, source: int | None = None
) -> list[str]:
    """The findings on step labels of one row: of the only source, or of one of two, the second of which
    may label hard questions."""
    tables = {
        "easy_problems": _rows(["e1", "e2"], 2, split=["train", "validation"]),
        "hard_questions": pa.table(
            {"problem_id": ["h1"], "question": ["Find the greatest prime factor of $2^{16}-1$."]}
        ),
        "benchmark_questions": pa.table({"problem_id": ["b1"], "question": ["How many sheep are there?"]}),
        "easy_step_labels": pa.table(
            {
                "problem_id": [problem_id],
                "question": [question],
                **({} if source is None else {"source": [source]}),
            }
        ),
    }
    for name, table in tables.items():
        write_table(folder / name / "data.parquet", table)
    folders = {name: folder / name for name in tables}
    sources = ([0] if source is None else [1]) if hard else []
    return findings.training_findings("easy_step_labels", folders, hard_sources=sources)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("What is e1?", []),
        ("what is  $e1$", []),
        ("What is e2?", ["easy_step_labels: e1 has the text of another problem"]),
        (
            "how many sheep are there",
            [
                "easy_step_labels: e1 has the text of another problem",
                "easy_step_labels has 1 questions that are same in benchmark_questions: e1 as b1",
            ],
        ),
        (
            "Find the largest prime factor of $2^{16} - 1$",
            [
                "easy_step_labels: e1 has the text of another problem",
                "easy_step_labels has 1 questions that are reworded in hard_questions: e1 as h1",
            ],
        ),
    ],
)
def test_the_text_of_every_row_that_trains_is_looked_at(
    tmp_path: Path, question: str, says: list[str]
) -> None:
    assert _trained(tmp_path, question) == says


def test_a_row_that_trains_under_a_hard_id_is_found(tmp_path: Path) -> None:
    assert _trained(tmp_path, "What is e1?", "h1") == ["easy_step_labels: h1 is not an easy problem"]


@pytest.mark.parametrize(
    ("question", "problem_id", "says"),
    [
        ("Find the greatest prime factor of $2^{16}-1$.", "h1", []),
        ("What is e1?", "e1", []),
        ("What is e1?", "h1", ["easy_step_labels: h1 has the text of another problem"]),
        (
            "Find the greatest prime factor of $2^{16}-1$.",
            "e1",  # hidden under an easy id, where its answer could be looked up
            [
                "easy_step_labels: e1 has the text of another problem",
                "easy_step_labels has 1 questions that are same in hard_questions: e1 as h1",
            ],
        ),
        (
            "How many sheep are there?",
            "h1",
            [
                "easy_step_labels: h1 has the text of another problem",
                "easy_step_labels has 1 questions that are same in benchmark_questions: h1 as b1",
            ],
        ),
        ("What is e1?", "x1", ["easy_step_labels: x1 is not an easy problem"]),
    ],
)
def test_hard_questions_that_a_model_labels_come_under_their_own_id(
    tmp_path: Path, question: str, problem_id: str, says: list[str]
) -> None:
    assert _trained(tmp_path, question, problem_id, hard=True) == says
    assert _trained(tmp_path, question, problem_id, hard=True, source=1) == says


def test_beside_a_source_that_labels_hard_questions_the_others_still_may_not(tmp_path: Path) -> None:
    question = "Find the greatest prime factor of $2^{16}-1$."
    assert _trained(tmp_path, question, "h1", hard=True, source=0) == [
        "easy_step_labels: h1 is not an easy problem",
        "easy_step_labels has 1 questions that are same in hard_questions: h1 as h1",
    ]


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([("a", 0), ("a", 1), ("b", 0), ("b", 1)], None),
        ([("a", 0), ("a", 1), ("b", 0)], "1 samples missing, as b #1"),
        ([("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 1)], "1 samples there twice, as b #1"),
        ([("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0)], "1 samples not requested, as c #0"),
    ],
)
def test_pool_completeness(tmp_path: Path, samples: list[tuple[str, int]], says: str | None) -> None:
    ids, numbers = zip(*samples, strict=True)
    write_table(tmp_path / "part-00000.parquet", pa.table({"problem_id": ids, "sample": numbers}))
    assert findings.pool_findings(tmp_path, ["a", "b"], 2) == ([] if says is None else [says])


def _metric(method: str, accuracy: float, n: int = 4, **changes: Any) -> dict[str, Any]:
    row = {
        "benchmark": "LADDER500",
        "policy": "sft",
        "method": method,
        "aggregation": "",
        "n": n,
        "levels": "hard",
        "problems": 100,
    }
    return {**row, "accuracy": accuracy, "ci_low": accuracy - 0.1, "ci_high": accuracy + 0.1, **changes}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([_metric("pass", 0.6), _metric("majority", 0.5)], None),
        ([_metric("pass", 0.6), _metric("best-of-n", 0.601)], "above pass@4"),
        ([_metric("pass", 0.6), _metric("majority", 0.62)], None),  # sampled: 4 standard errors are 0.025
        ([_metric("pass", 0.6), _metric("majority", 0.63)], "above pass@4"),
        ([_metric("greedy", 1.2)], r"outside \[0, 1\]"),
        ([_metric("greedy", 0.5, ci_low=0.55)], "interval out of order"),
        ([_metric("pass", 0.5, n=1), _metric("majority", 0.4, n=1)], "nothing to choose from"),
    ],
)
def test_metrics_sanity(rows: list[dict[str, Any]], says: str | None) -> None:
    found = findings.metric_findings(rows, draws=64)
    assert (says is None and not found) or (says and re.search(says, "\n".join(found)))


@pytest.mark.parametrize(("logits", "constant"), [([[0.5, 0.5], [0.5]], True), ([[0.5, -0.5], [0.5]], False)])
def test_a_constant_evaluator_is_found(tmp_path: Path, logits: list[list[float]], constant: bool) -> None:
    write_table(
        tmp_path / "part-00000.parquet", pa.table({"step_logits": pa.array(logits, pa.list_(pa.float32()))})
    )
    assert bool(findings.constant_findings(tmp_path)) == constant


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def test_the_checks_run_on_a_real_split(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """The ladder's four partitions through Dagster, with a benchmark_metrics stand-in for the
    firewall."""
    from assets.problem_source import problem_source
    from assets.problems import benchmark_questions, easy_problems, gold_answers, hard_questions

    toy.write_recipe(tmp_path, "problems: {train_per_level: 20, validation: 5}\nstrict: false\n")
    instance.add_dynamic_partitions("experiment", [toy.KEY])
    result = dg.materialize(
        [
            toy.recipe,
            problem_source,
            easy_problems,
            hard_questions,
            benchmark_questions,
            gold_answers,
            split_integrity,
        ],
        instance=instance,
        partition_key=toy.KEY,
        resources=toy.resources(tmp_path),
    )
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    assert check.metadata["benchmark_questions"].value == 500


def test_a_recipe_that_is_not_strict_passes_and_says_so(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    from e2h_pipeline.stages.asset import stage

    with toy.stages_restored():
        benchmark_metrics = stage(name="benchmark_metrics", group="toy", audit=True)(stand_in)
        toy.write_recipe(tmp_path, "problems: {easy_levels: [1, 2, 3, 4, 5]}\nstrict: false\n")
        instance.add_dynamic_partitions("experiment", [toy.KEY])
        result = dg.materialize(
            [toy.recipe, benchmark_metrics, supervision_firewall],
            instance=instance,
            partition_key=toy.KEY,
            resources=toy.resources(tmp_path),
        )
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    assert "not strict" in str(check.metadata["supervision"].value)
    assert check.metadata["supervised_levels"].value == "1, 2, 3, 4, 5"


def stand_in(job: Any) -> dict[str, Any]:
    """A stand-in."""
    (job.out / "data.txt").write_text("")
    return {}
