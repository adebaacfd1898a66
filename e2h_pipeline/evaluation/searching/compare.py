"""Search methods against each other and against votes over independent samples, at equal compute.

The unit of comparison is an answer: a search, the rule that chooses among its samples, and n. At
equal compute with it are as many independent samples as cost no more, on the problems of each level:
so easy problems, which are short, do not pay for hard ones.

The compute-optimal answer for a budget is chosen on easy validation problems, whose answers are
supervision, level by level; levels that are not supervised take the choice of the hardest that is.
Its accuracy is reported on the benchmark. No answer to a hard problem chooses anything.

Over-optimization: as the best of more and more samples is taken, the evaluator's score rises by
itself. Where accuracy falls meanwhile, the search exploits the evaluator.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.scoreboard import (
    Difference,
    Method,
    Scoreboard,
    differences_rows,
    metrics_rows,
)
from e2h_pipeline.evaluation.searching.pools import (
    BEST,
    GREEDY,
    INDEPENDENT,
    MAJORITY,
    RULES,
    WEIGHTED,
    Pool,
)
from e2h_pipeline.statistics.bootstrap import Bootstrap, mean_intervals
from e2h_pipeline.statistics.levels import known_levels, level_groups

MEASURES = ("tokens", "flops")
OPTIMAL = "compute-optimal"


@dataclass(frozen=True)
class Answer:
    """A way to an answer: a search, the rule that chooses among its samples, and their number."""

    pool: str
    rule: str
    n: int

    @property
    def name(self) -> str:
        """For tables, as `dvts 4 weighted-vote`."""
        return self.pool if self.pool == GREEDY else f"{self.pool} {self.rule}"


@dataclass(frozen=True)
class Setting:
    """What the tables are made with.

    Attributes:
        benchmark, grader, policy, evaluator: names in the tables.
        easy_levels: levels reported as easy.
        bootstrap: behind the intervals.
        flops: of a token drawn, and of one read.
    """

    benchmark: str
    grader: str
    policy: str
    evaluator: str
    easy_levels: Collection[int]
    bootstrap: Bootstrap
    flops: tuple[int, int]

    def amount(
        self, drawn: NDArray[np.float64], read: NDArray[np.float64], measure: str
    ) -> NDArray[np.float64]:
        """Compute in one of `MEASURES`; a token drawn and one read count alike."""
        per_drawn, per_read = self.flops if measure == "flops" else (1, 1)
        return drawn * per_drawn + read * per_read


class Comparison:
    """Pools over the same problems."""

    def __init__(self, pools: Mapping[str, Pool], setting: Setting) -> None:
        self.pools, self.setting = pools, setting
        first = next(iter(pools.values()))
        self.levels, self.problem_ids = first.levels, first.problem_ids
        self._values: dict[Answer, NDArray[np.float64]] = {}

    def answers(self) -> list[Answer]:
        """Every way to an answer."""
        return [
            Answer(name, rule, n)
            for name, pool in self.pools.items()
            for rule in ((MAJORITY,) if name == GREEDY else RULES)
            for n in pool.counts()
        ]

    def value(self, answer: Answer) -> NDArray[np.float64]:
        """(P,) expected accuracy."""
        if answer not in self._values:
            self._values[answer] = self.pools[answer.pool].accuracy(answer.rule, answer.n)
        return self._values[answer]

    def amount(self, answer: Answer, measure: str) -> NDArray[np.float64]:
        """(P,) its compute."""
        return self.setting.amount(*self.pools[answer.pool].cost(answer.rule, answer.n), measure)

    def metrics(self) -> list[dict[str, Any]]:
        """Accuracy with intervals and cost: of every answer, by level group."""
        methods = {self._method(answer): answer for answer in self.answers()}
        board = self._board({method: self.value(answer) for method, answer in methods.items()})
        groups = level_groups(self.levels, self.setting.easy_levels)
        rows = metrics_rows(board, self.setting.easy_levels, self.setting.bootstrap)
        return [
            {**row, **self._costs(methods[_method_of(row)], groups[row["levels"]])}
            for row in rows
            if row.pop("by_seed") is not None
        ]

    def _costs(self, answer: Answer, group: NDArray[np.bool_]) -> dict[str, float]:
        drawn, read = (float(t[group].mean()) for t in self.pools[answer.pool].cost(answer.rule, answer.n))
        flops = float(self.amount(answer, "flops")[group].mean())
        return {"tokens": drawn + read, "drawn_tokens": drawn, "read_tokens": read, "flops": flops}

    def _method(self, answer: Answer) -> Method:
        pool, setting = self.pools[answer.pool], self.setting
        chosen = answer.pool not in (GREEDY, INDEPENDENT) or answer.rule != MAJORITY
        return Method(
            setting.policy,
            answer.name,
            answer.n,
            setting.evaluator if chosen and answer.pool != GREEDY else "",
            pool.aggregations.get(answer.rule, ""),
        )

    def _board(self, values: Mapping[Method, NDArray[np.float64]]) -> Scoreboard:
        return Scoreboard(self.setting.benchmark, self.setting.grader, self.problem_ids, self.levels, values)

    def differences(self) -> list[dict[str, Any]]:
        """Every search minus votes over independent samples at equal compute, and minus greedy."""
        found: list[dict[str, Any]] = []
        for measure in MEASURES:
            values: dict[Method, NDArray[np.float64]] = {}
            pairs, notes = [], []
            for answer in self.answers():
                if answer.pool in (GREEDY, INDEPENDENT):
                    continue
                first = self._method(answer)
                values[first] = self.value(answer)
                for rule in (WEIGHTED, MAJORITY):
                    matched, counts = self.matched(answer, rule, measure)
                    name = f"{INDEPENDENT} {rule}"
                    second = Method(self.setting.policy, f"{name} for {answer.name}", answer.n)
                    values[second] = matched
                    pairs.append(Difference(first, second, answer.name, name))
                    notes.append({"at_equal": measure, "second_n": float(counts.mean())})
                if measure == MEASURES[0] and GREEDY in self.pools:
                    greedy = Answer(GREEDY, MAJORITY, 1)
                    values[self._method(greedy)] = self.value(greedy)
                    pairs.append(Difference(first, self._method(greedy), answer.name, GREEDY))
                    notes.append({"at_equal": "", "second_n": 1.0})
            found += self._difference_rows(values, pairs, notes)
        return found

    def _difference_rows(
        self,
        values: Mapping[Method, NDArray[np.float64]],
        pairs: Sequence[Difference],
        notes: Sequence[Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        if not pairs:
            return []
        setting = self.setting
        rows = differences_rows(self._board(values), pairs, setting.easy_levels, setting.bootstrap)
        groups = len(rows) // len(pairs)
        return [
            {**{k: v for k, v in row.items() if k not in ("by_seed", "p_value")}, **notes[i // groups]}
            for i, row in enumerate(rows)
        ]

    def matched(
        self, answer: Answer, rule: str, measure: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """A vote over independent samples that costs as much as an answer.

        Returns:
            (P,) its expected accuracy, and (P,) how many samples it takes: the same on all problems of
            a level, as many as cost no more on average, one at least and all at most.
        """
        pool, amount = self.pools[INDEPENDENT], self.amount(answer, measure)
        one = self.setting.amount(*pool.cost(rule, 1), measure)
        values, counts = np.zeros(len(self.levels)), np.zeros(len(self.levels), np.int64)
        for level in np.unique(self.levels):
            group = self.levels == level
            n = int(np.clip(amount[group].mean() / one[group].mean() + 1e-9, 1, pool.samples))
            values[group] = self.value(Answer(INDEPENDENT, rule, n))[group]
            counts[group] = n
        return values, counts

    def exploited(self) -> list[dict[str, Any]]:
        """The best of n samples by n and level group: the evaluator's score and accuracy; `falls`
        where accuracy is surely below that at some smaller n, though the score is higher."""
        rows = []
        for name, pool in self.pools.items():
            if name == GREEDY:
                continue
            counts = pool.counts()
            values = np.stack([self.value(Answer(name, BEST, n)) for n in counts], 1)
            scores = np.stack([pool.best_score(n) for n in counts], 1)
            for group, mask in level_groups(self.levels, self.setting.easy_levels).items():
                means = mean_intervals(values[mask], self.setting.bootstrap)
                for j, n in enumerate(counts):
                    rows.append(
                        {
                            "method": name,
                            "n": n,
                            "levels": group,
                            "score": float(scores[mask, j].mean()),
                            "accuracy": float(means.mean[j]),
                            "ci_low": float(means.low[j]),
                            "ci_high": float(means.high[j]),
                            "falls": self._falls(values[mask], scores[mask], j),
                        }
                    )
        return rows

    def _falls(self, values: NDArray[np.float64], scores: NDArray[np.float64], j: int) -> bool:
        if j == 0:
            return False
        change = mean_intervals(values[:, [j]] - values[:, :j], self.setting.bootstrap)
        risen = scores[:, j].mean() > scores[:, :j].mean(0)
        return bool((risen & (change.high < 0)).any())


def optimal(validation: Comparison, benchmark: Comparison) -> list[dict[str, Any]]:
    """Compute-optimal answers: for each budget of tokens what is chosen by level, and its accuracy
    on the benchmark with the difference to a weighted vote over independent samples that costs as
    much."""
    rows: list[dict[str, Any]] = []
    setting = benchmark.setting
    shared = [a for a in validation.answers() if a in set(benchmark.answers())]
    for budget in _budgets(validation):
        choice = dict(_choice(validation, shared, budget))
        if not choice:
            continue
        values, votes, tokens = (np.zeros(len(benchmark.levels)) for _ in range(3))
        hardest = max(choice)
        for level in np.unique(benchmark.levels).tolist():
            answer = choice.get(level, choice[hardest])
            group = benchmark.levels == level
            values[group] = benchmark.value(answer)[group]
            votes[group] = benchmark.matched(answer, WEIGHTED, "tokens")[0][group]
            tokens[group] = benchmark.amount(answer, "tokens")[group]
        for name, mask in level_groups(benchmark.levels, setting.easy_levels).items():
            found = mean_intervals(np.stack([values, values - votes], 1)[mask], setting.bootstrap)
            chosen = [choice.get(level, choice[hardest]) for level in known_levels(benchmark.levels[mask])]
            rows.append(
                {
                    "budget": float(budget),
                    "levels": name,
                    "chosen": ", ".join(dict.fromkeys(f"{a.name} n={a.n}" for a in chosen)),
                    "tokens": float(tokens[mask].mean()),
                    "accuracy": float(found.mean[0]),
                    "ci_low": float(found.low[0]),
                    "ci_high": float(found.high[0]),
                    "difference": float(found.mean[1]),
                    "difference_low": float(found.low[1]),
                    "difference_high": float(found.high[1]),
                    "problems": int(mask.sum()),
                }
            )
    return rows


def _budgets(validation: Comparison) -> Iterator[float]:
    """Tokens of weighted votes over 1, 2, 4 ... independent samples."""
    for n in validation.pools[INDEPENDENT].counts():
        yield float(validation.amount(Answer(INDEPENDENT, WEIGHTED, n), "tokens").mean())


def _choice(validation: Comparison, answers: Sequence[Answer], budget: float) -> Iterator[tuple[int, Answer]]:
    """By level of validation problems the most accurate answer within the budget; of equals the
    cheapest, then the first."""
    for level in known_levels(validation.levels):
        group = validation.levels == level
        found = [
            (-float(validation.value(answer)[group].mean()), cost, place, answer)
            for place, answer in enumerate(answers)
            if (cost := float(validation.amount(answer, "tokens")[group].mean())) <= budget + 1e-9
        ]
        if found:
            yield level, min(found)[-1]


def _method_of(row: Mapping[str, Any]) -> Method:
    return Method(row["policy"], row["method"], row["n"], row["evaluator"], row["aggregation"])
