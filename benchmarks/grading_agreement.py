r"""How well graders agree with what is right, by kind, and where they differ on real outputs.

    E2H_DATA_DIR=... python benchmarks/grading_agreement.py [--pairs 100] [--seed 0] [--examples 2]

Three sets:

a) `cases`: pairs labelled by hand (grading_cases.jsonl of the data folder), as bare answers and as
   responses.
b) `made`: pairs of every kind from `e2h_pipeline.grading.kinds`, whose verdicts are known from how they
   are made.
c) `outputs`: the answers in real outputs on MATH500, distinct pairs. Nothing is labelled there: our
   grader is compared with math-verify and with OpenAI's PRM800K rules, and every class of
   disagreement is listed with its number and an example. A class is a sign of the answers, such as "a
   number rounded", and says which grader calls them equal.

All graders get the answers that our extraction finds. A table for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from grading import real_pairs

from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.kinds.answers import ANSWERS
from e2h_pipeline.grading.kinds.cases import Case
from e2h_pipeline.grading.kinds.responses import RESPONSES
from e2h_pipeline.grading.mathematics.extract import extract
from e2h_pipeline.grading.mathematics.grader import read
from e2h_pipeline.grading.verdicts import Gold, Grade, Verdict
from e2h_pipeline.problems.jsonl import read_jsonl

OURS = "math"
PEERS = ("math-verify", "prm800k")


class Tally(NamedTuple):
    """Agreement of one grader on one group of cases."""

    group: str
    grader: str
    equal: int
    unequal: int
    false_accepts: int
    false_rejects: int
    undecided: int

    @property
    def agreement(self) -> float:
        """Share of the cases with the right verdict."""
        return 1 - (self.false_accepts + self.false_rejects) / (self.equal + self.unequal)


def main() -> None:
    """Grade all three sets and print."""
    options = _options()
    groups = {**labelled(Path(options.data)), **made(options.pairs, options.seed)}
    tallies = [tally for mode in (OURS, *options.peers) for tally in tallied(mode, groups)]
    print_tallies(tallies, (OURS, *options.peers))
    pairs = sorted(set(real_pairs(Path(options.data))[1]))
    ours = graded(OURS, pairs)
    found = {mode: disagreements(pairs, ours, graded(mode, pairs)) for mode in options.peers}
    for mode, classes in found.items():
        print_disagreements(mode, classes, len(pairs), options.examples)
    line = {
        "benchmark": "grading_agreement",
        "seed": options.seed,
        "pairs_of_a_kind": 2 * options.pairs,
        "tallies": [{**tally._asdict(), "agreement": tally.agreement} for tally in tallies],
        "outputs": len(pairs),
        "tiers": Counter(f"{grade.verdict.value} {grade.tier}" for grade in ours),
        "disagreements": {
            mode: {name: len(of) for name, of in classes.items()} for mode, classes in found.items()
        },
    }
    print(json.dumps(line))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Agreement of graders, by kind.")
    parser.add_argument(
        "--data", default=os.environ.get("E2H_DATA_DIR"), help="folder of real data (E2H_DATA_DIR)"
    )
    parser.add_argument("--pairs", type=int, default=100, help="equal pairs of a kind, and unequal ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=2, help="shown of each class of disagreements")
    parser.add_argument("--peers", nargs="*", default=PEERS)
    options = parser.parse_args()
    if not options.data:
        parser.error("no data: set E2H_DATA_DIR or give --data")
    return options


# ---- cases with a known verdict -------------------------------------------------------------------------


def labelled(folder: Path) -> dict[str, list[Case]]:
    """Cases labelled by hand: bare answers and responses, answers extracted."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for _, row in read_jsonl(folder / "grading_cases.jsonl"):
        text = row["prediction"] if row["kind"] == "answer" else answer_of(row["prediction"])
        groups[f"cases: {row['kind']}s"].append(Case(row["kind"], row["gold"], text, row["equivalent"]))
    return groups


def made(pairs: int, seed: int) -> dict[str, list[Case]]:
    """Cases of every kind; answers of responses extracted."""
    groups: dict[str, list[Case]] = {}
    for kind in ANSWERS.draws:
        groups[f"answer: {kind}"] = ANSWERS.cases_of(kind, pairs, seed)
    for kind in RESPONSES.draws:
        cases = RESPONSES.cases_of(kind, pairs, seed)
        groups[f"response: {kind}"] = [case._replace(text=answer_of(case.text)) for case in cases]
    return groups


def answer_of(response: str) -> str:
    """The answer in a response, empty where there is none."""
    found = extract(response)
    return "" if found is None else found.answer


def tallied(mode: str, groups: dict[str, list[Case]]) -> list[Tally]:
    """Agreement of a grader on each group, and on the made answers and responses together."""
    with grader(mode) as judge:
        grades = {
            name: judge.grade_pairs([(Gold(case.gold, case.question), case.text) for case in cases])
            for name, cases in groups.items()
        }
    tallies = [tally(name, mode, groups[name], grades[name]) for name in groups]
    for begin, name in (("answer: ", "all made answers"), ("response: ", "all made responses")):
        some = [group for group in groups if group.startswith(begin)]
        cases = [case for group in some for case in groups[group]]
        tallies.append(tally(name, mode, cases, [grade for group in some for grade in grades[group]]))
    return tallies


def tally(group: str, mode: str, cases: Sequence[Case], grades: Sequence[Grade]) -> Tally:
    """Counts of right and wrong verdicts."""
    said = [(case.equal, grade.verdict is Verdict.EQUAL) for case, grade in zip(cases, grades, strict=True)]
    right = sum(case.equal for case in cases)
    undecided = sum(grade.verdict is Verdict.UNDECIDED for grade in grades)
    return Tally(
        group,
        mode,
        right,
        len(cases) - right,
        said.count((False, True)),
        said.count((True, False)),
        undecided,
    )


def print_tallies(tallies: Iterable[Tally], modes: Sequence[str]) -> None:
    """A row per group; agreement, false accepts and false rejects of each grader."""
    rows: dict[str, dict[str, Tally]] = defaultdict(dict)
    for one in tallies:
        rows[one.group][one.grader] = one
    print(f"{'group':36}{'equal':>6}{'other':>6}" + "".join(f"{mode:>24}" for mode in modes))
    print(f"{'':48}" + "".join(f"{'agree  f.acc  f.rej':>24}" for _ in modes))
    for name, by_grader in rows.items():
        first = by_grader[modes[0]]
        print(
            f"{name:36}{first.equal:6}{first.unequal:6}"
            + "".join(
                f"{one.agreement:11.1%}{one.false_accepts:6}{one.false_rejects:7}"
                for one in (by_grader[mode] for mode in modes)
            )
        )


# ---- real outputs ---------------------------------------------------------------------------------------


def graded(mode: str, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
    """A grade per pair."""
    with grader(mode) as judge:
        return judge.grade_pairs([(Gold(gold), answer) for gold, answer in pairs])


Classes = dict[str, list[tuple[str, str]]]


def disagreements(
    pairs: Sequence[tuple[str, str]], ours: Sequence[Grade], theirs: Sequence[Grade]
) -> Classes:
    """Pairs on which the graders differ, by class; the largest class first."""
    found: Classes = defaultdict(list)
    for (gold, answer), one, other in zip(pairs, ours, theirs, strict=True):
        if one.verdict is not other.verdict:
            found[f"ours {one.verdict.value}, {other.verdict.value} there: {sign(gold, answer, one)}"].append(
                (gold, answer)
            )
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


_UNIT = re.compile(r"\\(?:text|mbox|mathrm)\s*\{|\\circ|°|\\?%|\\?\$|[a-z]{2,}")
_SIGNS: tuple[tuple[str, Callable[[str, str], bool]], ...] = (
    ("a text we cannot read", lambda gold, answer: read(answer) is None or read(gold) is None),
    ("a base is left out or differs", lambda gold, answer: bool(re.search(r"\d_", gold))),
    (
        "an equation or inequality",
        lambda gold, answer: any(re.search(r"=|<|>|\\[lg]e|≤|≥", t) for t in (gold, answer)),
    ),
    (
        "an interval, tuple or set",
        lambda gold, answer: gold.strip()[:1] in "([" or "\\left" in gold or "\\{" in gold,
    ),
    ("a matrix", lambda gold, answer: "matrix" in gold + answer),
    (
        "a list",
        lambda gold, answer: any(
            re.search(r",(?!\\!|\d{3})|\\text\{ (?:or|and)|\band\b|\bor\b", t) for t in (gold, answer)
        ),
    ),
    ("a rounded number", lambda gold, answer: "approx" in answer or bool(re.search(r"\.\d{2}", answer))),
    (
        "words or a unit",
        lambda gold, answer: any(
            _UNIT.search(re.sub(r"\\[a-z]*frac|\\sqrt|\\pi|\\left|\\right", "", t)) for t in (gold, answer)
        ),
    ),
    ("letters", lambda gold, answer: bool(re.search(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", gold))),
    ("thousands", lambda gold, answer: bool(re.search(r"\d[,{}\\! ]+\d{3}", gold + answer))),
    ("numbers", lambda gold, answer: True),
)


def sign(gold: str, answer: str, ours: Grade) -> str:
    """What is striking about a pair: the first sign that fits."""
    if ours.verdict is Verdict.UNDECIDED:
        return f"undecided by {ours.tier}"
    return next(name for name, fits in _SIGNS if fits(gold, answer))


def print_disagreements(mode: str, classes: Classes, pairs: int, examples: int) -> None:
    """A line per class, and examples."""
    total = sum(map(len, classes.values()))
    print(f"\nours and {mode} differ on {total} of {pairs:,} distinct pairs of the MATH500 outputs:")
    for name, some in classes.items():
        print(f"{len(some):6}  {name}")
        for gold, answer in some[:examples]:
            print(f"          {gold[:60]!r} | {answer[:80]!r}")


if __name__ == "__main__":
    main()
