"""Score every step of finished solutions, one forward pass per solution.

Solutions are sorted by length and batched by a token budget, so there is hardly any padding; only
the hidden states at segment ends go through the head. Candidates of one problem share the prompt's
computation where that is less work. Raw logits are kept: aggregation comes later.

All kinds of evaluator are scored here: each segment end has a logit. The last one is the score of
an evaluator that was trained on whole solutions. The model must be causal; any number format will
do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.classifier import score_head
from e2h_pipeline.models.load import HEADING_FIELD, STEP_END_FIELD
from e2h_pipeline.solutions import (
    MARKED,
    EncodedSolution,
    TextFormat,
    encode,
    encode_completion,
    segment_ends,
)

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

# The least cost of a forward pass, in tokens. A GPU reads all weights once a pass, so it is about
# the ratio of matrix-multiply to memory rate. On a CPU the calls cost: those of a layer take as
# long as a token takes for `_LAYER_WEIGHTS` weights. That is negligible for a large model, and 128
# tokens for the ladder's.
_PASS_TOKENS = {"cuda": 256, "cpu": 32}
_LAYER_WEIGHTS = 6_300_000

Solution = tuple[str, str, bool]  # question, completion, finished


def score_solutions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    solutions: Sequence[Solution],
    batch_tokens: int = 65536,
    *,
    text: TextFormat = MARKED,
    share_prompts: bool = True,
) -> list[list[float]]:
    """Raw logit of each segment of each solution.

    Args:
        solutions: (question, completion, finished); equal ones are scored once.
        batch_tokens: upper bound on rows x length of a batch, a shared prompt counted with every
            row.
        text: how the domain writes solutions.
        share_prompts: let candidates of one problem share their prompt where that is less work and
            the model's cache allows it. Scores differ by rounding alone.
    """
    distinct = list(dict.fromkeys(solutions))
    encoded = [encode_for(model, tokenizer, solution, text) for solution in distinct]
    scored = score_all(model, encoded, batch_tokens, share_prompts=share_prompts)
    scores = dict(zip(distinct, scored, strict=True))
    return [scores[solution] for solution in solutions]


def score_all(
    model: PreTrainedModel,
    encoded: Sequence[EncodedSolution],
    batch_tokens: int = 65536,
    *,
    share_prompts: bool = True,
) -> list[list[float]]:
    """`score_solutions` of tokenized solutions; repeats are scored again."""
    found: list[list[float]] = [[] for _ in encoded]
    for batch, cache in _batches(model, encoded, batch_tokens, share_prompts):
        rows = [encoded[i] for i in batch]
        scored = score_encoded(model, rows) if cache is None else score_behind(model, rows, cache)
        for i, logits in zip(batch, scored, strict=True):
            found[i] = logits
    return found


def encode_for(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    solution: Solution,
    text: TextFormat = MARKED,
) -> EncodedSolution:
    """A solution in the evaluator's own prompt, with the positions that it was trained to judge
    at."""
    question, completion, finished = solution
    text = text.headed(getattr(model.config, HEADING_FIELD, text.question_heading))
    encoded = encode(tokenizer, question, completion, finished=finished, text=text)
    if getattr(model.config, STEP_END_FIELD, "last") == "last":
        return encoded
    spans = [
        (start, stop - 1) if completion[start:stop].endswith(text.separator) else (start, stop)
        for start, stop in text.parse(completion).spans
    ]
    ends = segment_ends(encode_completion(tokenizer, completion, finished=finished, text=text)[1], spans)
    return EncodedSolution(
        encoded.input_ids, encoded.prompt_tokens, tuple(encoded.prompt_tokens + end for end in ends)
    )


def score_encoded(model: PreTrainedModel, batch: Sequence[EncodedSolution]) -> list[list[float]]:
    """One padded forward pass; the head sees segment ends only."""
    return _scores(model, [e.input_ids for e in batch], [e.segment_ends for e in batch])


def score_behind(
    model: PreTrainedModel, batch: Sequence[EncodedSolution], prompt: Cache
) -> list[list[float]]:
    """`score_encoded` of solutions that share a prompt; the cache has its keys and values."""
    return _scores(
        model,
        [e.input_ids[e.prompt_tokens :] for e in batch],
        [[end - e.prompt_tokens for end in e.segment_ends] for e in batch],
        past_key_values=prompt,
    )


def _scores(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], ends: Sequence[Sequence[int]], **kwargs: Any
) -> list[list[float]]:
    import torch

    longest, device = max(map(len, ids)), model.device
    padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids], device=device)
    rows = torch.tensor([r for r, own in enumerate(ends) for _ in own], dtype=torch.long, device=device)
    columns = torch.tensor([end for own in ends for end in own], dtype=torch.long, device=device)
    with torch.inference_mode():
        # Causal attention never looks right, so right padding needs no mask.
        hidden = model.base_model(
            input_ids=padded, use_cache="past_key_values" in kwargs, **kwargs
        ).last_hidden_state
        flat = iter(score_head(model)(hidden[rows, columns]).squeeze(-1).float().tolist())
    return [[next(flat) for _ in own] for own in ends]


def _batches(
    model: PreTrainedModel, encoded: Sequence[EncodedSolution], batch_tokens: int, share: bool
) -> Iterator[tuple[list[int], Cache | None]]:
    """Batches of indices, each with its shared prompt or None. Unshared batches come first, longest
    first, so that one that does not fit fails at once. Solutions without segments are left out."""
    from e2h_pipeline.rewards.shared_prompt import can_share, prompt_cache

    floor = _floor(model)
    scored = [i for i, e in enumerate(encoded) if e.segment_ends]
    shared = _shared(encoded, scored, batch_tokens, floor) if share and can_share(model) else []
    taken = {i for group in shared for batch in group for i in batch}
    for batch in _by_length(encoded, [i for i in scored if i not in taken], batch_tokens, floor):
        yield batch, None
    for group in shared:
        first = encoded[group[0][0]]
        cache = prompt_cache(model, first.input_ids[: first.prompt_tokens])
        for batch in group:
            yield batch, cache


def _floor(model: PreTrainedModel) -> int:
    """The least cost of a forward pass, in tokens."""
    floor = _PASS_TOKENS.get(model.device.type, _PASS_TOKENS["cuda"])
    if model.device.type != "cpu":
        return floor
    return max(floor, model.config.num_hidden_layers * _LAYER_WEIGHTS // model.num_parameters())


def _by_length(
    encoded: Sequence[EncodedSolution], rows: Sequence[int], batch_tokens: int, floor: int
) -> list[list[int]]:
    """Batches, longest first; a new one where the budget is full, or where padding would cost more
    than another forward pass, which costs at least `floor` tokens."""
    batches: list[list[int]] = []
    padding = longest = 0
    for i in sorted(rows, key=lambda i: -len(encoded[i].input_ids)):
        length = len(encoded[i].input_ids)
        full = not batches or (len(batches[-1]) + 1) * longest > batch_tokens
        if full or padding + longest - length > floor:
            batches.append([])
            padding, longest = 0, length
        padding += longest - length
        batches[-1].append(i)
    return batches


def _shared(
    encoded: Sequence[EncodedSolution], rows: Sequence[int], batch_tokens: int, floor: int
) -> list[list[list[int]]]:
    """Batches of the problems that take less work with a shared prompt than without."""
    problems: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i in rows:
        problems[encoded[i].input_ids[: encoded[i].prompt_tokens]].append(i)
    groups = []
    for prompt, members in problems.items():
        if len(members) > 1 and prompt:
            batches = _by_length(encoded, members, batch_tokens, floor)
            work = max(len(prompt), floor) + sum(_work(encoded, batch, floor) for batch in batches)
            if work < sum(len(encoded[i].input_ids) for i in members):
                groups.append(batches)
    return groups


def _work(encoded: Sequence[EncodedSolution], batch: Sequence[int], floor: int) -> int:
    """The cost of a batch behind its shared prompt, in tokens with padding; at least `floor`."""
    longest = encoded[batch[0]]
    return max(floor, len(batch) * (len(longest.input_ids) - longest.prompt_tokens))
