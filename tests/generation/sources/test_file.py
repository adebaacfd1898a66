"""Other people's samples as a pool: matching, answers in our own format, keys, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_stages import resources

from assets.benchmark_samples import benchmark_samples
from assets.problem_source import problem_source
from assets.problems import benchmark_questions
from assets.recipe import recipe
from e2h_pipeline.artifacts.lineage import trace
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.early_stop import Trial, early_stop_metrics
from e2h_pipeline.evaluation.graded import PoolError, PoolFiles, load_graded, vote_classes
from e2h_pipeline.evaluation.rerank import rerank_metrics
from e2h_pipeline.generation.sources.file import SuppliedSamples, sample_file
from e2h_pipeline.generation.sources.protocol import PoolJob
from e2h_pipeline.generation.sources.records import match, supplied_line
from e2h_pipeline.grading.mathematics.extract import any_answer
from e2h_pipeline.grading.mathematics.grader import MathGrader
from e2h_pipeline.orchestration.planning import stages_of
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemSplit, gold_table
from e2h_pipeline.problems.supplied_files import look_at_supplied
from e2h_pipeline.recipe import EarlyStop, Evaluation, FileSamples, PolicySamples, Recipe, Rerank
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.reranking.curves import RerankPool, method_curves
from e2h_pipeline.stages.spec import STAGES, narrow
from resources.store import latest_artifact

QUESTIONS = {
    "test/1": "What is $1+1$?",
    "test/2": "Find $x$ if $x = 9$.",
    "test/3": "How many dogs have four legs?",
}
LEVELS = {"test/1": 1, "test/2": 4, "test/3": 5}


def box(answer: object) -> str:
    return f"We look.\n\nSo it is $\\boxed{{{answer}}}$."


LINES: list[dict[str, Any]] = [
    {"unique_id": "test/1", "samples": [{"completion": box(2), "kind": "a"}, {"completion": box(3)}]},
    {"problem": "Find  $x$  if  $x=9$", "responses": [box(9), "It is nine,\nand"]},  # another spelling
    {
        "problem_id": "test/3",
        "question": QUESTIONS["test/3"],
        "responses": ["All.\n\n# Answer\n\nall", box(4)],
    },
]


def write(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    text = "".join(json.dumps(each) + "\n" for each in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def table(questions: Mapping[str, str] = QUESTIONS) -> pa.Table:
    return pa.table(
        {
            "problem_id": list(questions),
            "level": pa.array([LEVELS.get(name, 1) for name in questions], pa.int8()),
            "question": list(questions.values()),
        }
    )


def no_drawing() -> Any:
    raise AssertionError("nothing is drawn")


def pool(
    path: Path, questions: pa.Table | None = None, **options: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the pool of a file, and its summary."""
    out = path.parent / f"{path.name}-pool"
    job = PoolJob(
        FileSamples(path=str(path), **options),
        MATH,
        table() if questions is None else questions,
        no_drawing,
        Work(out, path.parent / "work"),
    )
    summary = SuppliedSamples().pool(job)
    return read_table(out).to_pylist(), summary


def test_a_small_file(tmp_path: Path) -> None:
    other = {"unique_id": "test/9", "responses": ["no"] * 2}
    swapped = {"unique_id": "test/2", "problem": QUESTIONS["test/1"], "responses": ["2", "2"]}
    rows, summary = pool(write(tmp_path / "x.jsonl", [*LINES, other, swapped]))
    found = [(r["problem_id"], r["level"], r["sample"], MATH.answer_of(r["completion"], True)) for r in rows]
    assert found == [
        ("test/1", 1, 0, "2"),
        ("test/1", 1, 1, "3"),
        ("test/2", 4, 0, "9"),
        ("test/2", 4, 1, None),
        ("test/3", 5, 0, "all"),
        ("test/3", 5, 1, "4"),
    ]
    assert rows[0]["completion"] == "We look.\n\nSo it is $\\boxed{2}$.\n\n# Answer\n\n2"
    assert rows[4]["completion"] == "All.\n\n# Answer\n\nall"
    assert [r["finish_reason"] for r in rows] == ["stop", "stop", "stop", "length", "stop", "stop"]
    assert [r["answered"] for r in rows] == [True, True, True, False, True, True]
    assert all(r["tokens"] is r["token_ids"] is r["logprob"] is None for r in rows)
    assert summary == {
        "questions": 3,
        "samples": 6,
        "per_question": 2,
        "unfinished": 1,
        "no_answer": 1,
        "file": "x.jsonl",
        "unmatched": 1,
        "first_unmatched": ["x.jsonl:4 (test/9)"],
        "other_text": 1,
        "first_other_text": ["x.jsonl:5 (test/2)"],
    }


def test_what_the_file_says_of_the_end_counts(tmp_path: Path) -> None:
    lines = [
        {"unique_id": "test/1", "responses": [box(2), "no\nanswer"], "finish_reasons": ["length", "stop"]},
        {"unique_id": "test/2", "completion": box(9), "finish_reason": "length"},
        {"unique_id": "test/2", "completion": box(9)},
        {"unique_id": "test/3", "samples": [{"response": box(1), "finish_reason": "eos"}, box(2)]},
    ]
    rows, summary = pool(write(tmp_path / "x.jsonl", lines))
    assert [r["finish_reason"] for r in rows] == ["length", "stop", "length", "stop", "stop", "stop"]
    assert [r["answered"] for r in rows] == [False, False, False, True, True, True]
    assert (summary["unfinished"], summary["no_answer"]) == (2, 3)


QUESTION = st.integers(0, 4)
TEXT = st.sampled_from([box(1), box(2), "no", "It is 5.\n\n# Answer\n\n5"])


@given(
    st.lists(st.tuples(TEXT, TEXT), min_size=5, max_size=5),
    st.permutations(range(5)),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.lists(st.sampled_from(["id", "text", "both"]), min_size=5, max_size=5),
)
def test_how_lines_are_written_and_ordered_changes_nothing(
    texts: list[tuple[str, str]], order: list[int], together: list[bool], named: list[str]
) -> None:
    """By id or by text, one completion a line or all, in any order of the questions."""
    rows = [{"problem_id": f"p{i}", "question": f"What is ${i} + 1$?"} for i in range(5)]
    lines = []
    for i in order:
        who = {
            **({"problem_id": f"p{i}"} if named[i] != "text" else {}),
            **({"question": f"what is  {i}+1"} if named[i] != "id" else {}),
        }
        lines += (
            [{**who, "responses": list(texts[i])}]
            if together[i]
            else [{**who, "completion": text} for text in texts[i]]
        )
    found = match([supplied_line(line, f"x:{n}") for n, line in enumerate(lines)], rows)
    assert {name: tuple(c.text for c in own) for name, own in found.completions.items()} == {
        f"p{i}": texts[i] for i in range(5)
    }
    assert not found.unmatched and not found.other_text


@given(
    st.lists(st.sampled_from(["We look.", "2\n3", "  indented", "# Question", "$x$"]), max_size=4), st.data()
)
def test_the_answer_by_all_rules_is_the_answer_in_our_own_format(
    steps: list[str], data: st.DataObject
) -> None:
    end = data.draw(
        st.sampled_from(
            [
                "$\\boxed{7}$.",
                "The answer is 7.",
                "#### 7",
                "Therefore, x = 7.",
                "no more",
                "# Answer\n\n7",
                "",
            ]
        )
    )
    text = "\n\n".join([*steps, end])
    for domain in ("math", "gsm8k"):
        ours = DOMAINS.load(domain).in_own_format(text)
        assert DOMAINS.load(domain).answer_of(ours, True) == any_answer(text)
        assert DOMAINS.load(domain).in_own_format(ours) == ours
        kept = [line.strip() for line in text.split("\n") if line.strip()]
        assert [line.strip() for line in ours.split("\n") if line.strip()][: len(kept)] == kept


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (LINES[:2], {}, "no completion of 1 of 3 benchmark questions, such as test/3, and 0 lines"),
        ([*LINES, LINES[0]], {}, "2 completions of test/2, others have up to 4.*samples.per_question to 2"),
        (LINES, {"per_question": 3}, "2 completions of test/1, and samples.per_question asks for 3"),
        ([{"completion": "x"}], {}, "x.jsonl:1: neither problem_id or unique_id nor question or problem"),
        ([{"unique_id": "test/1"}], {}, "x.jsonl:1: no completion; there are unique_id"),
        ([{"unique_id": "test/1", "responses": "x"}], {}, "x.jsonl:1: 'responses' must be a list"),
        (
            [{"unique_id": "test/1", "responses": [1]}],
            {},
            "'responses' of sample 0: a completion must be text",
        ),
        ([{"unique_id": ["test/1"], "responses": ["x"]}], {}, "x.jsonl:1: an id must be text"),
        (
            [{"unique_id": "test/1", "responses": ["x"], "finish_reasons": []}],
            {},
            "'finish_reasons' must be a list of 1",
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, lines: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProblemError, match=message):
        pool(write(tmp_path / "x.jsonl", lines), **options)


def test_fewer_samples_of_each_question_are_the_first_ones(tmp_path: Path) -> None:
    more = [*LINES, {"unique_id": "test/1", "completion": "late"}]
    rows, summary = pool(write(tmp_path / "x.jsonl", more), per_question=1)
    assert [(r["problem_id"], r["sample"]) for r in rows] == [("test/1", 0), ("test/2", 0), ("test/3", 0)]
    assert summary["per_question"] == 1 and rows[0]["completion"].endswith("\n\n2")


def test_samples_of_a_question_lie_together(tmp_path: Path) -> None:
    """In one part of the pool, so that scoring can share their prompt."""
    questions = {f"p{i:03}": f"What is ${i}$?" for i in range(70)}
    lines = [{"problem_id": name, "completion": box(n)} for n in range(2) for name in questions]
    pool(write(tmp_path / "x.jsonl.gz", lines), table(questions))
    parts = [
        read_table(part)["problem_id"].to_pylist()
        for part in sorted((tmp_path / "x.jsonl.gz-pool").iterdir())
    ]
    assert [name for part in parts for name in part] == [name for name in questions for _ in range(2)]
    assert len(parts) == 3 and sum(len(set(part)) for part in parts) == 70


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outputs").mkdir()
    there = write(tmp_path / "outputs" / "x.jsonl.gz", LINES)
    monkeypatch.setenv("E2H_DATA_DIR", str(tmp_path))
    for path in ("x", "x.jsonl.gz", str(there)):
        assert sample_file(FileSamples(path=path)) == there
    with pytest.raises(ProblemError, match=r"outputs/y: no such file"):
        sample_file(FileSamples(path="y"))
    with pytest.raises(ProblemError, match=r"samples\.path names none"):
        sample_file(FileSamples())
    monkeypatch.delenv("E2H_DATA_DIR")
    with pytest.raises(ProblemError, match=r"bare name x, .* E2H_DATA_DIR is not set"):
        sample_file(FileSamples(path="x"))


def test_the_file_is_watched(tmp_path: Path) -> None:
    options = FileSamples(path=str(write(tmp_path / "x.jsonl", LINES)))
    before = look_at_supplied("samples", [(SuppliedSamples(), options)])
    assert not before.error and set(before.parts) == {"x.jsonl"}
    write(tmp_path / "x.jsonl", [*LINES[:2], {"unique_id": "test/3"}])
    after = look_at_supplied("samples", [(SuppliedSamples(), options)])
    assert after.version != before.version and "x.jsonl:3: no completion" in after.error


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"early_stop": {"enabled": True}}, "early_stop.enabled gives samples up while they are drawn"),
        ({"scope": "pipeline"}, "there is none to go on with: set scope: reranking"),
        ({"samples": {"source": "file", "author": "sft"}}, "author"),
        ({"samples": {"source": "policy", "path": "x"}}, "path is a field of source=file"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({"name": "x", "scope": "reranking", "samples": {"source": "file"}, **more})


def test_nothing_of_the_policy_is_read_and_nothing_of_drawing_is_in_the_key() -> None:
    """And who wrote the samples is a matter of tables, not of the pool."""
    stage = STAGES["benchmark_samples"]

    def view(**fields: Any) -> Any:
        found = Recipe.model_validate({"name": "x", "scope": "reranking", **fields})
        return narrow(found, stage.sections)

    file = {"source": "file", "path": "x.jsonl"}
    supplied = view(samples=file)
    assert stage.inputs(supplied) == ("benchmark_questions",)
    assert not stage.samples(supplied) and "search.method" not in stage.registries(supplied)
    other = view(
        samples={**file, "author": "phi"}, sampling={"samples": 8, "top_k": 3}, early_stop={"every": 8}
    )
    assert other.as_dict() == supplied.as_dict()
    assert view(samples={**file, "per_question": 3}).as_dict() != supplied.as_dict()
    assert view(sampling={"samples": 8}).as_dict() != view().as_dict()
    assert (PolicySamples().drawn_by, FileSamples(author="phi").drawn_by) == ("sft", "phi")


def test_an_experiment_on_samples_by_others_makes_no_policy() -> None:
    recipe = Recipe.from_key("math500-samples")
    assert recipe.samples.path == "math500_phi_power_sampling_n9" and recipe.samples.drawn_by == "phi"
    stages = stages_of(recipe)
    assert stages >= {"easy_evaluator", "benchmark_samples", "rerank_scores", "rerank_metrics", "report"}
    assert not stages & {"sft_policy", "easy_samples", "rl_policy", "sft_answers", "early_stop_metrics"}
    evaluator = Recipe.from_key("real-evaluator")
    for section in ("base", "labels", "reward", "problems"):
        assert getattr(recipe, section) == getattr(evaluator, section)


def test_reranking_of_a_pool_of_others(tmp_path: Path) -> None:
    """Of nobody's tokens there are no lengths; the author is the policy of the tables."""
    pool(write(tmp_path / "x.jsonl", LINES))
    problems = [
        Problem(name, LEVELS[name], "s", question, ("s",), answer)
        for (name, question), answer in zip(QUESTIONS.items(), ("2", "9", "5"), strict=True)
    ]
    write_table(tmp_path / "gold" / "data.parquet", gold_table(ProblemSplit((), (), (), tuple(problems))))
    rows = read_table(tmp_path / "x.jsonl-pool")
    (tmp_path / "samples").mkdir()
    (tmp_path / "x.jsonl-pool").rename(tmp_path / "samples" / "data")
    segments = [len(MATH.text.parse(text).spans) for text in rows["completion"].to_pylist()]
    scores = rows.select(["problem_id", "level", "sample"]).append_column(
        "step_logits", pa.array([[1.0] * count for count in segments], pa.list_(pa.float32()))
    )
    write_table(tmp_path / "scores" / "data" / "part-00000.parquet", scores)
    files = PoolFiles(
        tmp_path / "samples", tmp_path / "scores", tmp_path / "gold", kind="prm", policy="somebody"
    )
    options = Evaluation(grader="math", bootstrap=100, easy_levels=(1, 2, 3))
    summary = rerank_metrics(files, MATH, Rerank(draws=4), options, Work(tmp_path / "out", tmp_path / "w", 0))
    metrics = read_table(tmp_path / "out" / "metrics.parquet").to_pylist()
    assert {row["policy"] for row in metrics} == {"somebody"}
    assert summary["hard_accuracy"]["pass"] == 0.5 and summary["no_answer"] == 1
    assert read_table(tmp_path / "out" / "lengths.parquet").num_rows == 0
    with pytest.raises(PoolError, match="tokens of samples by others are not known"):
        early_stop_metrics(
            files, Trial(EarlyStop(), (1.0,), tmp_path, None), MATH, options, Work(tmp_path, tmp_path)
        )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        found.add_dynamic_partitions("experiment", ["one"])
        yield found


def test_a_pool_has_lineage_and_follows_its_file(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """Through the real store: no policy is made, the file's hash is in the manifest, a touched file is
    the same pool, a changed one another."""
    for part in ("math_train", "math_test", "math500"):
        names = QUESTIONS if part == "math500" else {f"{part}/{i}": f"{part}: ${i} + 2$?" for i in range(8)}
        records = [
            {
                "unique_id": name,
                "problem": question,
                "solution": box(2),
                "answer": "2",
                "subject": "Algebra",
                "level": LEVELS.get(name, 1 + i % 5),
            }
            for i, (name, question) in enumerate(names.items())
        ]
        write(tmp_path / f"{part}.jsonl", records)
    samples = write(tmp_path / "samples.jsonl", LINES)
    home = tmp_path / "home"
    made = resources(home)
    (home / "recipes" / "one.yaml").write_text(
        f"description: others\nproblems: {{source: math, path: {tmp_path}, strict_counts: false, validation: 1}}\n"
        f"scope: reranking\nsamples: {{source: file, path: {samples}}}\n"
    )
    stages = [recipe, problem_source, benchmark_questions, benchmark_samples]

    def version() -> tuple[str, int]:
        run = dg.materialize(
            stages,
            instance=instance,
            partition_key="one",
            resources=made,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        assert run.success
        store = ArtifactStore(home)
        found = latest_artifact(instance, store, "benchmark_samples", "one")
        assert found is not None and set(found.manifest.external) == {"samples.jsonl"}
        assert {node.asset for node in trace(store, found).inputs} == {"benchmark_questions"}
        return found.data_version, len(list((home / "store" / "benchmark_samples").iterdir()))

    first, count = version()
    assert count == 1
    os.utime(samples)
    assert version() == (first, 1)
    write(samples, [{**LINES[0], "samples": [box(5), box(6)]}, *LINES[1:]])
    changed, count = version()
    assert changed != first and count == 2


def test_real_completions_lose_no_answer_and_leave_room_above_the_vote(
    data_dir: Path, tmp_path: Path
) -> None:
    """500 x 9 of Phi: every answer that `e2h grade` finds is found in the pool too. On hard levels
    half of the problems have a right answer among nine, and the vote finds a third."""
    path = data_dir / "outputs" / "math500_phi_power_sampling_n9.jsonl.gz"
    records = [record for _, record in read_jsonl(path)]
    texts = {sample["completion"] for record in records for sample in record["samples"]}
    found = [(any_answer(text), MATH.answer_of(MATH.in_own_format(text), True)) for text in texts]
    assert [pair for pair in found if pair[0] != pair[1]] == []
    rows = [
        {
            "problem_id": r["unique_id"],
            "level": r["level"],
            "question": "",
            "part": "benchmark",
            "answer": r["gold"],
        }
        for r in records
    ]
    questions = pa.Table.from_pylist(rows)
    write_table(tmp_path / "gold" / "data.parquet", questions)
    job = PoolJob(
        FileSamples(path=str(path)), MATH, questions, no_drawing, Work(tmp_path / "pool", tmp_path / "w")
    )
    summary = SuppliedSamples().pool(job)
    assert (summary["per_question"], summary["no_answer"], summary["unfinished"]) == (9, 429, 429)
    with MathGrader.open(1, 30.0) as judge:
        graded = load_graded(tmp_path / "pool", tmp_path / "gold", judge, MATH.answer_of)
        classes = vote_classes(graded.answers, judge)
    _, curves = method_curves(RerankPool(graded.problem_ids, classes, graded.correct, {}), draws=1, seed=0)
    hard = graded.levels > 3
    at_nine = {method: 100 * curve[hard, -1].mean() for (method, _), curve in curves.items()}
    assert at_nine["pass"] == pytest.approx(52.7, abs=0.5)
    assert at_nine["majority"] == pytest.approx(36, abs=1)
