"""Score every step of finished solutions, one forward pass per solution.

Solutions are sorted by length and batched by a token budget, so padding is next to nothing; only
the hidden states at segment ends go through the head. Raw logits are kept: aggregation comes later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.solutions import QUESTION_HEADING, EncodedSolution, encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.recipe import Scoring
    from e2h_pipeline.reporter import Reporter


HEADING_FIELD = "prompt_heading"  # in the evaluator's config.json: the heading it was trained with


def score_pool(
    prm: Path, samples: Path, questions: Path, out: Path, work: Path, options: Scoring, reporter: Reporter
) -> dict[str, Any]:
    """Score a sample pool part by part and write `out/part-*.parquet`; finished parts survive a kill."""
    import pyarrow as pa

    from e2h_pipeline.models.load import load_evaluator

    text = {row["problem_id"]: row["question"] for row in read_table(questions / "data.parquet").to_pylist()}
    parts = sorted(samples.glob("part-*.parquet"))
    work.mkdir(parents=True, exist_ok=True)
    loaded = None
    for number, part in enumerate(parts):
        if not (work / part.name).exists():
            loaded = loaded or load_evaluator(prm)
            pool = read_table(part, ["problem_id", "level", "sample", "completion", "finish_reason"])
            solutions = [
                (text[row["problem_id"]], row["completion"], row["finish_reason"] == "stop")
                for row in pool.to_pylist()
            ]
            logits = score_solutions(*loaded, solutions, options.batch_tokens)
            scores = pool.select(["problem_id", "level", "sample"]).append_column(
                "step_logits", pa.array(logits, pa.list_(pa.float32()))
            )
            write_table(work / part.name, scores)
        reporter.progress(number + 1, len(parts), "parts scored")
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        os.link(work / part.name, out / part.name)
    scored = read_table(out, ["step_logits"])
    return {
        "solutions": scored.num_rows,
        "steps": sum(len(s) for s in scored.column("step_logits").to_pylist()),
    }


def score_solutions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    solutions: Sequence[tuple[str, str, bool]],
    batch_tokens: int = 65536,
) -> list[list[float]]:
    """Raw logit of each segment of each solution.

    Args:
        solutions: (question, completion, finished); equal ones are scored once.
        batch_tokens: upper bound on rows x length of a batch.
    """
    distinct = list(dict.fromkeys(solutions))
    heading = getattr(model.config, HEADING_FIELD, QUESTION_HEADING)
    encoded = [encode(tokenizer, q, c, finished=f, heading=heading) for q, c, f in distinct]
    scores: dict[tuple[str, str, bool], list[float]] = {}
    for batch in _batches(encoded, batch_tokens):
        for i, logits in zip(batch, score_encoded(model, [encoded[i] for i in batch]), strict=True):
            scores[distinct[i]] = logits
    return [scores[solution] for solution in solutions]


def score_encoded(model: PreTrainedModel, batch: Sequence[EncodedSolution]) -> list[list[float]]:
    """One padded forward pass; the head sees segment ends only."""
    import torch

    longest = max(len(e.input_ids) for e in batch)
    device = model.device
    ids = torch.tensor([[*e.input_ids, *[0] * (longest - len(e.input_ids))] for e in batch], device=device)
    rows = torch.tensor(
        [r for r, e in enumerate(batch) for _ in e.segment_ends], dtype=torch.long, device=device
    )
    ends = torch.tensor([end for e in batch for end in e.segment_ends], dtype=torch.long, device=device)
    with torch.inference_mode():
        # Causal attention never looks right, so right padding needs no mask.
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        flat = iter(model.score(hidden[rows, ends]).squeeze(-1).float().tolist())
    return [[next(flat) for _ in e.segment_ends] for e in batch]


def _batches(encoded: Sequence[EncodedSolution], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of solutions, longest first, so that a batch that does not fit fails at once."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].input_ids))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // len(encoded[order[start]].input_ids))
        yield order[start : start + size]
        start += size
