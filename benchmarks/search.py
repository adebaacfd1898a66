"""Search with kept keys and values, next to encoding every beginning again at each step.

    python benchmarks/search.py POLICY EVALUATOR [--questions 24] [--samples 8] [--beams 4]
                                [--expansions 4] [--repeats 2] [--methods beam dvts particle]

Two ladder models (POLICY and EVALUATOR are their folders), the same questions, N, steps and randomness,
in one run:

- `ours`: `generation.search` on the embedded engine, which keeps what paused draws have computed, and
  `rewards.growing`, which reads each step once;
- `re-encoded`: the same search, the way search-and-learn and its_hub drive a model that keeps nothing
  between steps: each round computes every beginning from its first token, and the evaluator reads
  every beginning whole. Prompts that are equal in a call are still computed once, so the difference is
  that of keeping alone;
- `one by one`: as `re-encoded`, and each beginning has a call of its own for its next steps;
- `its_hub`: its own beam search (its-hub 1.2, `pip install its-hub`; left out where it is missing), over
  the same engine and evaluator through its interfaces. It searches question by question, sends text, and
  draws with other randomness, so its samples are compared by accuracy alone.

Outputs are compared sample by sample. Seconds are processor seconds, which depend less on other
processes; the share of drawing and of scoring is beside them. A table for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions, Watch
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.generation.search.protocol import Found, Tools
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.source import load_split
from e2h_pipeline.recipe import BeamSearch, DvtsSearch, LadderProblems, ParticleSearch, Search
from e2h_pipeline.registry import SEARCH_METHODS
from e2h_pipeline.rewards.growing import GrowingScorer
from e2h_pipeline.rewards.step_scorer import StepScorer

if TYPE_CHECKING:
    from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine

TARGET = 3.0
TOKENS = 80
_ENDED = "<ended>"  # behind a text that the model ended, for its_hub, which looks for a stop token


@dataclass
class Timed:
    """An engine or a scorer, with the processor seconds spent in it."""

    inner: Any
    forgets: bool = False
    alone: bool = False
    seconds: float = field(default=0.0)

    def sample(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        """See `Engine`."""
        start = time.process_time()
        engine: TransformersEngine = self.inner
        if self.alone:
            found = [own for group in _by_beginning(requests) for own in _fresh(engine, group, options)]
        else:
            found = _fresh(engine, requests, options) if self.forgets else engine.sample(requests, options)
        self.seconds += time.process_time() - start
        return found

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> Any:
        """See `Scorer`."""
        start = time.process_time()
        found = self.inner.step_probabilities(solutions)
        self.seconds += time.process_time() - start
        return found

    def close(self) -> None:
        """See `Scorer`."""
        self.inner.close()


def _fresh(
    engine: TransformersEngine, requests: Sequence[SampleRequest], options: SamplingOptions
) -> list[list[Sample]]:
    engine.forget()
    return engine.sample(requests, options)


def _by_beginning(requests: Sequence[SampleRequest]) -> list[list[SampleRequest]]:
    """Neighbours with one beginning together; the order stays."""
    groups: list[list[SampleRequest]] = []
    for request in requests:
        if groups and (groups[-1][0].question, groups[-1][0].drawn) == (request.question, request.drawn):
            groups[-1].append(request)
        else:
            groups.append([request])
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy", type=Path)
    parser.add_argument("evaluator", type=Path)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--expansions", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["beam", "dvts", "particle"])
    options = parser.parse_args()
    print_report(options, [measure(options, search) for search in searches(options)])


def searches(options: argparse.Namespace) -> list[Search]:
    """The searches that were asked for."""
    known: dict[str, Search] = {
        "beam": BeamSearch(beams=options.beams, expansions=options.expansions),
        "dvts": DvtsSearch(expansions=options.expansions),
        "particle": ParticleSearch(particles=options.beams),
    }
    return [known[name] for name in options.methods]


def measure(options: argparse.Namespace, search: Search) -> dict[str, Any]:
    """Seconds of every way, and whether its samples are ours."""
    engine: Any = load_engine("transformers", options.policy)
    problems = load_split(LadderProblems(benchmark_limit=options.questions)).benchmark
    requests = [
        SampleRequest(p.question, LADDER.text, stream_key(0, "benchmark", p.question), options.samples)
        for p in problems
    ]
    golds = [p.answer for p in problems]
    rows: dict[str, Any] = {}
    engine.sample(requests, SamplingOptions(0.8, 8))  # warm up
    for _ in range(options.repeats):
        for way in ("ours", "re-encoded", "one by one"):
            scorer = (GrowingScorer if way == "ours" else StepScorer)(options.evaluator, LADDER.text)
            scorer.close()
            scorer.step_probabilities([("1+1", "1+1=2", False)])  # loads the model
            drawing = Timed(engine, forgets=way != "ours", alone=way == "one by one")
            scoring = Timed(scorer)
            start = time.process_time()
            found = SEARCH_METHODS.load(search.method)().search(
                Tools(drawing, scoring), requests, SamplingOptions(0.8, TOKENS), search
            )
            spent = time.process_time() - start
            row = rows.setdefault(way, {"seconds": [], "drawing": [], "scoring": []})
            for name, value in (
                ("seconds", spent),
                ("drawing", drawing.seconds),
                ("scoring", scoring.seconds),
            ):
                row[name].append(value)
            row["accuracy"], row["samples"] = accuracy(found, golds), _texts(found)
    if search.method == "beam" and importlib.util.find_spec("its_hub"):
        rows["its_hub"] = its_hub(options, engine, requests, golds)
    ours = rows["ours"].pop("samples")
    for row in rows.values():
        same = [a == b for a, b in zip(row.pop("samples", ours), ours, strict=True)]
        row.setdefault("equal_samples", sum(same) / len(same))
    return {"search": search.label, "ways": rows}


def its_hub(
    options: argparse.Namespace, engine: Any, requests: Sequence[SampleRequest], golds: Sequence[str]
) -> dict[str, Any]:
    """Seconds and accuracy of its_hub's beam search: N / beams searches of each question."""
    from its_hub.core.algorithms.beam_search import BeamSearch as Peer
    from its_hub.core.lms.step_generation import StepGeneration

    drawing, scoring = Timed(engine, forgets=True), Timed(StepScorer(options.evaluator, LADDER.text))
    steps = StepGeneration(max_steps=TOKENS // 4, step_token=LADDER.text.separator, stop_token=_ENDED)
    peer = Peer(steps, PeerEvaluator(scoring), options.beams)
    language_model = PeerModel(drawing)
    right: list[bool] = []
    start = time.process_time()
    for request, gold in zip(requests, golds, strict=True):
        for _ in range(options.samples // options.beams):
            found = peer.infer(
                language_model,
                request.question,
                options.beams * options.expansions,
                return_response_only=False,
            )
            texts = [response["content"] for response in found.responses[: options.beams]]
            right += [LADDER.answer_of(text.replace(_ENDED, ""), True) == gold for text in texts]
    spent = time.process_time() - start
    return {
        "seconds": [spent],
        "drawing": [drawing.seconds],
        "scoring": [scoring.seconds],
        "accuracy": sum(right) / len(right),
        "equal_samples": None,
    }


class PeerModel:
    """Our engine as a language model of its_hub: next steps of texts."""

    def __init__(self, drawing: Timed) -> None:
        self.drawing, self.calls = drawing, 0

    async def agenerate(self, messages: Any, stop: str, **_: Any) -> list[dict[str, str]]:
        """See its_hub's `AbstractLanguageModel`."""
        self.calls += 1
        requests = [
            SampleRequest(
                said[0].content,
                LADDER.text,
                stream_key(self.calls, "peer", str(row)),
                1,
                prefix=said[1].content if len(said) > 1 else "",
            )
            for row, said in enumerate(messages)
        ]
        drawn = self.drawing.sample(requests, SamplingOptions(0.8, TOKENS, stop=(stop,)))
        return [
            {
                "role": "assistant",
                "content": sample.completion + ("" if sample.stop_reason == stop else _ENDED),
            }
            for (sample,) in drawn
        ]


class PeerEvaluator:
    """Our evaluator as a process reward model of its_hub: the worst step of each text."""

    def __init__(self, scoring: Timed) -> None:
        self.scoring = scoring

    async def ascore(self, prompt: str, texts: Sequence[str]) -> list[float]:
        """See its_hub's `AbstractProcessRewardModel`."""
        asked = [(prompt, text, False) for text in texts]
        return [float(own.min(initial=1.0)) for own in self.scoring.step_probabilities(asked)]


def accuracy(found: Found, golds: Sequence[str]) -> float:
    """Share of samples with the right answer."""
    right = [
        LADDER.answer_of(sample.completion, sample.finish_reason == "stop") == gold
        for own, gold in zip(found.samples, golds, strict=True)
        for sample in own
    ]
    return sum(right) / len(right)


def _texts(found: Found) -> list[str]:
    return [sample.completion for own in found.samples for sample in own]


def print_report(options: argparse.Namespace, results: Sequence[dict[str, Any]]) -> None:
    """The table, and the JSON line."""
    heads = f"{'seconds':>8} {'drawing':>8} {'scoring':>8} {'times ours':>11} {'equal':>6} {'accuracy':>9}"
    print(f"{'search':32} {'way':12} {heads}")
    told = []
    for result in results:
        base = statistics.median(result["ways"]["ours"]["seconds"])
        for way, row in result["ways"].items():
            spent, drawn, scored = (statistics.median(row[n]) for n in ("seconds", "drawing", "scoring"))
            print(
                f"{result['search']:32} {way:12} {spent:8.2f} {drawn / spent:8.0%} {scored / spent:8.0%} "
                f"{spent / base:11.2f} {_share(row['equal_samples']):>6} {row['accuracy']:9.1%}"
            )
            told.append(
                {
                    "search": result["search"],
                    "way": way,
                    "seconds": spent,
                    "times_ours": spent / base,
                    "drawing": drawn / spent,
                    "scoring": scored / spent,
                    "equal_samples": row["equal_samples"],
                    "accuracy": row["accuracy"],
                }
            )
    sizes = {name: getattr(options, name) for name in ("questions", "samples", "beams", "expansions")}
    print(json.dumps({"benchmark": "search", **sizes, "target": TARGET, "rows": told}))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()
