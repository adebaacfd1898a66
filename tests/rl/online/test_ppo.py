import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import rl_runs
import torch
from architectures import save_tiny
from rl_runs import WATCHED, Recorder
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.load import load_evaluator, load_policy, new_evaluator
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import Problem, ProblemSplit, easy_table, question_table
from e2h_pipeline.recipe import PpoRl, Sft
from e2h_pipeline.rewards.evaluators import open_evaluator
from e2h_pipeline.rl.batches import Batch, collate
from e2h_pipeline.rl.curricula import draw_questions
from e2h_pipeline.rl.online import loop
from e2h_pipeline.rl.online.advantages import whiten
from e2h_pipeline.rl.online.losses import clipped_policy_loss, clipped_value_loss
from e2h_pipeline.rl.online.models import Run, lr_scale
from e2h_pipeline.rl.online.passes import token_logprobs, token_values
from e2h_pipeline.rl.online.ppo import Ppo
from e2h_pipeline.rl.progress import Progress
from e2h_pipeline.rl.questions import Question, read_questions
from e2h_pipeline.rl.rollouts import Judges, Rollout, rewarded
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.training.sft import train_sft

FOREIGN = 99.0


def _batch(tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Two rollouts of different lengths, with rewards only at the end."""
    rollouts = []
    for question, text in (("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6"), ("1+1", "1+1=2\n\n# Answer\n\n2")):
        ids = (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)
        prompt = tuple(tokenizer(MARKED.prompt(question))["input_ids"])
        rewards = (*[0.0] * (len(ids) - 1), 1.0)
        sample = Sample(0, text, ids, "stop", 0.0)
        rollouts.append(Rollout(Question("p", question, None), prompt, sample, rewards, 0.5, 1, None, None))
    return collate(rollouts, tokenizer.pad_token_id, torch.device("cpu"))


# Losses


def test_the_policy_loss_by_hand() -> None:
    # ratios 1.5 and 0.5, each with advantage +1 and -1; clip 0.2:
    # min(1.5, 1.2) = 1.2, min(0.5, 0.8) = 0.5, min(-1.5, -1.2) = -1.5, min(-0.5, -0.8) = -0.8
    ratios = torch.tensor([[1.5, 0.5, 1.5, 0.5, 7.0]])
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0, FOREIGN]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    loss = clipped_policy_loss(ratios.log() - 1.0, torch.full((1, 5), -1.0), advantages, mask, 0.2)
    assert loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)


def test_a_clipped_token_has_no_gradient() -> None:
    logprobs = torch.tensor([[1.5, 1.1, 0.5]]).log().requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, -1.0]])
    clipped_policy_loss(logprobs, torch.zeros(1, 3), advantages, torch.ones(1, 3), 0.2).backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, -1.1 / 3, 0.0])


def test_the_value_loss_by_hand() -> None:
    # 0.5 is clipped to 0.2: (0.2 - 1)^2 = 0.64 > 0.25; 0.1 is not clipped: (0.1 - 1)^2 = 0.81
    values, mask = torch.tensor([[0.5, 0.1, FOREIGN]]), torch.tensor([[1.0, 1.0, 0.0]])
    loss = clipped_value_loss(values, torch.zeros(1, 3), torch.ones(1, 3), mask, 0.2)
    assert loss.item() == pytest.approx(0.5 * (0.64 + 0.81) / 2)


# Outputs of models on a batch


def test_logprobs_are_those_of_each_rollout_alone(ladder_policy: Path) -> None:
    model, tokenizer = load_policy(ladder_policy)
    batch = _batch(tokenizer)
    with torch.no_grad():
        found, entropy = token_logprobs(model, batch, 0.7)
        assert found.shape == batch.ids.shape
        for row in range(2):
            length = int(batch.attention[row].sum())
            ids = batch.ids[row, :length]
            log_p = (model(input_ids=ids[None]).logits[0] / 0.7).log_softmax(-1)
            for t in range(1, length):
                assert found[row, t].item() == pytest.approx(log_p[t - 1, ids[t]].item(), abs=1e-4)
                expected = -(log_p[t - 1].exp() * log_p[t - 1]).sum().item()
                assert entropy[row, t].item() == pytest.approx(expected, abs=1e-4)
    assert found[:, 0].tolist() == [0.0, 0.0]


def test_a_value_is_read_before_its_token(ladder_evaluator: Path) -> None:
    critic, tokenizer = load_evaluator(ladder_evaluator)
    batch = _batch(tokenizer)
    with torch.no_grad():
        values = token_values(critic, batch)
        for row in range(2):
            length = int(batch.attention[row].sum())
            alone = critic(input_ids=batch.ids[row : row + 1, :length]).logits[0, :, 0]
            assert values[row, 1:length].tolist() == pytest.approx(alone[:-1].tolist(), abs=1e-4)


def test_gradient_reaches_the_end_of_sequence_and_stays_off_prompt_and_padding(
    ladder_policy: Path, ladder_tok: PreTrainedTokenizerFast
) -> None:
    model, _ = load_policy(ladder_policy)
    batch = _batch(ladder_tok)
    logits: list[torch.Tensor] = []

    def keep(module: Any, args: Any, out: Any) -> None:
        out.logits.retain_grad()
        logits.append(out.logits)

    handle = model.register_forward_hook(keep)
    found, _ = token_logprobs(model, batch, 1.0)
    handle.remove()
    advantages = whiten(batch.rewards, batch.mask)
    clipped_policy_loss(found, found.detach(), advantages, batch.mask, 0.2).backward()
    gradient = logits[0].grad
    assert gradient is not None
    for row in range(2):
        length = int(batch.attention[row].sum())
        prompt = length - int(batch.mask[row].sum())
        assert batch.ids[row, length - 1] == ladder_tok.eos_token_id
        assert gradient[row, length - 2, ladder_tok.eos_token_id] < 0  # rewarded: more of it
        assert not gradient[row, length - 1 :].any()
        assert not gradient[row, : prompt - 1].any()
        assert gradient[row, prompt - 1].any()  # the last prompt token predicts the first of the completion


def test_half_precision_weights_keep_what_small_steps_add_up_to(
    ladder_policy: Path, ladder_evaluator: Path, tmp_path: Path
) -> None:
    """A hundred steps of 1e-5 move float32 weights by 1e-3; bfloat16 weights near 1 cannot move by
    1e-5 at all."""
    job = rl_runs.job(PpoRl(), ladder_policy, ladder_evaluator, tmp_path, tmp_path)
    run = Run(job)
    half = load_policy(ladder_policy)[0].to(torch.bfloat16)
    run.train("half", half, 1e-5)
    weight = half.model.norm.weight  # ones
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        run.step("half")
    assert run.optimizers["half"].param_groups[0]["lr"] == 1e-5
    assert weight.dtype == torch.bfloat16
    assert weight.float().mean().item() == pytest.approx(1 - 1e-3, abs=4e-3)
    master = run.masters["half"][[p is weight for p in half.parameters()].index(True)]
    assert master.mean().item() == pytest.approx(1 - 1e-3, abs=1e-5)
    run.save(tmp_path / "update-000001", Progress())
    again = Run(job)
    again.train("half", load_policy(ladder_policy)[0].to(torch.bfloat16), 1e-5)
    again.restore(tmp_path / "update-000001")
    assert all(torch.equal(a, b) for a, b in zip(again.masters["half"], run.masters["half"], strict=True))


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "opt", "qwen3_moe"])
def test_any_architecture_starts_and_goes_on_from_a_checkpoint(
    name: str, ladder_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """GPT-NeoX and mixtures of experts have other names in files than in memory; GPT-2's critic has
    no `score`."""
    policy = save_tiny(name, ladder_tok, tmp_path / "policy")
    save_model(*new_evaluator(policy), tmp_path / "evaluator")
    job = rl_runs.job(rl_runs.PPO, policy, tmp_path / "evaluator", tmp_path, tmp_path)
    run = Ppo().start(job)
    for model in run.trained.values():
        for parameter in model.parameters():
            parameter.data.add_(0.1)
    run.save(tmp_path / "update-000001", Progress())
    again = Ppo().start(job)
    again.restore(tmp_path / "update-000001")
    for one, other in zip(run.trained.values(), again.trained.values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    options = PpoRl(updates=104, warmup_updates=4)
    scales = [lr_scale(update, options) for update in range(104)]
    assert scales[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert scales[4] == pytest.approx(1.0)
    assert scales[54] == pytest.approx(0.505)  # half-way down the cosine
    assert scales[-1] == pytest.approx(0.01, abs=1e-3)
    assert all(a >= b for a, b in pairwise(scales[4:]))
    assert lr_scale(0, PpoRl(warmup_updates=0)) == 1.0


# Whole runs

SMALL = PpoRl(
    updates=5,
    rollouts=12,
    samples_per_question=2,
    minibatch=4,
    max_new_tokens=12,
    checkpoint_every=2,
    learning_rate=1e-3,
    value_learning_rate=1e-3,
    warmup_updates=1,
    epochs=2,
)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _curves(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out" / "curves.jsonl").read_text().splitlines()]


REPORTED = Recorder()


@pytest.fixture(scope="module")
def whole(
    ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("ppo")
    rl_runs.run(SMALL, ladder_policy, ladder_evaluator, ladder_tables, folder, REPORTED)
    return folder


def test_a_run_tells_what_happened(whole: Path, ladder_policy: Path) -> None:
    points = [(step, values) for step, values in REPORTED.points if "kl" in values]
    assert [step for step, _ in points] == [1, 2, 3, 4, 5]
    own = {"reward", "entropy", "clip_fraction", "explained_variance", "kl_coefficient"}
    assert {
        name for _, values in points for name in values
    } >= WATCHED | own  # few questions: some updates have only one kind
    assert all(value > 0 for _, values in points for name, value in values.items() if "seconds" in name)
    curves = _curves(whole)
    assert [point["update"] for point in curves] == [1, 2, 3, 4, 5]
    assert [p["update"] for p in curves if "easy_validation_accuracy" in p] == [2, 4, 5]
    assert curves[0]["kl"] == pytest.approx(0, abs=1e-6)  # the reference policy drew the first rollouts
    assert abs(curves[-1]["kl"]) > 1e-6
    for point in curves:
        assert all(math.isfinite(value) for value in point.values())
        assert 0 < point["tokens"] <= 12
        assert 0 <= point["no_answer"] <= 1
        assert all(0 <= point[name] <= 1 for name in point if name.startswith("evaluator_"))
        assert point["entropy"] > 0
    before, after = (load_policy(folder)[0].state_dict() for folder in (ladder_policy, whole / "out"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_run_that_had_ended_is_only_written_out_again(
    whole: Path, ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole / "work", tmp_path / "work")
    summary = rl_runs.run(SMALL, ladder_policy, ladder_evaluator, ladder_tables, tmp_path)
    assert summary["updates"] == 5
    assert _files(tmp_path / "out") == _files(whole / "out")


WILD = {"learning_rate": 0.1, "max_kl": 0.2, "updates": 8, "warmup_updates": 0}


def test_a_run_that_strays_stops_and_keeps_the_last_good_policy(
    ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    wild, reported = SMALL.model_copy(update=WILD | {"checkpoint_every": 8}), Recorder()
    summary = rl_runs.run(wild, ladder_policy, ladder_evaluator, ladder_tables, tmp_path, reported)
    assert "above rl.max_kl=0.2" in summary["stopped"]
    assert 0 < summary["updates"] < 8
    _kept_the_first(summary, ladder_policy, tmp_path)
    curves = _curves(tmp_path)
    assert len(curves) == summary["updates"] + 1  # the guard's finding is reported
    assert curves[-1]["kl"] > 0.2
    assert [(step, values["kl"]) for step, values in reported.points] == [
        (point["update"], point["kl"]) for point in curves
    ]


@pytest.mark.parametrize(
    "changed", [{"updates": 1}, {"checkpoint_every": 1}], ids=["the last policy", "a checkpoint"]
)
def test_a_policy_is_kept_only_if_its_own_rollouts_pass_the_guards(
    changed: dict[str, int],
    ladder_policy: Path,
    ladder_evaluator: Path,
    ladder_tables: Path,
    tmp_path: Path,
) -> None:
    """The first update damages the policy, but its rollouts are the SFT policy's, and greedy
    answers stay as good."""
    wild, reported = SMALL.model_copy(update=WILD | changed), Recorder()
    summary = rl_runs.run(wild, ladder_policy, ladder_evaluator, ladder_tables, tmp_path, reported)
    assert "above rl.max_kl=0.2" in summary["stopped"]
    assert summary["updates"] == 1
    _kept_the_first(summary, ladder_policy, tmp_path)
    before, after = _curves(tmp_path)
    assert before["easy_validation_accuracy"] == summary["easy_validation_accuracy"]
    assert before["kl"] < 0.2 < after["kl"]
    assert [step for step, _ in reported.points] == [1, 2]
    assert reported.points[1][1]["kl"] == after["kl"]


def _kept_the_first(summary: dict[str, Any], policy: Path, folder: Path) -> None:
    assert summary["best_update"] == 0
    weights = (folder / "out" / "model.safetensors").read_bytes()
    assert weights == (policy / "model.safetensors").read_bytes()


@pytest.fixture
def biased_evaluator(ladder_evaluator: Path, tmp_path: Path) -> Path:
    """An evaluator like a trained one: its head has a bias."""
    model, tokenizer = load_evaluator(ladder_evaluator)
    torch.nn.init.constant_(model.score.bias, 0.7)
    save_model(model, tokenizer, tmp_path / "evaluator")
    return tmp_path / "evaluator"


def test_the_first_update_by_hand(
    ladder_policy: Path, biased_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    """One batch, one step, a critic of 0: losses and entropy are means over completion tokens."""
    options = SMALL.model_copy(
        update={"updates": 1, "minibatch": 12, "epochs": 1, "temperature": 2.0, "gamma": 1.0, "lam": 1.0}
    )
    rl_runs.run(options, ladder_policy, biased_evaluator, ladder_tables, tmp_path)
    point = _curves(tmp_path)[0]
    policy, tokenizer = load_policy(ladder_policy)
    job = rl_runs.job(options, ladder_policy, biased_evaluator, ladder_tables, tmp_path)
    questions, _ = draw_questions(read_questions(job.inputs, options)[0], options, {}, 0, 0)
    completions = rl_runs.draw(TransformersEngine(policy, tokenizer), questions, options)
    judges = Judges(open_evaluator(biased_evaluator), ExactGrader(), LADDER)
    rollouts = rewarded(completions, tokenizer, judges, options)
    squares, entropies = [], []
    for rollout in rollouts:
        squares += [sum(rollout.rewards[t:]) ** 2 for t in range(len(rollout.rewards))]
        ids = torch.tensor([[*rollout.prompt_ids, *rollout.sample.token_ids]])
        with torch.no_grad():
            log_p = (policy(input_ids=ids).logits[0, len(rollout.prompt_ids) - 1 : -1] / 2.0).log_softmax(-1)
        entropies += (-(log_p.exp() * log_p).sum(-1)).tolist()
    assert point["value_loss"] == pytest.approx(0.5 * sum(squares) / len(squares), rel=1e-4)
    assert point["entropy"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-4)
    assert point["policy_loss"] == pytest.approx(0, abs=1e-4)  # ratio 1, and whitened advantages
    assert point["clip_fraction"] == 0
    assert point["reward"] == pytest.approx(sum(sum(r.rewards) for r in rollouts) / len(rollouts))
    assert point["tokens"] == sum(len(r.rewards) for r in rollouts) / len(rollouts)


def test_more_padding_changes_nothing(
    ladder_policy: Path,
    ladder_evaluator: Path,
    ladder_tables: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rewards, whitening and losses of a batch with forty extra padding tokens."""

    def wider(rollouts: list[Rollout], pad_id: int, device: torch.device) -> Batch:
        batch = collate(rollouts, pad_id, device)
        fills = (pad_id, 0, 0.0, 0.0)
        tensors = (batch.ids, batch.attention, batch.mask, batch.rewards)
        return Batch(
            *(torch.nn.functional.pad(t, (0, 40), value=v) for t, v in zip(tensors, fills, strict=True))
        )

    options = SMALL.model_copy(update={"updates": 1})
    rl_runs.run(options, ladder_policy, ladder_evaluator, ladder_tables, tmp_path / "usual")
    monkeypatch.setattr(loop, "collate", wider)
    rl_runs.run(options, ladder_policy, ladder_evaluator, ladder_tables, tmp_path / "wider")
    usual, padded = (load_file(tmp_path / name / "out" / "model.safetensors") for name in ("usual", "wider"))
    for name, weights in usual.items():
        torch.testing.assert_close(padded[name], weights, rtol=0, atol=1e-4)
    assert _curves(tmp_path / "wider")[0] == pytest.approx(_curves(tmp_path / "usual")[0], abs=1e-4)


def test_the_critic_can_warm_up_alone(
    ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    options = SMALL.model_copy(update={"updates": 2, "value_warmup_updates": 2})
    rl_runs.run(options, ladder_policy, ladder_evaluator, ladder_tables, tmp_path)
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights == (ladder_policy / "model.safetensors").read_bytes()
    saved = rl_runs.learned_weights(tmp_path / "work" / "update-000002")
    critic = [tensor for name, tensor in saved.items() if name.startswith("critic/")]
    assert any(tensor.shape == (1, 32) and tensor.any() for tensor in critic)  # its head


def test_hard_questions_come_without_answers(ladder_tables: Path, ladder_split: ProblemSplit) -> None:
    inputs = {name: ladder_tables / name for name in ("easy_problems", "hard_questions")}
    train, validation = read_questions(inputs, PpoRl())
    easy = {q.problem_id: q.answer for q in train if q.answer is not None}
    assert easy == {p.problem_id: p.answer for p in ladder_split.easy_train}
    assert {q.problem_id for q in train if q.answer is None} == {p.problem_id for p in ladder_split.hard}
    assert {q.problem_id for q in validation} == {p.problem_id for p in ladder_split.easy_validation}
    only_easy, _ = read_questions(inputs, PpoRl(questions="easy"))
    assert {q.problem_id for q in only_easy} == set(easy)


def test_ppo_finds_the_answer_that_is_rewarded(
    ladder_policy: Path, ladder_evaluator: Path, tmp_path: Path
) -> None:
    """A policy that answers one question with any digit; only 6 is rewarded."""
    question, steps = "1+2*2", ("1+2=3",)
    digits = [Problem(f"sft/{i}", 1, "a", question, steps, str(i % 7)) for i in range(28)]
    rl_runs.write_solutions(tmp_path / "sft", digits)
    options = Sft(epochs=25, batch_size=28, learning_rate=2e-2)
    work = Work(tmp_path / "policy", tmp_path / "sft-work", 0)
    train_sft(ladder_policy, tmp_path / "sft", options, MARKED, work)
    gold = [Problem(f"rl/{i}", 1, "a", question, steps, "6") for i in range(9)]
    split = ProblemSplit(tuple(gold[:8]), tuple(gold[8:]), (), ())
    write_table(tmp_path / "easy_problems" / "data.parquet", easy_table(split))
    write_table(tmp_path / "hard_questions" / "data.parquet", question_table(()))
    summary = rl_runs.run(
        PpoRl(
            updates=20,
            rollouts=48,
            samples_per_question=6,
            minibatch=48,
            temperature=1.0,
            max_new_tokens=16,
            checkpoint_every=20,
            learning_rate=5e-3,
            value_learning_rate=1e-2,
            warmup_updates=1,
            process_scale=0.0,
            kl=0.0,
            max_kl=10.0,
        ),
        work.out,
        ladder_evaluator,
        tmp_path,
        tmp_path,
    )
    curves = _curves(tmp_path)
    assert curves[0]["easy_accuracy"] < 0.5
    assert curves[-1]["easy_accuracy"] > 0.9
    assert summary["easy_validation_accuracy"] == 1.0


def test_an_empty_question_table_is_readable(tmp_path: Path, ladder_tables: Path) -> None:
    write_table(tmp_path / "data.parquet", question_table(()))
    inputs = {"easy_problems": ladder_tables / "easy_problems", "hard_questions": tmp_path}
    train, _ = read_questions(inputs, PpoRl())
    assert all(q.answer is not None for q in train)
