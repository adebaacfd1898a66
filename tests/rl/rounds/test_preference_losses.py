import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.rl.batches import Batch, collate
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Rollout
from e2h_pipeline.rl.rounds.preference_losses import dpo, mean_logprobs, orpo, sequence_logprobs, simpo, sppo

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "dpo": lambda chosen, rejected: dpo(chosen, rejected, 0.3),
    "sppo": lambda chosen, rejected: sppo(chosen, rejected, 0.3),
    "simpo": lambda chosen, rejected: simpo(chosen, rejected, 2.0, 0.5),
    "orpo": lambda chosen, rejected: orpo(chosen, rejected, 0.4),
}
QUESTION = Question("h", "2*3*2", None)


def _column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


# Numbers


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # -log sigmoid(0.05 * 0.6) = log(1 + e^-0.03)
        (dpo(_column(0.4), _column(-0.2), 0.05), 0.678260),
        (dpo(_column(0.0), _column(0.0), 0.05), 0.693147),
        # (0.4 - 5)^2 + (-0.2 + 5)^2 = 21.16 + 23.04
        (sppo(_column(0.4), _column(-0.2), 0.1), 44.20),
        # (0.4 - 500)^2 + (-0.2 + 500)^2 = 249600.16 + 249800.04
        (sppo(_column(0.4), _column(-0.2), 0.001), 499400.2),
        # -log sigmoid(2 * 0.4 - 1) = log(1 + e^0.2)
        (simpo(_column(-0.5), _column(-0.9), 2.0, 1.0), 0.798139),
        # log odds: -0.5 - log(1 - 0.606531) = 0.432752, -0.9 - log(1 - 0.406570) = -0.378165; they
        # differ by 0.810917, and 0.5 + 0.1 log(1 + e^-0.810917) = 0.5 + 0.1 * 0.367727
        (orpo(_column(-0.5), _column(-0.9), 0.1), 0.536773),
    ],
)
def test_losses_by_hand(loss: Tensor, expected: float) -> None:
    assert loss.tolist() == pytest.approx([expected], rel=1e-6)


def test_a_batch_is_its_pairs() -> None:
    chosen, rejected = _column(-0.5, -1.5, -0.1), _column(-0.9, -0.2, -0.1)
    for loss in LOSSES.values():
        alone = [loss(c[None], r[None]).item() for c, r in zip(chosen, rejected, strict=True)]
        assert loss(chosen, rejected).tolist() == pytest.approx(alone)


# Invariants

LOGS = st.floats(-8, -0.01)


@settings(deadline=None)
@given(LOGS, LOGS, st.floats(0.01, 2))
def test_what_makes_chosen_likelier_pays_and_what_makes_rejected_likelier_costs(
    chosen: float, rejected: float, more: float
) -> None:
    for name, loss in LOSSES.items():
        if name == "sppo":
            continue  # it has targets, and overshooting them costs
        now = loss(_column(chosen), _column(rejected)).item()
        assert loss(_column(chosen), _column(rejected - more)).item() < now
        assert loss(_column(min(chosen + more, -0.001)), _column(rejected)).item() < now


@settings(deadline=None)
@given(LOGS, LOGS, st.floats(-3, 3))
def test_dpo_and_simpo_see_the_difference_alone(chosen: float, rejected: float, shift: float) -> None:
    for name in ("dpo", "simpo"):
        moved = LOSSES[name](_column(chosen + shift), _column(rejected + shift))
        assert moved.item() == pytest.approx(LOSSES[name](_column(chosen), _column(rejected)).item())


@settings(deadline=None)
@given(LOGS, LOGS)
def test_dpo_of_a_pair_and_of_its_reverse_differ_by_the_margin(chosen: float, rejected: float) -> None:
    # log sigmoid(x) - log sigmoid(-x) = x
    forth, back = dpo(_column(chosen), _column(rejected), 0.3), dpo(_column(rejected), _column(chosen), 0.3)
    assert (back - forth).item() == pytest.approx(0.3 * (chosen - rejected), abs=1e-9)


@settings(deadline=None)
@given(st.floats(0.01, 2))
def test_sppo_rests_at_its_targets(beta: float) -> None:
    chosen, rejected = _column(0.5 / beta).requires_grad_(), _column(-0.5 / beta).requires_grad_()
    loss = sppo(chosen, rejected, beta)
    loss.sum().backward()
    assert [loss.item(), chosen.grad.item(), rejected.grad.item()] == pytest.approx([0, 0, 0], abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("sure", [0.0, -1e-9, -1e-4, -200.0])
def test_the_odds_of_a_sure_or_a_hopeless_completion_are_finite(sure: float, dtype: torch.dtype) -> None:
    for pair in ((sure, -0.5), (-0.5, sure), (sure, sure)):
        chosen, rejected = (torch.tensor([x], dtype=dtype, requires_grad=True) for x in pair)
        loss = orpo(chosen, rejected, 0.4)
        loss.sum().backward()
        assert all(torch.isfinite(t).all() for t in (loss, chosen.grad, rejected.grad))


# Log-probabilities of a model


@pytest.fixture(scope="module")
def policy(ladder_policy: Path) -> PreTrainedModel:
    return load_policy(ladder_policy)[0]


def _batch(tokenizer: PreTrainedTokenizerFast, *rows: tuple[str, str]) -> Batch:
    """Prompts and completions with their ends."""
    rollouts = []
    for prompt, text in rows:
        ids = (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)
        sample = Sample(0, text, ids, "stop", 0.0)
        prompt_ids = tuple(tokenizer(prompt)["input_ids"])
        rollouts.append(Rollout(QUESTION, prompt_ids, sample, (0.0,) * len(ids), 0.5, 1, None, None))
    return collate(rollouts, tokenizer.pad_token_id, torch.device("cpu"))


CHOSEN = [("2*3*2=", "2*3=6\n\n6*2=12"), ("1+1=", "2"), ("4-1=", "4-1=3\n\n# Answer\n\n3")]
REJECTED = [("2*3*2=", "7"), ("1+1=", "1+1=3\n\n3"), ("4-1=", "4-1=5\n\n# Answer\n\n5")]


@torch.no_grad()
def test_sums_are_those_of_each_row_alone(
    policy: PreTrainedModel, ladder_tok: PreTrainedTokenizerFast
) -> None:
    batch = _batch(ladder_tok, *CHOSEN)
    sums = sequence_logprobs(policy, batch.ids, batch.attention, batch.mask)
    for (prompt, text), found, mask in zip(CHOSEN, sums.tolist(), batch.mask, strict=True):
        before = ladder_tok(prompt)["input_ids"]
        ids = [*before, *ladder_tok(text)["input_ids"], ladder_tok.eos_token_id]
        log_p = policy(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        expected = sum(log_p[t - 1, ids[t]].item() for t in range(len(before), len(ids)))
        assert found == pytest.approx(expected, rel=1e-5)
        assert mask.sum() == len(ids) - len(before)


def test_means_by_hand() -> None:
    mask = torch.tensor([[0.0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
    assert mean_logprobs(torch.tensor([-3.0, -6.0, 0.0]), mask).tolist() == [-1.5, -2.0, 0.0]


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_each_loss_widens_the_margin(
    name: str, ladder_policy: Path, ladder_tok: PreTrainedTokenizerFast
) -> None:
    model = load_policy(ladder_policy)[0]
    batches = _batch(ladder_tok, *CHOSEN), _batch(ladder_tok, *REJECTED)
    with torch.no_grad():
        reference = [sequence_logprobs(model, batch.ids, batch.attention, batch.mask) for batch in batches]

    def measures() -> list[Tensor]:
        sums = [sequence_logprobs(model, batch.ids, batch.attention, batch.mask) for batch in batches]
        if name in ("dpo", "sppo"):
            return [s - r for s, r in zip(sums, reference, strict=True)]
        return [mean_logprobs(s, b.mask) for s, b in zip(sums, batches, strict=True)]

    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    before = measures()
    LOSSES[name](*before).mean().backward()
    optimizer.step()
    after = measures()
    assert (after[0] - after[1]).mean() > (before[0] - before[1]).mean()


# TRL 1.16 on the same batch: the losses of its trainers, from token ids to gradients

BETA, GAMMA, WEIGHT = 0.3, 0.5, 0.4
# TRL's ORPO includes the prompt's tokens in its first term, and weights all tokens of a batch
# equally. With one-token prompts, which have no prediction, and chosen completions of one length,
# this is our mean.
SHORT_CHOSEN, SHORT_REJECTED = [("1", "2+3=5"), ("4", "4-1=3")], [("1", "7\n\n7=7"), ("4", "9")]

PEERS = {
    "dpo": (CHOSEN, REJECTED),
    "sppo": (CHOSEN, REJECTED),
    "simpo": (CHOSEN, REJECTED),
    "orpo": (SHORT_CHOSEN, SHORT_REJECTED),
}


def _ours(name: str, model: PreTrainedModel, reference: PreTrainedModel, sides: Sequence[Batch]) -> Tensor:
    chosen, rejected = (sequence_logprobs(model, batch.ids, batch.attention, batch.mask) for batch in sides)
    if name in ("dpo", "sppo"):
        with torch.no_grad():
            held = [sequence_logprobs(reference, batch.ids, batch.attention, batch.mask) for batch in sides]
        return {"dpo": dpo, "sppo": sppo}[name](chosen - held[0], rejected - held[1], BETA).mean()
    means = [mean_logprobs(sums, b.mask) for sums, b in zip((chosen, rejected), sides, strict=True)]
    return (simpo(*means, BETA, GAMMA) if name == "simpo" else orpo(*means, WEIGHT)).mean()


def _trl(
    name: str,
    model: PreTrainedModel,
    reference: PreTrainedModel,
    sides: Sequence[Batch],
    tokenizer: Any,
    out: Path,
) -> Tensor:
    """The loss of TRL's trainer, by its name in TRL. The trainer requires a data set but does not
    read it here."""
    given = {
        "train_dataset": Dataset.from_list([{"prompt": "1+1=", "chosen": "2", "rejected": "3"}]),
        "processing_class": tokenizer,
    }
    common = {"output_dir": str(out), "report_to": "none", "use_cpu": True, "bf16": False}
    if name in ("dpo", "sppo"):
        config = DPOConfig(loss_type=["sigmoid" if name == "dpo" else "sppo_hard"], beta=BETA, **common)
        return DPOTrainer(model, reference, config, **given).compute_loss(model, _stacked(sides))
    if name == "simpo":
        config = CPOConfig(loss_type="simpo", cpo_alpha=0.0, beta=BETA, simpo_gamma=GAMMA, **common)
        return CPOTrainer(model, config, **given).get_batch_loss_metrics(model, _named(sides))[0]
    trainer = ORPOTrainer(model, ORPOConfig(beta=WEIGHT, **common), **given)
    return trainer.get_batch_loss_metrics(model, _named(sides))[0]


def _stacked(sides: Sequence[Batch]) -> dict[str, Tensor]:
    """Chosen above rejected rows, the input of its DPO trainer."""
    length = max(batch.ids.shape[1] for batch in sides)

    def stack(rows: Sequence[Tensor]) -> Tensor:
        return torch.cat([pad(row, (0, length - row.shape[1])) for row in rows]).long()

    return {
        "input_ids": stack([batch.ids for batch in sides]),
        "attention_mask": stack([batch.attention for batch in sides]),
        "completion_mask": stack([batch.mask for batch in sides]),
    }


def _named(sides: Sequence[Batch]) -> dict[str, Tensor]:
    """Chosen beside rejected rows, the input of its CPO and ORPO trainers."""
    rows = {}
    for name, batch in zip(("chosen", "rejected"), sides, strict=True):
        rows[f"{name}_input_ids"] = batch.ids
        rows[f"{name}_attention_mask"] = batch.attention
        rows[f"{name}_labels"] = batch.ids.masked_fill(batch.mask == 0, -100)
    return rows


@pytest.mark.parametrize("name", PEERS)
def test_loss_and_gradients_are_those_of_trl(
    name: str, ladder_policy: Path, ladder_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    def models() -> tuple[PreTrainedModel, PreTrainedModel]:
        policy, reference = load_policy(ladder_policy)[0], load_policy(ladder_policy)[0]
        torch.manual_seed(5)
        with torch.no_grad():
            for weight in policy.parameters():
                weight += 0.01 * torch.randn_like(weight)
        return policy, reference

    sides = [_batch(ladder_tok, *rows) for rows in PEERS[name]]
    policy, reference = models()
    loss = _ours(name, policy, reference, sides)
    loss.backward()
    peer, peer_reference = models()
    expected = _trl(name, peer, peer_reference, sides, ladder_tok, tmp_path)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    largest = max(weight.grad.abs().max() for weight in peer.parameters())
    for (key, weight), other in zip(policy.named_parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-5, atol=1e-5 * largest, msg=key)
    assert largest > 1e-3
