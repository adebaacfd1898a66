"""GSM8K: records worked by hand, levels by steps, the published split, and the firewall by level."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.grading.verdicts import Gold, Verdict
from e2h_pipeline.problems.gsm8k.problems import Gsm8kReader, read_hub
from e2h_pipeline.problems.gsm8k.records import level_of, problem_of_record
from e2h_pipeline.problems.records import ProblemError, ProblemPool, counts_by_level, split_by_supervision
from e2h_pipeline.problems.same_problem import same_key
from e2h_pipeline.problems.source import describe_source, load_pool, load_split
from e2h_pipeline.recipe import Gsm8kProblems, Recipe
from e2h_pipeline.registry import DOMAINS, GRADERS
from e2h_pipeline.solutions import MARKED

READER = Gsm8kReader()
CLIPS = {
    "question": "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many in all?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72",
}


def record(name: str, steps: int, answer: str = "7") -> dict[str, str]:
    lines = [f"{name} has {i}+1 = <<{i}+1={i + 1}>>{i + 1} of them." for i in range(steps)]
    return {
        "question": f"How many does {name} have after {steps} days?",
        "answer": "\n".join([*lines, f"#### {answer}"]),
    }


TRAIN = [
    record(name, steps)
    for name, steps in zip(("Ann", "Bo", "Cy", "Dee", "Ed", "Flo"), range(1, 7), strict=True)
]
TEST = [CLIPS, record("Gus", 9, "1,080")]


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(each) + "\n" for each in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl.gz", TRAIN)
    write(tmp_path / "test.jsonl", TEST)
    return tmp_path


def options(folder: Path | None = None, **more: Any) -> Gsm8kProblems:
    return Gsm8kProblems(path=None if folder is None else str(folder), strict_counts=False, **more)


def test_a_record_becomes_steps_without_notes_and_an_answer() -> None:
    problem = problem_of_record(CLIPS, "test/0", "test.jsonl", 1)
    assert (problem.problem_id, problem.level, problem.answer) == ("test/0", 1, "72")
    assert problem.question == CLIPS["question"]
    assert problem.steps == (
        "Natalia sold 48/2 = 24 clips in May.",
        "Natalia sold 48+24 = 72 clips altogether in April and May.",
    )
    assert MARKED.completion(problem.steps, problem.answer) == (
        "Natalia sold 48/2 = 24 clips in May.\n\n"
        "Natalia sold 48+24 = 72 clips altogether in April and May.\n\n# Answer\n\n72"
    )


def test_a_small_folder(folder: Path) -> None:
    pool = READER.pool(options(folder))
    assert [(p.problem_id, p.level) for p in pool.train] == [
        ("train/0", 1),
        ("train/1", 1),
        ("train/2", 2),
        ("train/3", 3),
        ("train/4", 4),
        ("train/5", 5),
    ]
    assert [(p.problem_id, p.level, p.answer) for p in pool.benchmark] == [
        ("test/0", 1, "72"),
        ("test/1", 5, "1,080"),
    ]
    assert pool.findings == {
        "train_by_steps": {str(n): 1 for n in range(1, 7)},
        "test_by_steps": {"2": 1, "9": 1},
    }
    assert describe_source(options(folder), load_pool(options(folder)))["benchmark"] == "GSM8K"


def test_easy_and_hard_are_parted_by_steps(folder: Path) -> None:
    split = load_split(options(folder, validation=1))
    assert {len(p.steps) for p in (*split.easy_train, *split.easy_validation)} == {1, 2, 3}
    assert {len(p.steps) for p in split.hard} == {4, 5, 6}


def test_levels_have_names_and_the_harder_ones_are_behind_the_firewall() -> None:
    def recipe(**more: Any) -> Recipe:
        return Recipe.model_validate({"name": "x", "problems": {"source": "gsm8k", **more}})

    assert recipe().problems.easy_levels == recipe().evaluation.easy_levels == (1, 2)
    assert recipe(easy_levels=["two-step"]).problems.easy_levels == (1,)
    assert recipe().evaluation.grader == "math"
    with pytest.raises(ValueError, match=r"level 3 in problems\.easy_levels needs strict: false"):
        recipe(easy_levels=["three-step", "four-step"])


@given(st.integers(1, 40), st.integers(1, 40))
def test_more_steps_are_never_an_easier_level(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 1 <= level_of(low) <= level_of(high) <= 5
    assert level_of(low) < level_of(high) or low == high or high <= 2 or low >= 6


LINE = st.text(st.characters(exclude_characters="<>#\n\r", exclude_categories=["Cs"]), min_size=1).filter(
    str.strip
)


@given(st.lists(LINE, min_size=1, max_size=12), st.integers(0, 10**9), st.data())
def test_notes_and_blank_lines_change_nothing(lines: list[str], answer: int, data: st.DataObject) -> None:
    plain = problem_of_record({"question": "q", "answer": "\n".join([*lines, f"#### {answer}"])}, "a", "f", 1)
    noted = []
    for line in lines:
        place = data.draw(st.integers(0, len(line)))
        noted += [line[:place] + "<<48/2=24>>" + line[place:], *([""] if data.draw(st.booleans()) else [])]
    other = problem_of_record({"question": "q", "answer": "\n".join([*noted, f"#### {answer}"])}, "a", "f", 1)
    assert plain == other
    assert plain.steps == tuple(line.strip() for line in lines) and plain.level == level_of(len(lines))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, "'answer' must be str, not NoneType"),
        ({"answer": "2 and 2 is 4."}, "'answer' must be steps"),
        ({"answer": "#### 4"}, "'answer' must be steps"),
        ({"answer": "2 and 2 is 4.\n#### "}, "'answer' must be steps"),
        ({"answer": "2 and 2.\n#### 4\n#### 5"}, "'answer' must be steps"),
        ({"answer": "2 and 2 is <<2+2.\n#### 4"}, "'answer' has a note << >> that does not close"),
        ({"question": 3}, "'question' must be str, not int"),
    ],
)
def test_a_bad_field_names_file_and_line(folder: Path, change: dict[str, Any], message: str) -> None:
    write(folder / "test.jsonl", [TEST[0], {**TEST[1], **change}])
    with pytest.raises(ProblemError, match=rf"test\.jsonl:2: {message}"):
        READER.pool(options(folder))


def test_missing_and_empty_files_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "test.jsonl", [])
    with pytest.raises(ProblemError, match=r"test\.jsonl: no problem in it"):
        READER.pool(options(folder))
    (folder / "test.jsonl").unlink()
    with pytest.raises(ProblemError, match=r"no test\.jsonl or test\.jsonl\.gz; set problems\.path"):
        READER.files(options(folder))
    monkeypatch.delenv("E2H_DATA_DIR", raising=False)
    with pytest.raises(
        ProblemError, match=r"problems\.source is gsm8k, but there is no data: set problems\.path"
    ):
        READER.pool(options())


def test_the_fingerprint_follows_the_bytes(folder: Path) -> None:
    before = READER.fingerprint(options(folder))
    write(folder / "test.jsonl", TEST[:1])
    after = READER.fingerprint(options(folder))
    assert {name for name in before if before[name] != after[name]} == {"test.jsonl"}
    assert set(before) == {"train.jsonl.gz", "test.jsonl"}


def test_strict_counts_refuse_anything_else(folder: Path) -> None:
    with pytest.raises(
        ProblemError, match=r"train level 1: 2 problems instead of 1961.*strict_counts: false"
    ):
        READER.pool(Gsm8kProblems(path=str(folder)))


def test_the_hub_is_read_like_the_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that `datasets` reads as it reads openai/gsm8k: two configurations, of which one is
    taken."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    hub = tmp_path / "gsm8k"
    lines = ["---", "configs:"]
    for configuration in ("main", "socratic"):
        (hub / configuration).mkdir(parents=True)
        lines += [f"- config_name: {configuration}", "  data_files:"]
        for part, records in (("train", TRAIN), ("test", TEST)):
            write(hub / configuration / f"{part}.jsonl", records)
            lines += [f"  - split: {part}", f"    path: {configuration}/{part}.jsonl"]
    (hub / "README.md").write_text("\n".join([*lines, "---", ""]))
    local = READER.pool(options(folder))
    assert read_hub(str(hub)) == {"train": list(local.train), "test": list(local.benchmark)}
    pinned = options(hub="openai/gsm8k", hub_revision="a" * 40)
    assert READER.fingerprint(pinned) == {"openai/gsm8k": "a" * 40} and READER.files(pinned) == []


@pytest.fixture(scope="module")
def real(data_dir: Path) -> ProblemPool:
    return load_pool(Gsm8kProblems(path=str(data_dir / "gsm8k")))


def test_real_gsm8k(real: ProblemPool) -> None:
    train = {"1": 1961, "2": 2149, "3": 1659, "4": 955, "5": 749}
    assert counts_by_level(real.train) == train
    assert counts_by_level(real.benchmark) == {"1": 326, "2": 371, "3": 297, "4": 175, "5": 150}
    steps = {"2": 1961, "3": 2149, "4": 1659, "5": 955, "6": 419, "7": 227, "8": 90, "9": 13}
    assert real.findings["train_by_steps"] == steps
    problems = [*real.train, *real.benchmark]
    assert len({same_key(problem.question) for problem in problems}) == len(problems) == 8_792


def test_real_split(real: ProblemPool) -> None:
    split = split_by_supervision(real, Gsm8kProblems(validation=200))
    easy = (*split.easy_train, *split.easy_validation)
    assert {p.level for p in easy} == {1, 2} and {p.level for p in split.hard} == {3, 4, 5}
    assert len(split.benchmark) == 1_319
    assert len(easy) + len(split.hard) + len(split.kept_out) == 7_473
    assert split.kept_out == ()  # no two of them are the same or reworded


def test_real_reference_solutions_are_right_by_the_domains_own_grader(real: ProblemPool) -> None:
    """Every solution in the domain's text gives the answer back, and commas in it do not matter."""
    domain, problems = DOMAINS.load("gsm8k"), [*real.train, *real.benchmark]
    texts = [domain.text.completion(p.steps, p.answer) for p in problems]
    assert [domain.answer_of(text, True) for text in texts] == [p.answer for p in problems]
    assert all(
        len(domain.text.parse(text).steps) == len(p.steps) for text, p in zip(texts, problems, strict=True)
    )
    assert not any(re.search("<<|>>|####", text) for text in texts)
    commas = [p for p in problems if "," in p.answer]
    pairs = [(Gold(p.answer, question=p.question), p.answer.replace(",", "")) for p in commas]
    assert len(pairs) == 93
    with GRADERS.load(domain.grader).open(1, 30.0) as judge:
        assert {grade.verdict for grade in judge.grade_pairs(pairs)} == {Verdict.EQUAL}
