"""Forward passes of the learning part: grouping of rows changes only rounding."""

from functools import partial
from pathlib import Path

import pytest
import rl_runs
import torch

from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import OnlineRl, PpoRl
from e2h_pipeline.rl.algorithms import RlJob
from e2h_pipeline.rl.batches import Batch, collate, drawn_logprobs
from e2h_pipeline.rl.online.advantages import masked_mean
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.passes import (
    by_rows,
    distinct_rows,
    minibatches,
    pass_tokens,
    passes,
    token_logprobs,
)
from e2h_pipeline.rl.online.ppo import Ppo
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Rollout, reward
from e2h_pipeline.solutions import MARKED

LENGTHS = (3, 9, 3, 5, 7, 3, 9, 4)


def _rollout(tokens: int, first: int) -> Rollout:
    ids = tuple(3 + (first + i) % 7 for i in range(tokens))
    sample = Sample(0, "", ids, "stop", 0.0)
    return Rollout(Question("q", "q", None), (3, 4), sample, (0.0,) * tokens, 0.5, 1, answer=None, right=None)


def _batch() -> Batch:
    """Rows of five lengths; rows 0 and 2, and rows 1 and 6, are equal."""
    firsts = (0, 0, 0, 0, 0, 1, 0, 0)
    rows = [_rollout(length, first) for length, first in zip(LENGTHS, firsts, strict=True)]
    return collate(rows, 0, torch.device("cpu"))


def test_passes_hold_each_row_once_and_no_more_distinct_positions_than_allowed() -> None:
    """12 positions hold two rows of 5 tokens (with prompt), or one of any other length; equal rows
    count once."""
    found = list(passes(_batch(), torch.arange(8), OnlineRl(pass_tokens=12)))
    assert [sorted(part.rows.tolist()) for part in found] == [[0, 2, 5], [7], [3], [4], [1, 6]]
    assert [part.share * sum(LENGTHS) for part in found] == pytest.approx([9, 4, 5, 7, 18])


def test_passes_of_some_rows_are_those_rows() -> None:
    found = list(passes(_batch(), torch.tensor([6, 3, 0]), OnlineRl(pass_tokens=30)))
    assert sorted(int(row) for part in found for row in part.rows) == [0, 3, 6]
    assert sum(part.share for part in found) == pytest.approx(1)


def test_a_pass_is_as_large_as_the_device_bears() -> None:
    assert pass_tokens(torch.device("cpu"), OnlineRl()) == 1536
    assert pass_tokens(torch.device("cuda"), OnlineRl()) == 16384
    assert pass_tokens(torch.device("cuda"), OnlineRl(pass_tokens=7)) == 7


def test_distinct_rows_are_put_back_where_they_were() -> None:
    batch = _batch()
    (ids, attention), of = distinct_rows(batch)
    assert len(ids) == 6
    assert torch.equal(ids[of], batch.ids)
    assert torch.equal(attention[of], batch.attention)


def test_gradient_and_logprobs_do_not_depend_on_the_passes(ladder_policy: Path) -> None:
    model, _ = load_policy(ladder_policy)
    batch = _batch()
    weights = torch.arange(8.0)[:, None] * batch.mask  # a loss that tells rows apart

    def learned(positions: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        options = OnlineRl(minibatch=8, rollouts=8, pass_tokens=positions)
        model.zero_grad()
        for minibatch in minibatches(batch, options, 0, 0):
            for part in passes(batch, minibatch, options):
                logprobs, _ = token_logprobs(model, part.batch, 1.0)
                (part.share * masked_mean(part.of(weights) * logprobs, part.batch.mask)).backward()
        measured = by_rows(batch, options, lambda part: token_logprobs(model, part, 1.0)[0])
        return measured * batch.mask, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole, parts = learned(10_000), learned(12)
    torch.testing.assert_close(whole[0], parts[0], atol=1e-5, rtol=0)
    for a, b in zip(whole[1], parts[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    plain = model(input_ids=batch.ids, attention_mask=batch.attention).logits[:, :-1].log_softmax(-1)
    chosen = plain.gather(-1, batch.ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(whole[0][:, 1:], chosen * batch.mask[:, 1:], atol=1e-5, rtol=0)
    loss = masked_mean(weights[:, 1:] * chosen, batch.mask[:, 1:])
    expected = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    for a, b in zip(whole[1], expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


class Counted(Ppo):
    """PPO that counts how often a layer of policy and critic is computed for a gradient."""

    def __init__(self) -> None:
        self.forwards = {"policy": 0, "critic": 0}

    def start(self, job: RlJob[PpoRl]) -> Run[PpoRl]:
        run = super().start(job)
        for name, model in run.trained.items():
            model.model.layers[0].mlp.register_forward_pre_hook(partial(self._count, name))
        return run

    def _count(self, name: str, *_: object) -> None:
        self.forwards[name] += torch.is_grad_enabled()


def test_recomputed_activations_give_the_same_policy(
    ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    """Two updates, so that a draw follows learning. With recomputation each pass computes a layer
    twice."""
    options = rl_runs.PPO.model_copy(update={"updates": 2, "max_new_tokens": 12})
    weights, forwards = [], []
    for recompute in (False, True):
        algorithm, folder = Counted(), tmp_path / str(recompute)
        own = options.model_copy(update={"gradient_checkpointing": recompute})
        algorithm.train(rl_runs.job(own, ladder_policy, ladder_evaluator, ladder_tables, folder))
        weights.append(rl_runs.learned_weights(folder / "work" / "update-000002"))
        forwards.append(algorithm.forwards)
    kept, twice = forwards
    assert kept["policy"] > 0
    assert twice == {name: 2 * count for name, count in kept.items()}
    assert {name.partition("/")[0] for name in weights[0]} == set(kept)
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_of_the_draw_are_those_of_the_policy(ladder_policy: Path, temperature: float) -> None:
    model, tokenizer = load_policy(ladder_policy)
    options = OnlineRl(samples_per_question=3, temperature=temperature, max_new_tokens=12)
    engine = TransformersEngine(model, tokenizer)
    questions = [Question(f"q/{i}", text, None) for i, text in enumerate(("1+2", "3*4-5", "6-2*3+1"))]
    pairs = rl_runs.draw(engine, questions, options)
    segments = [len(MARKED.parse(sample.completion).spans) for _, sample in pairs]
    rollouts = [
        reward(pair, [0.0] * count, None, tokenizer, LADDER, options)
        for pair, count in zip(pairs, segments, strict=True)
    ]
    batch = collate(rollouts, 0, torch.device("cpu"))
    found = drawn_logprobs(rollouts, batch)
    expected = by_rows(batch, options, lambda part: token_logprobs(model, part, temperature)[0])
    assert (found == 0).logical_or(batch.mask == 1).all()
    torch.testing.assert_close(found, expected * batch.mask, atol=2e-5, rtol=0)
    if temperature == 1:
        assert found.sum(1).tolist() == pytest.approx([r.sample.logprob for r in rollouts], abs=1e-4)
