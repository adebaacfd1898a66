r"""How fast answers are graded and grouped, next to the math-verify library and OpenAI's PRM800K
rules.

    E2H_DATA_DIR=... python benchmarks/grading.py [--quick] [--repeats 3] [--seed 0]

Two sets of pairs (gold, answer), the same for every grader, all from real text:

a) `real`: the MATH500 gold answers against every answer that `extract` finds in the real outputs on
   MATH500.
b) `samples`: 500 problems x 1,024 answers. There is no real set of this size. So each problem takes
   its texts from its own real answers, and its frequencies from an AMC23 problem of the 64-sample
   files, drawn by the seed: the AMC problem's counts by rank for the head, and a tail of new wrong
   answers, seen once each. The length of the tail follows from the growth of distinct answers
   between 16 and 64 samples (Heaps' law, exponent per problem). Tail texts are answers of other
   problems and own answers with other numbers in them.

math-verify is called as its users call it, `verify(parse(gold), parse(answer))` on `\boxed{}` texts
with its time limits on (5 s, by signal), each answer by itself; on a seeded subset of the pairs,
scaled to the whole. Its time leaves out the start of its processes. Its time over distinct pairs is
shown too, because its users may grade repeats once. The PRM800K rules run as our mode `prm800k`,
once, on all pairs. This mode gives the verdicts of the published code, but remembers repeats and
limits sympy.

Our own grader starts without a cache in every repeat (a new instance, workers not started) and
grades all pairs. Times are medians over repeats. A table for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.mathematics.extract import extract
from e2h_pipeline.grading.mathematics.grader import MathGrader
from e2h_pipeline.grading.verdicts import Gold
from e2h_pipeline.grading.worker_pool import WorkerPool
from e2h_pipeline.problems.jsonl import read_jsonl

WORKERS = 2
SAMPLES = 1024
TARGET_RATIO = 20.0  # times math-verify, on set b with two processes
TARGET_SECONDS = 60.0  # for set b
TARGET_GROUP_MS = 50.0  # median over problems, 1,024 answers each

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Timing:
    """One grader on one set.

    Attributes:
        pairs: pairs that were timed.
        of: pairs in the set.
        seconds: for the whole set; scaled if fewer pairs were timed.
    """

    grader: str
    data: str
    pairs: int
    of: int
    seconds: float
    equal: float
    undecided: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A gold answer and the real answers to it, most frequent first."""

    gold: str
    answers: tuple[str, ...]


def main() -> None:
    """Run everything and print."""
    options = _options()
    rng = random.Random(options.seed)
    folder = Path(options.data)
    problems, real = real_pairs(folder)
    shapes = amc_shapes(folder)
    chosen = problems[: options.problems]
    sampled = [sample_answers(problem, problems, shapes, rng) for problem in chosen]
    pairs = [(p.gold, answer) for p, answers in zip(chosen, sampled, strict=True) for answer in answers]
    timings: list[Timing] = []
    for name, data in (("real", real), ("samples", pairs)):
        timings.append(time_ours(name, data, options.repeats))
        timings += time_library(name, rng.sample(data, min(len(data), options.subset)), data, options.repeats)
        timings.append(time_published_rules(name, data))
    report(timings, time_groups(sampled, options.repeats), sampled, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput of answer grading.")
    parser.add_argument(
        "--data", default=os.environ.get("E2H_DATA_DIR"), help="folder of real data (E2H_DATA_DIR)"
    )
    parser.add_argument("--quick", action="store_true", help="50 problems, one repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subset", type=int, default=2000, help="pairs on which the others are timed")
    options = parser.parse_args()
    if not options.data:
        parser.error("no data: set E2H_DATA_DIR or give --data")
    options.problems = 50 if options.quick else 500
    if options.quick:
        options.repeats, options.subset = 1, min(options.subset, 600)
    return options


# ---- the pairs ------------------------------------------------------------------------------------------


def real_pairs(folder: Path) -> tuple[list[Problem], list[Pair]]:
    """MATH500 with its real answers, and set a."""
    golds = {row["unique_id"]: row["answer"] for _, row in read_jsonl(folder / "math/math500.jsonl")}
    found: dict[str, Counter[str]] = {name: Counter() for name in golds}
    pairs: list[Pair] = []
    for path in sorted((folder / "outputs").glob("math500_*.jsonl.gz")):
        for _, row in read_jsonl(path):
            for text in responses(row):
                answer = extract(text)
                if answer is not None and row.get("unique_id") in found:
                    found[row["unique_id"]][answer.answer] += 1
                    pairs.append((golds[row["unique_id"]], answer.answer))
    return [Problem(golds[name], by_frequency(counts)) for name, counts in found.items()], pairs


def by_frequency(counts: Counter[str]) -> tuple[str, ...]:
    """Most frequent first; ties in order of the text."""
    return tuple(sorted(counts, key=lambda text: (-counts[text], text)))


def responses(row: dict[str, Any]) -> Iterator[str]:
    """All texts of a row in which a model answers."""
    for sample in row.get("samples", ()):
        yield sample["completion"]
    given = row.get("responses", ())
    yield from given.values() if isinstance(given, dict) else given
    for text in row.get("answers", {}).values():
        yield re.sub(r"</?answer>?", "", text)
    yield from (row[key] for key in ("qwen3_base_pred", "gpt_pred") if key in row)


def amc_shapes(folder: Path) -> list[tuple[list[int], int]]:
    """For each AMC23 problem: counts of its answers by rank, and further answers expected in 1,024
    samples."""
    shapes = []
    for path in sorted((folder / "outputs").glob("amc23_*_n64.jsonl.gz")):
        for _, row in read_jsonl(path):
            answers = [found.answer for text in row["responses"] if (found := extract(text)) is not None]
            counts = sorted(Counter(answers).values(), reverse=True)
            exponent = math.log(len(counts) / distinct_in_16(counts)) / math.log(64 / 16)
            tail = round(len(counts) * ((SAMPLES / 64) ** exponent - 1))
            shapes.append((counts, min(tail, SAMPLES // 2)))
    return shapes


def distinct_in_16(counts: Sequence[int]) -> float:
    """Expected number of distinct answers in 16 of the samples."""
    total = sum(counts)
    drawn = min(16, total)
    return sum(1 - math.comb(total - count, drawn) / math.comb(total, drawn) for count in counts)


def sample_answers(
    problem: Problem, others: Sequence[Problem], shapes: Sequence[tuple[list[int], int]], rng: random.Random
) -> list[str]:
    """1,024 answers to a problem; see the module."""
    counts, tail = rng.choice(shapes)
    texts = list(problem.answers[: len(counts)])
    texts += [wrong_answer(problem, others, rng) for _ in range(len(counts) - len(texts))]
    answers = rng.choices(texts, weights=counts, k=SAMPLES - tail)
    answers += [wrong_answer(problem, others, rng) for _ in range(tail)]
    rng.shuffle(answers)
    return answers


def wrong_answer(problem: Problem, others: Sequence[Problem], rng: random.Random) -> str:
    """A rare answer: one of another problem, or one of this problem with other numbers in it."""
    if rng.random() < 0.5:
        return rng.choice(rng.choice(others).answers or ("0",))
    text = rng.choice((problem.gold, *problem.answers[:4]))
    return re.sub(r"\d+", lambda digits: str(rng.randrange(10 ** len(digits[0]) + 2)), text)


# ---- the graders ----------------------------------------------------------------------------------------


def time_ours(data: str, pairs: Sequence[Pair], repeats: int) -> Timing:
    """`math`: every repeat in its own process, so that no cache is warm."""
    seconds: list[float] = []
    for _ in range(repeats):
        with _processes(1) as pool:
            spent, words = pool.submit(our_verdicts, pairs).result()
        seconds.append(spent)
    return _timing(f"math, {WORKERS} workers", data, words, len(pairs), statistics.median(seconds))


def our_verdicts(pairs: Sequence[Pair], mode: str = "math") -> tuple[float, list[str]]:
    """Seconds and verdicts of one of our modes. Start and end of its workers count."""
    start = time.perf_counter()
    with grader(mode, workers=WORKERS) as judge:
        words = [
            grade.verdict.value
            for grade in judge.grade_pairs([(Gold(gold), answer) for gold, answer in pairs])
        ]
    return time.perf_counter() - start, words


def _processes(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_silence)


def _silence() -> None:
    logging.disable(logging.CRITICAL)


def time_library(data: str, some: Sequence[Pair], pairs: Sequence[Pair], repeats: int) -> list[Timing]:
    """math-verify per answer with one process and with two, and over distinct pairs with two."""
    different = list(dict.fromkeys(pairs))
    once = different[:: max(1, len(different) // len(some))]
    timings = []
    for name, processes, timed, whole in (
        ("math-verify, 1 process", 1, some, len(pairs)),
        (f"math-verify, {WORKERS} processes", WORKERS, some, len(pairs)),
        (f"math-verify, {WORKERS} processes, repeats once", WORKERS, once, len(different)),
    ):
        with _processes(processes) as pool:
            _spread(pool, [("1", "2")] * 200)  # imports, grammars
            runs = [_spread(pool, timed) for _ in range(repeats)]
        seconds = statistics.median(spent for spent, _ in runs) / len(timed) * whole
        timings.append(_timing(name, data, runs[-1][1], len(pairs), seconds))
    return timings


def _spread(pool: ProcessPoolExecutor, pairs: Sequence[Pair]) -> tuple[float, list[str]]:
    start = time.perf_counter()
    parts = list(pool.map(library_verdicts, [pairs[i : i + 20] for i in range(0, len(pairs), 20)]))
    return time.perf_counter() - start, [word for words in parts for word in words]


def library_verdicts(pairs: Sequence[Pair]) -> list[str]:
    """The library's own call, with its default time limits."""
    from math_verify import parse, verify

    return [
        "equal" if verify(parse(f"\\boxed{{{gold}}}"), parse(f"\\boxed{{{answer}}}")) else "different"
        for gold, answer in pairs
    ]


def time_published_rules(data: str, pairs: Sequence[Pair]) -> Timing:
    """OpenAI's rules: our mode `prm800k`, once, on all pairs."""
    with _processes(1) as pool:
        seconds, words = pool.submit(our_verdicts, pairs, "prm800k").result()
    return _timing(f"prm800k, {WORKERS} workers", data, words, len(pairs), seconds)


def time_groups(sampled: Sequence[Sequence[str]], repeats: int) -> list[float]:
    """Milliseconds to group each problem's answers: medians over repeats, each with a new grader
    and warm workers."""
    times: list[list[float]] = []
    for _ in range(repeats):
        with _processes(1) as pool:
            times.append(pool.submit(group_milliseconds, sampled).result())
    return [statistics.median(column) for column in zip(*times, strict=True)]


def group_milliseconds(sampled: Sequence[Sequence[str]]) -> list[float]:
    """Milliseconds to group the answers of each problem."""
    spent = []
    with WorkerPool(WORKERS) as pool:
        pool.compare([("1", "2")] * 2, "e2h_pipeline.grading.tasks.math_verify")
        for answers in sampled:
            judge = MathGrader(pool)
            start = time.perf_counter()
            judge.classes([answers])
            spent.append(1000 * (time.perf_counter() - start))
    return spent


def _timing(name: str, data: str, words: Sequence[str], whole: int, seconds: float) -> Timing:
    return Timing(
        name, data, len(words), whole, seconds, words.count("equal") / len(words), words.count("undecided")
    )


# ---- the report -----------------------------------------------------------------------------------------


def report(
    timings: Sequence[Timing],
    groups: Sequence[float],
    sampled: Sequence[Sequence[str]],
    options: argparse.Namespace,
) -> None:
    """The table, the targets, the JSON line."""
    print_table(timings)
    group = {
        "median_ms": statistics.median(groups),
        "p90_ms": statistics.quantiles(groups, n=10)[-1],
        "max_ms": max(groups),
    }
    counts = [len(set(answers)) for answers in sampled]
    distinct = {"mean": statistics.mean(counts), "median": statistics.median(counts), "max": max(counts)}
    print(
        f"grouping {SAMPLES} answers: median {group['median_ms']:.1f} ms, 90% under {group['p90_ms']:.1f}, "
        f"longest {group['max_ms']:.1f}; different answers of a problem: median {distinct['median']:.0f}, "
        f"mean {distinct['mean']:.0f}, most {distinct['max']}"
    )
    line = {
        "benchmark": "grading",
        "seed": options.seed,
        "repeats": options.repeats,
        "quick": options.quick,
        "cpus": len(os.sched_getaffinity(0)),
        "timings": [asdict(t) for t in timings],
        "grouping": group,
        "distinct_answers": distinct,
        "targets": print_targets(timings, group["median_ms"]),
    }
    print(json.dumps(line))


def print_table(timings: Sequence[Timing]) -> None:
    """A row per grader and set, with how many times faster ours is."""
    ours = {t.data: t.seconds for t in timings if t.grader.startswith("math,")}
    print(
        f"{'set':8}{'grader':40}{'timed':>8}{'of':>8}{'seconds':>10}{'answers/s':>11}{'ours is':>9}{'equal':>7}"
    )
    for t in timings:
        print(
            f"{t.data:8}{t.grader:40}{t.pairs:8}{t.of:8}{t.seconds:10.2f}{t.of / t.seconds:11,.0f}"
            f"{t.seconds / ours[t.data]:8.1f}x{t.equal:7.1%}"
            + (f"  {t.undecided} undecided" if t.undecided else "")
        )


def print_targets(timings: Sequence[Timing], group_ms: float) -> dict[str, dict[str, float]]:
    """Each target with its value."""
    found = {t.grader: t for t in timings if t.data == "samples"}
    ours, library = found[f"math, {WORKERS} workers"], found[f"math-verify, {WORKERS} processes"]
    values = (
        ("times_math_verify", library.seconds / ours.seconds, TARGET_RATIO, "at least"),
        ("seconds_512000", ours.seconds / ours.of * 512_000, TARGET_SECONDS, "at most"),
        ("group_median_ms", group_ms, TARGET_GROUP_MS, "at most"),
    )
    for name, value, target, bound in values:
        met = value >= target if bound == "at least" else value <= target
        print(f"{name}: {value:.1f}, target {bound} {target:g}: {'met' if met else 'MISSED'}")
    return {name: {"value": value, "target": target} for name, value, target, _ in values}


if __name__ == "__main__":
    main()
