from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from labelling import label_steps

from e2h_pipeline import models
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines import loading
from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions
from e2h_pipeline.generation.sample_pool import Drawing, pool_table, sample_pool
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.problems.ladder.checker import step_labels as exact_labels
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import Problem, ProblemSplit, easy_table
from e2h_pipeline.recipe import Sampling
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.monte_carlo import step_labels, step_prefixes
from e2h_pipeline.supervision.rows import UNLABELLED

QUESTION = "1+2*2"
ONE, TWO = "1+2=3\n\n", "1+2=3\n\n3*2=6\n\n"
SLIP, LATE = "1+2=4\n\n", "1+2=3\n\n3*2=5\n\n"
SAMPLES = [
    (TWO + "# Answer\n\n6", "stop"),
    (LATE + "# Answer\n\n5", "stop"),
    (SLIP + "4*2=1\n\n# Answer\n\n1", "stop"),
    (ONE + "3*", "length"),
    (TWO + "# Answer\n\n6", "stop"),
    (TWO + "# Answer\n\n6", "length"),
    ("", "stop"),
]
SIX, FIVE = "# Answer\n\n6", "# Answer\n\n5"
# Four completions of each prefix; one that begins with "..." does not end.
SCRIPT = {
    ONE: ["3*2=6\n\n" + SIX, FIVE, "...3*2=6\n\n" + SIX, SIX],
    SLIP: [FIVE, FIVE, "", FIVE],
    TWO: [SIX, SIX, SIX, SIX],
    LATE: [FIVE, FIVE, SIX, FIVE],
}


class ScriptedEngine:
    """Completes known prefixes with known text, and records the requests."""

    def __init__(self) -> None:
        self.asked: list[list[SampleRequest]] = []

    def sample(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> list[list[Sample]]:
        self.asked.append(list(requests))
        return [
            [
                Sample(i, text.removeprefix("..."), (1, 2, 3), "length" if text[:3] == "..." else "stop", 0.0)
                for i, text in enumerate(SCRIPT[request.prefix][: request.count])
            ]
            for request in requests
        ]


def _write(folder: Path, samples: dict[str, list[tuple[str, str]]]) -> None:
    problems = tuple(Problem(name, 2, "arithmetic", QUESTION, ("s",), "6") for name in samples)
    write_table(folder / "easy" / "data.parquet", easy_table(ProblemSplit(problems, (), (), ())))
    pairs = [
        ({"problem_id": name, "level": 2}, Sample(i, text, (1, 2), reason, -1.0))  # type: ignore[arg-type]
        for name, texts in samples.items()
        for i, (text, reason) in enumerate(texts)
    ]
    write_table(folder / "samples" / "data" / "part-00000.parquet", pool_table(pairs, LADDER))


def _label(folder: Path, policy: Path, sampling: Sampling | None = None, **options: Any) -> tuple[Any, Any]:
    source = {"source": "monte_carlo", "completions": 4, "balance": False, **options}
    return label_steps(folder, source, policy=policy, sampling=sampling)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    engine = ScriptedEngine()
    monkeypatch.setattr(loading, "load_engine", lambda name, policy: engine)
    return engine


@pytest.mark.parametrize(
    ("soft", "labels"),
    [
        (False, [[1, 1, 1], [1, 1, 0], [0, -1, -1], [1, -1]]),
        (True, [[0.5, 1, 1], [0.5, 0.25, 0], [0, -1, -1], [0.5, -1]]),
    ],
)
def test_a_step_is_as_good_as_what_comes_of_it(
    tmp_path: Path, scripted: ScriptedEngine, soft: bool, labels: list[list[float]]
) -> None:
    _write(tmp_path, {"a": SAMPLES})
    rows, summary = _label(tmp_path, tmp_path, soft=soft)
    assert [row["labels"] for row in rows] == labels
    assert [row["sample"] for row in rows] == [0, 1, 2, 3]  # each text once; the empty one has no label
    assert {k: summary[k] for k in ("prefixes", "completions", "right", "unfinished", "tokens")} == {
        "prefixes": 4,
        "completions": 16,
        "right": 2 + 0 + 4 + 1,
        "unfinished": 1,
        "tokens": 48,
    }
    assert summary["dropped"] == {"nothing to label": 1}
    assert summary["undecided"] == 0
    assert summary["grader"] == "exact/1"


def test_prefixes_are_shared_and_nothing_is_drawn_behind_an_error(
    tmp_path: Path, scripted: ScriptedEngine
) -> None:
    _write(tmp_path, {"a": SAMPLES, "b": SAMPLES[:1]})
    _label(tmp_path, tmp_path, Sampling(shard_questions=2))
    asked = [[request.prefix for request in requests] for requests in scripted.asked]
    assert asked == [[ONE, SLIP, ONE], [LATE, TWO, TWO]]
    assert {request.question for requests in scripted.asked for request in requests} == {QUESTION}
    assert len({request.key for requests in scripted.asked for request in requests}) == 6


def test_what_is_drawn_is_drawn_once(tmp_path: Path, scripted: ScriptedEngine) -> None:
    """Soft labels from the same work folder: existing shards are read, not drawn again."""
    _write(tmp_path, {"a": SAMPLES, "b": SAMPLES[1:3]})
    _, first = _label(tmp_path, tmp_path)
    asked = len(scripted.asked)
    _, second = _label(tmp_path, tmp_path)
    assert len(scripted.asked) == asked == 4
    assert second == first
    damaged = tmp_path / "work" / "source-0" / "prefixes" / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    _, third = _label(tmp_path, tmp_path)
    assert {request.prefix for requests in scripted.asked[4:] for request in requests} == {SLIP, ONE, LATE}
    assert third == first


def test_no_samples_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path, {"a": []})
    with pytest.raises(ValueError, match=r"set easy_samples\.samples"):
        _label(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("completion", "finished", "prefixes"),
    [
        ("a\n\nb\n\n# Answer\n\n3", True, ["a\n\n", "a\n\nb\n\n"]),
        ("a\n\nb", True, ["a\n\n", "a\n\nb\n\n"]),
        ("a\n\nb", False, ["a\n\n"]),  # b was cut off
        ("a\n\nb\n\n", False, ["a\n\n", "a\n\nb\n\n"]),
        ("a\n\nb\n\n# Answ", False, ["a\n\n", "a\n\nb\n\n"]),
        ("a\n\nb\n\n# Answer", False, ["a\n\n", "a\n\nb\n\n"]),
        ("a\n\n\n\nb\n\n", False, ["a\n\n", "a\n\n\n\nb\n\n"]),
        ("# Answer\n\n3", True, []),
        ("", True, []),
    ],
)
def test_prefixes_of_steps(completion: str, finished: bool, prefixes: list[str]) -> None:
    assert step_prefixes(completion, finished, MARKED) == prefixes


@given(st.lists(st.sampled_from(["a", "b b", "\n\n", "\n", "# Answer", " "])), st.booleans())
def test_a_prefix_holds_the_steps_up_to_its_end(pieces: list[str], finished: bool) -> None:
    assume(pieces.count("# Answer") < 2)  # the first of two answer blocks counts as a step
    completion = "".join(pieces)
    solution = MARKED.parse(completion)
    prefixes = step_prefixes(completion, finished, MARKED)
    assert len(solution.steps) - (not finished) <= len(prefixes) <= len(solution.steps)
    for k, prefix in enumerate(prefixes, start=1):
        assert MARKED.parse(prefix).steps == solution.steps[:k]
        assert completion.startswith(prefix.rstrip("\n"))


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.125, 0.5, 1.0])))
def test_soft_and_hard_agree_on_what_is_wrong(shares: list[float]) -> None:
    hard, soft = step_labels(shares, soft=False), step_labels(shares, soft=True)
    assert soft == shares
    assert [x == 0 for x in hard] == [x == 0 for x in soft]
    assert set(hard) <= {0.0, 1.0, UNLABELLED}


# With a real policy

SAMPLING = Sampling(temperature=1.0, top_k=0, max_new_tokens=24, shard_questions=2)


def _drawn(folder: Path, policy: Path, tables: Path, problems: int, **changed: Any) -> None:
    """Samples of some easy problems of the small ladder."""
    easy = read_table(tables / "easy_problems" / "data.parquet").slice(0, problems)
    write_table(folder / "easy" / "data.parquet", easy)
    options = SAMPLING.model_copy(update={"samples": 3, **changed})
    drawing = Drawing(policy, LADDER, options, "easy_samples", Independent())
    sample_pool(drawing, easy, Work(folder / "samples" / "data", folder / "draw", 0))


def test_shards_leave_labels_alone(ladder_policy: Path, ladder_tables: Path, tmp_path: Path) -> None:
    _drawn(tmp_path, ladder_policy, ladder_tables, 6)
    usual, summary = _label(tmp_path, ladder_policy, SAMPLING)
    (tmp_path / "work").rename(tmp_path / "first-work")
    other = SAMPLING.model_copy(update={"shard_questions": 5, "batch_tokens": 200})
    again, told = _label(tmp_path, ladder_policy, other)
    assert again == usual
    assert told == summary
    assert summary["completions"] == 4 * summary["prefixes"] > 0


def test_a_killed_run_goes_on_and_is_the_same(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path, kill_midway: Callable[[str], None]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _drawn(whole, ladder_policy, ladder_tables, 8)
    killed.mkdir()
    for name in ("easy", "samples"):
        (killed / name).symlink_to(whole / name)
    rows, summary = _label(whole, ladder_policy, SAMPLING)
    kill_midway(
        f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from labelling import label_steps
from e2h_pipeline.recipe import Sampling
label_steps(
    Path({str(killed)!r}),
    dict(source="monte_carlo", completions=4, balance=False),
    policy=Path({str(ladder_policy)!r}),
    sampling=Sampling.model_validate({SAMPLING.model_dump()!r}),
    reporter=SuicidalReporter(2),
)
"""
    )
    parts = {
        p.name: p.stat().st_mtime_ns
        for p in (killed / "work" / "source-0" / "prefixes").glob("part-*.parquet")
    }
    assert sorted(parts) == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert not (killed / "out").exists()
    assert _label(killed, ladder_policy, SAMPLING) == (rows, summary)
    assert {n: (killed / "work" / "source-0" / "prefixes" / n).stat().st_mtime_ns for n in parts} == parts


def test_labels_of_a_real_policy_are_mostly_the_exact_checkers(ladder_tables: Path, tmp_path: Path) -> None:
    """The shipped model completes well, so a right step is seldom called wrong. A wrong step may be
    called right by luck: one completion in seven."""
    policy = Path(models.__file__).parent / "shipped" / "ladder-base"
    _drawn(tmp_path, policy, ladder_tables, 24, samples=6, max_new_tokens=60, temperature=1.2)
    options = SAMPLING.model_copy(update={"max_new_tokens": 60, "temperature": 0.7})
    rows, _ = _label(tmp_path, policy, options, completions=6)
    pairs = [
        (label, exact)
        for row in rows
        for label, exact in zip(row["labels"], exact_labels(row["question"], row["completion"]), strict=True)
        if label != UNLABELLED and exact != -1
    ]
    right = [label for label, exact in pairs if exact == 1]
    wrong = [label for label, exact in pairs if exact == 0]
    assert len(right) > 40
    assert len(wrong) > 20
    assert sum(right) / len(right) > 0.9
    assert sum(wrong) / len(wrong) < 0.3
