"""An evaluator with another tokenizer than the policy's: steps are found in the text, rewards lie on
the policy's tokens, and the critic starts as what can read them."""

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import rl_runs
import torch
from chat_templates import chat_tokenizer
from conftest import save_tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from math_texts import MATH_TEXTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.chat import set_up_chat
from e2h_pipeline.models.classifier import score_head
from e2h_pipeline.models.load import load_evaluator, load_policy, new_evaluator
from e2h_pipeline.models.tokenizer_fit import same_tokens
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Base, OnlineRl
from e2h_pipeline.rewards.evaluators import TokenScorer
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.ppo import Ppo
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Judges, rewarded
from e2h_pipeline.rl.shaping import step_rewards
from e2h_pipeline.solutions import MARKED

CRITIC_ON_POLICY = rl_runs.LORA.model_copy(update={"updates": 2, "max_new_tokens": 12})


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces with a mark for spaces, chosen by likelihood, as those of T5 or Gemma."""
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
        ]
    )
    core.decoder = decoders.Metaspace(prepend_scheme="never")
    letters = [chr(i) for i in range(32, 127)] + ["\n", "▁"]
    core.train_from_iterator(
        MATH_TEXTS * 3,
        trainers.UnigramTrainer(
            vocab_size=300,
            special_tokens=["<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            initial_alphabet=letters,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=1024
    )


UNIGRAM = unigram_tokenizer()


@pytest.fixture(scope="module")
def unigram_evaluator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny evaluator that reads other tokens than any policy here."""
    folder = tmp_path_factory.mktemp("unigram")
    model, tokenizer = new_evaluator(save_tiny_llama(folder / "body", UNIGRAM))
    torch.manual_seed(3)
    torch.nn.init.normal_(score_head(model).weight)
    save_model(model, tokenizer, folder / "evaluator")
    return folder / "evaluator"


@pytest.fixture(scope="module")
def loaded(unigram_evaluator: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    return load_evaluator(unigram_evaluator)


def _chat() -> PreTrainedTokenizerFast:
    tokenizer = chat_tokenizer("qwen")
    set_up_chat(tokenizer, Base(chat=True))
    return tokenizer


STEPS = st.lists(
    st.text("12x= +-*/$\\{}frac", min_size=1, max_size=12).filter(lambda s: s.strip()), min_size=1, max_size=4
)


@pytest.mark.parametrize("policy", ["bpe", "chat", "unigram"])
@settings(max_examples=25, deadline=None)
@given(steps=STEPS, cuts=st.sets(st.integers(1, 60)), finished=st.booleans())
def test_each_reward_lies_on_the_policy_token_that_ends_its_step(
    policy: str,
    steps: list[str],
    cuts: set[int],
    finished: bool,
    bpe_tok: PreTrainedTokenizerFast,
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerFast],
) -> None:
    """Also where the policy spells a text in its own way: here in pieces cut anywhere."""
    tokenizer = {"bpe": bpe_tok, "chat": CHAT, "unigram": UNIGRAM}[policy]
    text = MARKED.completion(steps, "12")
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    ids = [i for piece in pieces for i in tokenizer(piece, add_special_tokens=False)["input_ids"]]
    assert tokenizer.decode(ids) == text
    sample = Sample(
        0,
        text,
        (*ids, tokenizer.eos_token_id) if finished else tuple(ids),
        "stop" if finished else "length",
        0.0,
    )
    options = OnlineRl(outcome_reward=7.0, unfinished_penalty=7.0, step_bonus=0.25)
    evaluator, other = loaded
    judges = Judges(TokenScorer(evaluator, other), ExactGrader(), LADDER)
    (rollout,) = rewarded([(Question("q", "1+2", "12"), sample)], tokenizer, judges, options)
    spans = MARKED.parse(text).spans
    assert len(rollout.ends) == len(spans)
    for end, (_, stop) in zip(rollout.ends, spans, strict=True):
        assert len(tokenizer.decode(ids[:end])) < stop <= len(tokenizer.decode(ids[: end + 1]))
    scores = _scores_alone(evaluator, other, text, finished)
    expected = [0.0] * len(rollout.rewards)
    for end, value in zip(rollout.ends, step_rewards(scores, options), strict=True):
        expected[end] += value
    expected[-1] += 7.0 if finished else -7.0
    assert list(rollout.rewards) == pytest.approx(expected, abs=1e-4)


CHAT = _chat()


def _scores_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, finished: bool
) -> list[float]:
    """Probabilities at the evaluator's token that holds the last character of each step."""
    prompt = tokenizer(MARKED.prompt("1+2"))["input_ids"]
    body = tokenizer(text, return_offsets_mapping=True)
    ids = [*prompt, *body["input_ids"], *([tokenizer.eos_token_id] if finished else [])]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :, 0].tolist()
    holds = [
        next(i for i, (start, end) in enumerate(body["offset_mapping"]) if start < stop <= end)
        for _, stop in MARKED.parse(text).spans
    ]
    return [1 / (1 + math.exp(-logits[len(prompt) + i])) for i in holds]


def test_tokens_are_the_same_where_ids_and_spelling_are(
    bpe_tok: PreTrainedTokenizerFast, ladder_tok: PreTrainedTokenizerFast
) -> None:
    """A template, or further words of the evaluator, change nothing for a reader of the policy's ids."""
    assert same_tokens(bpe_tok, bpe_tok)
    assert same_tokens(chat_tokenizer("qwen"), CHAT)
    longer, respelled = copy.deepcopy(bpe_tok), copy.deepcopy(bpe_tok)
    longer.add_tokens(["<seen by the evaluator>"])
    assert same_tokens(bpe_tok, longer)
    assert not same_tokens(longer, bpe_tok)
    state = json.loads(bpe_tok.backend_tokenizer.to_str())
    state["model"]["merges"].reverse()
    respelled.backend_tokenizer.model = Tokenizer.from_str(json.dumps(state)).model
    assert respelled.get_vocab() == bpe_tok.get_vocab()
    assert not same_tokens(bpe_tok, respelled)
    for one, other in itertools.permutations([bpe_tok, ladder_tok, UNIGRAM], 2):
        assert not same_tokens(one, other)


def _run(options: Any, evaluator: Path, tables: Path, folder: Path) -> dict[str, Any]:
    reporter = rl_runs.Recorder()
    return rl_runs.run(options, rl_runs.SHIPPED, evaluator, tables, folder, reporter)


@pytest.mark.parametrize("rank", [0, 2], ids=["full", "lora"])
@pytest.mark.parametrize("options", [rl_runs.PPO, rl_runs.GRPO], ids=["ppo", "grpo"])
def test_algorithms_learn_from_an_evaluator_of_other_tokens(
    options: OnlineRl, rank: int, unigram_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    own = options.model_copy(update={"updates": 2, "lora_rank": rank, "max_new_tokens": 16})
    summary = _run(own, unigram_evaluator, ladder_tables, tmp_path)
    assert summary["updates"] == 2
    assert summary.get("critic_starts_as") == ("sft_policy" if options.algorithm == "ppo" else None)
    assert summary["final_gradient_norm"] > 0


def test_a_critic_starts_as_the_evaluator_where_tokens_are_the_same(
    ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    job = rl_runs.job(rl_runs.PPO, ladder_policy, ladder_evaluator, ladder_tables, tmp_path)
    run = Ppo().start(job)
    assert run.notes == {"critic_starts_as": "easy_evaluator"}


def test_two_adapters_on_one_body_do_not_touch(
    unigram_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    """Policy and critic on the SFT policy's weights: each learns as if it were alone."""
    job = rl_runs.job(CRITIC_ON_POLICY, rl_runs.SHIPPED, unigram_evaluator, ladder_tables, tmp_path)
    run = Ppo().start(job)
    ids = torch.arange(3, 13).reshape(2, 5)
    with run.using("critic") as critic, torch.no_grad():
        assert critic.base_model is run.policy.base_model
        hidden = critic.base_model(input_ids=ids).last_hidden_state
    torch.manual_seed(5)
    for parameter in run.learning["policy"]:
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    with run.using("critic") as critic, torch.no_grad():
        assert torch.equal(critic.base_model(input_ids=ids).last_hidden_state, hidden)
        score_head(critic).weight.fill_(1.0)
    sft = load_policy(rl_runs.SHIPPED)[0]
    with run.reference() as reference, torch.no_grad():
        assert torch.equal(reference(input_ids=ids).logits, sft(input_ids=ids).logits)
    loss = run.policy(input_ids=ids).logits.logsumexp(-1).mean()
    with run.using("critic") as critic:
        value_loss = critic(input_ids=ids).logits.square().mean()
    _backward(run, "critic", value_loss)
    assert all(p.grad is None for p in run.learning["policy"])
    assert any(p.grad is not None and p.grad.any() for p in run.learning["critic"][:-2])
    run.step("critic")
    _backward(run, "policy", loss)
    assert all(p.grad is None for p in run.learning["critic"])
    assert any(p.grad is not None and p.grad.any() for p in run.learning["policy"])


def _backward(run: Run[Any], name: str, loss: torch.Tensor) -> None:
    with run.using(name):
        loss.backward()


def test_recomputed_activations_are_those_of_the_right_adapter(
    unigram_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    """The backward pass computes the layers again, and two adapters are in them."""
    weights = []
    for recompute in (False, True):
        own = CRITIC_ON_POLICY.model_copy(update={"gradient_checkpointing": recompute})
        _run(own, unigram_evaluator, ladder_tables, tmp_path / str(recompute))
        weights.append(rl_runs.learned_weights(tmp_path / str(recompute) / "work" / "update-000002"))
    assert {name.partition("/")[0] for name in weights[0]} == {"policy", "critic"}
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-4)
