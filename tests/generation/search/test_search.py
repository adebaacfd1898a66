"""Search methods: their inputs, and the checks of their results."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from e2h_pipeline.artifacts.hashing import parquet_hash
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.engines.protocol import Candidate, Sample, SampleRequest, SamplingOptions
from e2h_pipeline.generation.noise import branch_key, stream_key
from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.generation.search.protocol import Cost, Found, Tools
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import BeamSearch, Sampling, Search
from e2h_pipeline.registry import SEARCH_METHODS
from e2h_pipeline.rewards.growing import GrowingScorer

QUESTIONS = pa.table({"problem_id": ["a", "b", "c"], "level": [1, 2, 3], "question": ["3+5", "6*6", "1-2"]})
OPTIONS = Sampling(samples=4, temperature=1.0, top_k=0, max_new_tokens=8, shard_questions=2, shard_samples=2)


class Wide(Search):
    """Options of `BestBeginning`."""

    width: int = 3


class BestBeginning:
    """Draws some beginnings of a sample, and continues the best by the scorer."""

    needs_scorer = True
    Options = Wide

    def search(
        self, tools: Tools, requests: Sequence[SampleRequest], sampling: SamplingOptions, options: Wide
    ) -> Found:
        found = [self._search(tools, request, sampling, options) for request in requests]
        return Found([samples for samples, _ in found], [costs for _, costs in found])

    def _search(
        self, tools: Tools, request: SampleRequest, sampling: SamplingOptions, options: Wide
    ) -> tuple[list[Sample], list[Cost]]:
        samples, costs = [], []
        half = replace(sampling, max_new_tokens=sampling.max_new_tokens // 2)
        for index in range(request.first, request.first + request.count):
            key = branch_key(request.key, index)
            (begun,) = tools.engine.sample([replace(request, key=key, first=0, count=options.width)], half)
            assert tools.scorer is not None
            scores = tools.scorer.step_probabilities(
                [(request.question, s.completion, s.finish_reason == "stop") for s in begun]
            )
            best = begun[int(np.argmax([own.min(initial=1.0) for own in scores]))]
            drawn = sum(len(s.token_ids) for s in begun)
            sample = replace(best, index=index)
            if best.finish_reason == "length":
                onward = replace(request, key=branch_key(key, "on"), first=0, count=1, prefix=best.completion)
                ((rest,),) = tools.engine.sample([onward], half)
                drawn += len(rest.token_ids)
                sample = replace(
                    rest,
                    index=index,
                    completion=best.completion + rest.completion,
                    token_ids=(*best.token_ids, *rest.token_ids),
                    logprob=best.logprob + rest.logprob,
                )
            samples.append(sample)
            costs.append(Cost(drawn, len(begun)))
        return samples, costs


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


@dataclass(frozen=True)
class LikesDigits:
    """A scorer of two segments: more digits give the second a higher score."""

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> list[NDArray[np.float64]]:
        return [np.array([0.9, _digits(text) / 100]) for _, text, _ in solutions]

    def close(self) -> None:
        """Nothing was loaded."""


def _searched(policy: Path, **changed: object) -> Drawing:
    drawing = Drawing(policy, LADDER, OPTIONS, "pool", BestBeginning(), Wide(), LikesDigits())
    return replace(drawing, **changed)


def test_independent_samples_are_the_engines_and_the_watch_sees_them(ladder_policy: Path) -> None:
    class Impatient:
        every = 4

        def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
            return [candidate.index == 1 for candidate in candidates]

    engine, sampling = load_engine("transformers", ladder_policy), SamplingOptions(1.0, 12)
    requests = [SampleRequest("3+5", LADDER.text, stream_key(0, "test", "p"), 3)]
    found = Independent().search(Tools(engine), requests, sampling)
    assert found == Found(engine.sample(requests, sampling))
    watched = Independent().search(Tools(engine, watch=Impatient()), requests, sampling)
    assert [s.finish_reason == "abandoned" for s in watched.samples[0]] == [False, True, False]


def test_a_method_of_others_draws_a_pool_with_scorer_and_costs(ladder_policy: Path, tmp_path: Path) -> None:
    summary = sample_pool(_searched(ladder_policy), QUESTIONS, Work(tmp_path / "out", tmp_path / "work", 0))
    rows = read_table(tmp_path / "out").to_pylist()
    assert len(rows) == 12
    assert all(row["drawn_tokens"] > row["tokens"] and row["scored_solutions"] == 3 for row in rows)
    assert summary["drawn_tokens"] == sum(row["drawn_tokens"] for row in rows)
    assert summary["scored_solutions"] == 36
    again = sample_pool(_searched(ladder_policy), QUESTIONS, Work(tmp_path / "again", tmp_path / "work", 0))
    assert (again["reused"], again["drawn_tokens"]) == (12, summary["drawn_tokens"])
    plain = replace(_searched(ladder_policy), method=Independent())
    summary = sample_pool(plain, QUESTIONS, Work(tmp_path / "plain", tmp_path / "plain-work", 0))
    searched, drawn = (
        sum(map(_digits, read_table(tmp_path / name)["completion"].to_pylist())) for name in ("out", "plain")
    )
    assert searched > drawn
    assert "drawn_tokens" not in summary and "drawn_tokens" not in read_table(tmp_path / "plain").column_names


def test_a_searched_pool_grows_and_shards_travel(ladder_policy: Path, tmp_path: Path) -> None:
    drawing = pickle.loads(pickle.dumps(_searched(ladder_policy)))  # noqa: S301
    small = replace(drawing, options=OPTIONS.model_copy(update={"samples": 2}))
    sample_pool(small, QUESTIONS, Work(tmp_path / "small", tmp_path / "grown", 0))
    grown = sample_pool(drawing, QUESTIONS, Work(tmp_path / "large", tmp_path / "grown", 0))
    assert (grown["drawn"], grown["reused"]) == (6, 6)
    sample_pool(_searched(ladder_policy), QUESTIONS, Work(tmp_path / "straight", tmp_path / "work", 0))
    assert read_table(tmp_path / "large") == read_table(tmp_path / "straight")


def test_options_reach_the_method(ladder_policy: Path, tmp_path: Path) -> None:
    wide = _searched(ladder_policy, search=Wide(width=5))
    sample_pool(wide, QUESTIONS, Work(tmp_path / "out", tmp_path / "work", 0))
    assert set(read_table(tmp_path / "out")["scored_solutions"].to_pylist()) == {5}


def _tree(policy: Path, evaluator: Path, search: Search, **options: object) -> Drawing:
    return Drawing(
        policy,
        LADDER,
        OPTIONS.model_copy(update={"max_new_tokens": 16, **options}),
        "pool",
        SEARCH_METHODS.load(search.method)(),
        search,
        GrowingScorer(evaluator, LADDER.text),
    )


def test_a_pool_of_searches_has_costs_grows_by_whole_searches_and_no_clock_in_it(
    ladder_policy: Path, ladder_evaluator: Path, tmp_path: Path
) -> None:
    """Blocks are whole searches, whatever `shard_samples` says: 3 beams in blocks of 3, not 2."""
    beam = BeamSearch(beams=3, expansions=2)
    small, large = (_tree(ladder_policy, ladder_evaluator, beam, samples=n) for n in (3, 9))
    first = sample_pool(small, QUESTIONS, Work(tmp_path / "small", tmp_path / "grown", 0))
    grown = sample_pool(large, QUESTIONS, Work(tmp_path / "large", tmp_path / "grown", 0))
    assert (first["drawn"], grown["drawn"], grown["reused"]) == (9, 18, 9)
    straight = sample_pool(large, QUESTIONS, Work(tmp_path / "straight", tmp_path / "work", 0))
    assert read_table(tmp_path / "large") == read_table(tmp_path / "straight")
    rows = read_table(tmp_path / "straight").to_pylist()
    costs = ("drawn_tokens", "dead_tokens", "read_tokens", "scored_solutions")
    assert {name: straight[name] for name in costs} == {name: sum(r[name] for r in rows) for name in costs}
    assert all(row["drawn_tokens"] > row["dead_tokens"] > 0 < row["read_tokens"] for row in rows)
    spent = grown["seconds"]  # of shards of both runs
    assert spent["all"] >= spent["drawing"] + spent["scoring"] > spent["drawing"] > 0
    parts = sorted(path.name for path in (tmp_path / "large").iterdir())
    for name in parts:
        assert parquet_hash(tmp_path / "large" / name) == parquet_hash(tmp_path / "straight" / name)


class Forgetful:
    """Leaves the last sample out."""

    needs_scorer = False

    def search(
        self, tools: Tools, requests: Sequence[SampleRequest], sampling: SamplingOptions, options: object
    ) -> Found:
        return Found([own[:-1] for own in tools.engine.sample(requests, sampling)])


def test_a_method_that_returns_too_few_samples_is_named(ladder_policy: Path, tmp_path: Path) -> None:
    drawing = _searched(ladder_policy, method=Forgetful())
    with pytest.raises(ValueError, match=r"Forgetful\.search returned other samples than those asked for"):
        sample_pool(drawing, QUESTIONS, Work(tmp_path / "out", tmp_path / "work", 0))


def test_keys_of_branches_are_streams_of_their_own() -> None:
    key = stream_key(0, "pool", "p")
    keys = [branch_key(key, *branch) for branch in ((0,), (1,), (0, "on"), (0, "off"), ("0on",))]
    assert len({key, *keys}) == 6 and all(0 <= k < 2**64 for k in keys)
    assert branch_key(key, 0, "on") == keys[2]


def test_methods_are_light_to_import() -> None:
    entries = [SEARCH_METHODS.target(word).partition(":")[0] for word in SEARCH_METHODS.entries]
    code = (
        f"import sys; import {', '.join(entries)}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
