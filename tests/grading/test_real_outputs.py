"""Published accuracies, recomputed from the models' outputs.

Extraction, grading, vote groups and pass@N are ours. The published figures stand
beside the outputs (`amc_aime_math500_published_metrics.csv`) or in the papers of Abel and ToRA.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graded_texts import verdicts_of

from e2h_pipeline.grading.graders import Grader, Verdict, grader
from e2h_pipeline.grading.mathematics.extract import final_answer
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.reranking.vote import pass_at_n, subset_shares, vote_accuracy

MODE = "math"

SETS = {
    "amc23_qwen25math1.5b_instruct_t0.6_n64": ("AMC23", "0.6"),
    "amc23_qwen25math1.5b_instruct_t1.0_n64": ("AMC23", "1.0"),
    "aime25_qwen25math1.5b_instruct_t0.6_n64": ("AIME25", "0.6"),
    "aime25_qwen25math1.5b_instruct_t1.0_n64": ("AIME25", "1.0"),
}
SAMPLES = 64
MAJORITY = "maj@1"  # the file's name for the one vote of all 64 samples


@pytest.fixture(scope="module")
def judge() -> Iterator[Grader]:
    with grader(MODE, workers=2) as opened:
        yield opened


def rows_of(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        pytest.skip(f"{path.name} is not in the data folder")
    return [row for _, row in read_jsonl(path)]


def gsm8k_golds(data_dir: Path) -> list[str]:
    return [row["answer"].rsplit("####", 1)[1].strip() for row in rows_of(data_dir / "gsm8k/test.jsonl.gz")]


def correct(judge: Grader, golds: Sequence[str], answers: Sequence[str | None]) -> list[bool]:
    """Whether each answer is right; a missing answer is wrong."""
    pairs = [(gold, answer) for gold, answer in zip(golds, answers, strict=True) if answer is not None]
    found = iter(verdicts_of(judge, pairs))
    return [answer is not None and next(found) is Verdict.EQUAL for answer in answers]


@pytest.mark.parametrize(("model", "published"), [("abel-7b", 59.74), ("abel-70b", 83.62)])
def test_abel_on_gsm8k(data_dir: Path, judge: Grader, model: str, published: float) -> None:
    rows = rows_of(data_dir / f"outputs/gsm8k_{model}_greedy.jsonl.gz")
    right = correct(judge, gsm8k_golds(data_dir), [final_answer(row["response"]) for row in rows])
    assert round(100 * sum(right) / len(rows), 2) == published
    assert [row["id"] for row, ok in zip(rows, right, strict=True) if ok != row["correct"]] == []


def tora_answer(response: str) -> str | None:
    """The boxed answer, or else the last program's output: ToRA's rule for its own outputs."""
    printed = re.findall(r"```output\n(.*?)\n?```", response, flags=re.DOTALL)
    return final_answer(response) or (printed[-1].strip() or None if printed else None)


def test_tora_on_gsm8k(data_dir: Path, judge: Grader) -> None:
    rows = rows_of(data_dir / "outputs/gsm8k_tora-70b_greedy.jsonl.gz")
    golds = gsm8k_golds(data_dir)
    right = correct(judge, golds, [tora_answer(row["response"][0]) for row in rows])
    assert round(100 * sum(right) / len(rows), 1) == 84.3
    theirs = correct(judge, golds, [row["preds"][0] for row in rows])  # as ToRA extracted and cleaned them
    assert [row["idx"] for row, a, b in zip(rows, right, theirs, strict=True) if a != b] == []


@pytest.mark.parametrize("name", SETS)
def test_amc_and_aime(data_dir: Path, judge: Grader, name: str) -> None:
    published = published_metrics(data_dir, *SETS[name])
    rows = rows_of(data_dir / f"outputs/{name}.jsonl.gz")
    assert our_metrics(judge, rows, [1, 2, 4, 8, 16, 32, 64]) == pytest.approx(published, abs=1e-9)


def published_metrics(data_dir: Path, dataset: str, temperature: str) -> dict[str, float]:
    with (data_dir / "outputs/amc_aime_math500_published_metrics.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if (row["model"], row["dataset"], row["temperature"]) == ("Instruct", dataset, temperature):
                return {key: float(row[key]) for key in row if "@" in key and row[key]}
    raise AssertionError(f"no published figures of {dataset} at {temperature}")


def our_metrics(judge: Grader, rows: Sequence[dict[str, Any]], sizes: Sequence[int]) -> dict[str, float]:
    """Mean pass@N of each size, and the mean of the majority vote over all samples, tied groups
    sharing."""
    answers = [[final_answer(response) for response in row["responses"]] for row in rows]
    shares = subset_shares(SAMPLES, sizes)
    every = np.arange(SAMPLES)[None]
    passed, voted = [], []
    for row, given, groups in zip(rows, answers, judge.classes(answers), strict=True):
        right = np.array(correct(judge, [row["gold"]] * SAMPLES, given))
        numbers = np.array([-1 if group is None else group for group in groups])
        passed.append(pass_at_n(right, shares))
        voted.append(vote_accuracy(every, numbers, right, np.zeros((1, SAMPLES)))[0])
    means = np.mean(passed, axis=0)
    return {f"pass@{n}": mean for n, mean in zip(sizes, means, strict=True)} | {MAJORITY: np.mean(voted)}
