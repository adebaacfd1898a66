import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.problems.math.hub import read_hub
from e2h_pipeline.problems.math.problems import MathReader
from e2h_pipeline.problems.records import ProblemError, counts_by_level
from e2h_pipeline.problems.source import describe_source, load_pool, load_split
from e2h_pipeline.recipe import MathProblems

READER = MathReader()


def record(name: str, question: str, level: int | None = 1, answer: str = "2") -> dict[str, Any]:
    solution = f"We look at it. The answer is $\\boxed{{{answer}}}$."
    return {
        "unique_id": name,
        "problem": question,
        "solution": solution,
        "answer": answer,
        "subject": "Algebra",
        "level": level,
    }


TRAIN = [
    record("train/algebra/1.json", "What is $1+1$?", 1),
    record("train/algebra/2.json", "What is $2\\cdot 3$?", 5, "6"),
    record("train/algebra/3.json", "What is it?", None),
]
TEST = [
    record("test/algebra/1.json", "What is $1 + 1$?", 4),
    record("test/algebra/2.json", "Find $x$ if $x = 9$.", 2, "9"),
    record("test/algebra/3.json", "Find  $x$ if $x = 9$.", 3, "9"),
]


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(each) + "\n" for each in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "math_train.jsonl.gz", TRAIN)
    write(tmp_path / "math_test.jsonl", TEST)
    write(tmp_path / "math500.jsonl", [TEST[1]])
    return tmp_path


def options(folder: Path | None = None, **more: Any) -> MathProblems:
    return MathProblems(path=None if folder is None else str(folder), strict_counts=False, **more)


def test_a_small_folder(folder: Path) -> None:
    pool = READER.pool(options(folder))
    assert [(p.problem_id, p.level) for p in pool.train] == [
        ("train/algebra/1.json", 1),
        ("train/algebra/2.json", 5),
        ("train/algebra/3.json", None),
        ("test/algebra/1.json", 4),
    ]
    assert [p.problem_id for p in pool.benchmark] == ["test/algebra/2.json"]
    assert pool.train[1].steps == ("We look at it.", "The answer is $\\boxed{6}$.")
    assert (pool.train[1].answer, pool.train[1].level, pool.train[1].subject) == ("6", 5, "Algebra")
    assert pool.findings["removed_for_benchmark"] == {"by_id": 1, "by_text": 1}
    described = describe_source(options(folder), load_pool(options(folder)))
    assert described["benchmark"] == "MATH500"
    assert described["unknown_level"] == ["train/algebra/3.json"]
    assert described["train_by_level"] == {"1": 1, "4": 1, "5": 1}
    duplicates = described["duplicates"]
    assert duplicates["matched"] == ["easy train/algebra/1.json (level 1): same as hard test/algebra/1.json"]


def test_strict_counts_refuse_anything_else(folder: Path) -> None:
    with pytest.raises(ProblemError, match=r"pool 4 instead of 12000.*strict_counts"):
        READER.pool(MathProblems(path=str(folder)))


def test_the_fingerprint_follows_the_bytes(folder: Path) -> None:
    before = READER.fingerprint(options(folder))
    assert set(before) == {"math_train.jsonl.gz", "math_test.jsonl", "math500.jsonl"}
    write(folder / "math_test.jsonl", TEST[:2])
    after = READER.fingerprint(options(folder))
    assert {name for name in before if before[name] != after[name]} == {"math_test.jsonl"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, "'answer' must be str, not NoneType"),
        ({"level": 6}, "level 6 is not 1-5"),
        ({"level": True}, "level True is not 1-5"),
        ({"level": "hard"}, "level 'hard' is not 1-5"),
    ],
)
def test_a_bad_field_names_file_and_line(folder: Path, change: dict[str, Any], message: str) -> None:
    write(folder / "math_test.jsonl", [TEST[0], {**TEST[1], **change}])
    with pytest.raises(ProblemError, match=rf"math_test\.jsonl:2: {message}"):
        READER.pool(options(folder))


@pytest.mark.parametrize("name", ["unique_id", "problem", "solution", "answer", "subject", "level"])
def test_a_missing_field_names_file_and_line(folder: Path, name: str) -> None:
    write(folder / "math_test.jsonl", [TEST[0], {key: TEST[1][key] for key in TEST[1] if key != name}])
    with pytest.raises(ProblemError, match=rf"math_test\.jsonl:2: no field '{name}'"):
        READER.pool(options(folder))


def test_broken_files_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = folder / "math_test.jsonl"
    test.write_text(json.dumps(TEST[0]) + '\n{"unique_id": "x"\n')
    with pytest.raises(ProblemError, match=r"math_test\.jsonl:2: not JSON"):
        READER.pool(options(folder))
    test.write_bytes(b'{"problem": "\xff"}\n')
    with pytest.raises(ProblemError, match=r"math_test\.jsonl:1: not UTF-8"):
        READER.pool(options(folder))
    test.write_text("[1]\n")
    with pytest.raises(ProblemError, match=r"math_test\.jsonl:1: a line must be a JSON object"):
        READER.pool(options(folder))
    write(test, [TEST[0], TEST[0]])
    with pytest.raises(ProblemError, match=r"test/algebra/1\.json is there more than once"):
        READER.pool(options(folder))
    train = folder / "math_train.jsonl.gz"
    train.write_bytes(train.read_bytes()[:-12])
    with pytest.raises(ProblemError, match=r"math_train\.jsonl\.gz: damaged"):
        READER.pool(options(folder))
    train.unlink()
    with pytest.raises(
        ProblemError, match=r"no math_train\.jsonl or math_train\.jsonl\.gz; set problems\.path"
    ):
        READER.pool(options(folder))
    monkeypatch.delenv("E2H_DATA_DIR", raising=False)
    with pytest.raises(ProblemError, match=r"set problems\.path"):
        READER.pool(options())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Folders that `datasets` reads like the Hub: per-subject configurations, and a benchmark."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    math, benchmark = tmp_path / "hendrycks_math", tmp_path / "MATH-500"
    lines = ["---", "configs:"]
    for subject in ("algebra", "geometry"):
        (math / subject).mkdir(parents=True)
        lines += [f"- config_name: {subject}", "  data_files:"]
        for split in ("train", "test"):
            rows = [
                {
                    "problem": f"{subject} {split} {i}",
                    "level": level,
                    "type": subject.title(),
                    "solution": "$\\boxed{3}$",
                }
                for i, level in enumerate(["Level 2", "Level 5", "Level ?"])
            ]
            write(math / subject / f"{split}.jsonl", rows)
            lines += [f"  - split: {split}", f"    path: {subject}/{split}.jsonl"]
    (math / "README.md").write_text("\n".join([*lines, "---", ""]))
    benchmark.mkdir()
    write(benchmark / "test.jsonl", [record("test/geometry/7.json", "geometry test 1", 5, "3")])
    return str(math), str(benchmark)


def test_hub_columns_are_mapped(hub: tuple[str, str]) -> None:
    source = read_hub(*hub)
    assert len(source.math) == 12
    first = source.math[0]
    assert (first.problem_id, first.level, first.subject) == ("train/algebra/row-0", 2, "Algebra")
    assert (first.question, first.answer) == ("algebra train 0", "3")
    assert Counter(p.level for p in source.math) == {None: 4, 2: 4, 5: 4}
    assert [(p.problem_id, p.level, p.answer) for p in source.benchmark] == [("test/geometry/7.json", 5, "3")]


def test_hub_benchmark_leaves_the_pool_by_text(hub: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("e2h_pipeline.problems.math.hub.HUB_BENCHMARK", hub[1])
    commits = "+".join(("a" * 40, "b" * 40))  # a folder has none; only names of the Hub are asked for theirs
    pool = READER.pool(options(hub=hub[0], hub_revision=commits))
    assert len(pool.train) == 11
    assert sum(p.level is not None for p in pool.train) == 7
    assert pool.findings["removed_for_benchmark"] == {"by_id": 0, "by_text": 1}


def test_hub_errors_say_what_to_do(hub: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"problems\.hub: .* no split 'train'"):
        read_hub(hub[1], hub[1])
    with pytest.raises(ProblemError, match=r"problems\.hub: cannot load"):
        read_hub(str(tmp_path / "none"), hub[1])


def test_a_pinned_hub_fingerprint_needs_no_network() -> None:
    one, other = "a" * 40, "b" * 40
    found = READER.fingerprint(options(hub="EleutherAI/hendrycks_math", hub_revision=f"{one}+{other}"))
    assert found == {"EleutherAI/hendrycks_math": one, "HuggingFaceH4/MATH-500": other}


def test_real_math() -> None:
    if not os.environ.get("E2H_DATA_DIR"):
        pytest.skip("E2H_DATA_DIR is not set: no MATH data here")
    real = MathProblems()
    found = describe_source(real, load_pool(real))
    assert found["math_problems"] == 12_500
    assert found["train_by_level"] == {"1": 958, "2": 2152, "3": 2618, "4": 2776, "5": 3494}
    assert found["benchmark_by_level"] == {"1": 43, "2": 90, "3": 105, "4": 128, "5": 134}
    assert found["unknown_level"] == ["train/geometry/377.json", "train/geometry/471.json"]
    assert found["fingerprint"]["math500.jsonl"].startswith("35dc4108")  # OpenAI's own file
    same = found["duplicates"]
    assert len(same["same"]) == 10
    kinds = Counter(
        (part, kind, other)
        for one in same["matched"]
        for part, kind, other in re.findall(r"^(\w+) .*: (\w+) as (\w+) ", one)
    )
    assert kinds == {
        ("hard", "reworded", "benchmark"): 4,
        ("easy", "reworded", "benchmark"): 19,
        ("easy", "reworded", "hard"): 28,
        ("easy", "same", "hard"): 5,
    }
    assert (
        "easy test/precalculus/24307.json (level 3): same as hard train/geometry/6032.json" in same["matched"]
    )
    assert same["template_of_benchmark"]["benchmark_problems"] == 8
    assert '"answer"' not in json.dumps(found)


def test_real_split() -> None:
    if not os.environ.get("E2H_DATA_DIR"):
        pytest.skip("E2H_DATA_DIR is not set: no MATH data here")
    split = load_split(MathProblems(validation=500))
    kept_out = Counter(one.part for one in split.kept_out)
    assert kept_out == {"easy": 52, "hard": 4}
    assert len(split.easy_train) + len(split.easy_validation) == 5_728 - kept_out["easy"]
    assert len(split.hard) == 6_270 - kept_out["hard"]
    assert counts_by_level(split.benchmark) == {"1": 43, "2": 90, "3": 105, "4": 128, "5": 134}
    assert all(problem.steps for problem in split.easy_train)
