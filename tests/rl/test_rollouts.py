import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import rl_runs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.rewards.evaluators import open_evaluator
from e2h_pipeline.rl.batches import collate, group_ids, step_ends, terminal_rewards
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Judges, Rollout, answer_of, reward, rewarded
from e2h_pipeline.rl.shaping import SCHEMES, step_rewards
from e2h_pipeline.solutions import MARKED

EASY, HARD = Question("e", "1+2*2", "6"), Question("h", "1+2*2", None)
TEXT = "1+2=3\n\n3*2=6\n\n# Answer\n\n6"
OPTIONS = OnlineRl(
    upper_bound=0.5,
    step_bonus=0.3,
    process_scale=2.0,
    outcome_reward=1.0,
    hard_constant=0.25,
    unfinished_penalty=1.5,
)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _sample(tokenizer: PreTrainedTokenizerFast, text: str, finished: bool = True) -> Sample:
    ids = tokenizer(text)["input_ids"] + ([tokenizer.eos_token_id] if finished else [])
    return Sample(0, text, tuple(ids), "stop" if finished else "length", -1.0)


def _reward(
    tokenizer: PreTrainedTokenizerFast,
    question: Question,
    sample: Sample,
    logits: Sequence[float],
    right: bool | None,
    options: OnlineRl,
) -> Rollout:
    return reward((question, sample), logits, right, tokenizer, LADDER, options)


# Rewards of one rollout


def test_rewards_stand_on_the_tokens_that_end_the_segments(ladder_tok: PreTrainedTokenizerFast) -> None:
    # 1 + 2 = 3 \n\n | 3 * 2 = 6 \n\n | # Answer \n\n 6 | end: segments end at 5, 11 and 14, the
    # text at 15
    rollout = _reward(
        ladder_tok, EASY, _sample(ladder_tok, TEXT), [_logit(p) for p in (0.9, 0.3, 0.4)], True, OPTIONS
    )
    expected = [0.0] * 16
    expected[5], expected[11], expected[14] = 2 * 0.1, 2 * (-0.2 + 0.1), 2 * 0.1
    expected[15] = 1.0
    assert list(rollout.rewards) == pytest.approx(expected)
    assert rollout.evaluator_score == pytest.approx(0.3)
    assert (rollout.steps, rollout.answer, rollout.right) == (2, "6", True)
    assert (rollout.ends, rollout.terminal) == ((5, 11, 14), 1.0)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_recipe_names_the_shaping(ladder_tok: PreTrainedTokenizerFast, name: str) -> None:
    options = OPTIONS.model_copy(update={"shaping": name})
    logits = [_logit(p) for p in (0.9, 0.3, 0.4)]
    rollout = _reward(ladder_tok, HARD, _sample(ladder_tok, TEXT), logits, None, options)
    paid = [rollout.rewards[end] for end in rollout.ends]
    assert paid == pytest.approx([2 * value for value in step_rewards([0.9, 0.3, 0.4], options)])
    assert sum(rollout.rewards) == pytest.approx(sum(paid) + 0.25)
    wrong = _reward(
        ladder_tok, HARD, _sample(ladder_tok, "1+2=0\n\n# Answer\n\n6"), [-30.0] * 2, None, options
    )
    none = _reward(ladder_tok, HARD, _sample(ladder_tok, "# Answer\n\n6"), [-30.0], None, options)
    assert sum(none.rewards) < sum(wrong.rewards) or name == "clip"
    assert none.ends == (len(none.rewards) - 1,)


@pytest.mark.parametrize(
    ("question", "right", "terminal"), [(EASY, True, 1.0), (EASY, False, 0.0), (HARD, None, 0.25)]
)
def test_the_last_token_has_the_terminal_reward(
    ladder_tok: PreTrainedTokenizerFast, question: Question, right: bool | None, terminal: float
) -> None:
    rollout = _reward(ladder_tok, question, _sample(ladder_tok, TEXT), [9.0] * 3, right, OPTIONS)
    assert rollout.rewards[-1] == terminal


def test_a_cut_off_solution_pays_on_its_last_token(ladder_tok: PreTrainedTokenizerFast) -> None:
    sample = _sample(ladder_tok, "1+2=3\n\n3*", finished=False)
    rollout = _reward(ladder_tok, HARD, sample, [_logit(0.9), _logit(0.1)], None, OPTIONS)
    assert rollout.rewards[5] == pytest.approx(2 * 0.15)
    assert rollout.rewards[-1] == pytest.approx(2 * (0.1 - 0.5 + 0.15) - 1.5)
    assert rollout.answer is None


def test_an_answer_that_was_cut_off_is_none(ladder_tok: PreTrainedTokenizerFast) -> None:
    assert answer_of(_sample(ladder_tok, TEXT), LADDER) == "6"
    assert answer_of(_sample(ladder_tok, TEXT, finished=False), LADDER) is None
    assert answer_of(_sample(ladder_tok, "1+2=3"), LADDER) is None


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_solution_without_a_step_gets_the_worst(ladder_tok: PreTrainedTokenizerFast, text: str) -> None:
    rollout = _reward(ladder_tok, HARD, _sample(ladder_tok, text), [], None, OPTIONS)
    assert sum(rollout.rewards) == pytest.approx(2 * -0.5 - 1.5)
    wrong = _reward(ladder_tok, HARD, _sample(ladder_tok, "1+2=0"), [-30.0], None, OPTIONS)
    assert sum(rollout.rewards) < sum(wrong.rewards)


@settings(deadline=None, max_examples=60)
@given(
    st.text(alphabet="12+=\n", max_size=30),
    st.booleans(),
    st.lists(st.floats(-40, 40), min_size=30, max_size=30),
)
def test_rewards_are_bounded_whatever_is_written(
    bpe_tok: PreTrainedTokenizerFast, text: str, finished: bool, logits: list[float]
) -> None:
    text = text + "\n\n# Answer\n\n3"
    segments = len(MARKED.parse(text).spans)
    rollout = _reward(bpe_tok, EASY, _sample(bpe_tok, text, finished), logits[:segments], True, OPTIONS)
    assert len(rollout.rewards) == len(rollout.sample.token_ids)
    assert 2 * -0.5 - 1.5 <= sum(rollout.rewards) <= 2 * 0.3 + 1.0 + 1e-9
    worst = min(1 / (1 + math.exp(-x)) for x in logits[:segments])
    process = min(0.5, worst) - 0.5 + 0.3 if MARKED.parse(text).steps else -0.5
    expected = 2 * process + (1.0 if finished else -1.5)
    assert sum(rollout.rewards) == pytest.approx(expected, abs=1e-6)


def test_rewards_find_their_tokens_in_any_spelling(bpe_tok: PreTrainedTokenizerFast) -> None:
    """The policy wrote the text byte by byte; each step's reward lies on its last byte."""
    ids = bpe_tok.convert_tokens_to_ids(list("".join(bpe_tok.tokenize(TEXT))))
    sample = Sample(0, TEXT, (*ids, bpe_tok.eos_token_id), "stop", -1.0)
    rollout = _reward(bpe_tok, HARD, sample, [_logit(0.9), _logit(0.3), _logit(0.1)], None, OPTIONS)
    paid = [i for i, value in enumerate(rollout.rewards) if value != 0]
    assert [bpe_tok.decode(ids[: i + 1]) for i in paid[:-1]] == ["1+2=3\n\n", "1+2=3\n\n3*2=6\n\n", TEXT]
    assert paid[-1] == len(ids)


# Batches


def _rollout(prompt: int, rewards: Sequence[float]) -> Rollout:
    sample = Sample(0, "", tuple(range(10, 10 + len(rewards))), "stop", 0.0)
    return Rollout(EASY, tuple(range(1, 1 + prompt)), sample, tuple(rewards), 0.5, 1, "6", True)


def test_a_batch_by_hand() -> None:
    batch = collate([_rollout(2, [0.5, -1.0]), _rollout(1, [0.0, 0.0, 2.0, 1.0])], 0, torch.device("cpu"))
    assert batch.ids.tolist() == [[1, 2, 10, 11, 0], [1, 10, 11, 12, 13]]
    assert batch.attention.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert batch.mask.tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert batch.rewards.tolist() == [[0, 0, 0.5, -1, 0], [0, 0, 0, 2, 1]]


@given(st.lists(st.tuples(st.integers(1, 5), st.lists(st.floats(-1, 1), min_size=1, max_size=6)), min_size=1))
def test_no_reward_is_lost_or_lies_outside_the_completion(rows: list[tuple[int, list[float]]]) -> None:
    batch = collate([_rollout(prompt, rewards) for prompt, rewards in rows], 0, torch.device("cpu"))
    assert not batch.rewards[batch.mask == 0].any()
    assert not batch.mask[batch.attention == 0].any()
    for i, (prompt, rewards) in enumerate(rows):
        assert batch.rewards[i].sum().item() == pytest.approx(sum(rewards), abs=1e-5)
        assert int(batch.mask[i].sum()) == len(rewards)
        assert int(batch.attention[i].sum()) == prompt + len(rewards)


def test_rewards_come_apart_into_steps_and_terminal(ladder_tok: PreTrainedTokenizerFast) -> None:
    whole = _reward(ladder_tok, EASY, _sample(ladder_tok, TEXT), [9.0, -9.0, 9.0], True, OPTIONS)
    sample = _sample(ladder_tok, "1+2=3\n\n3*", finished=False)
    cut = _reward(ladder_tok, HARD, sample, [_logit(0.9), _logit(0.1)], None, OPTIONS)
    empty = _reward(ladder_tok, HARD, _sample(ladder_tok, ""), [], None, OPTIONS)
    rollouts = [whole, cut, empty]
    batch = collate(rollouts, 0, torch.device("cpu"))
    ends, terminal = step_ends(rollouts, batch), terminal_rewards(rollouts, batch)
    prompts = [len(r.prompt_ids) for r in rollouts]
    assert [row.nonzero().flatten().tolist() for row in ends] == [
        [prompts[0] + 5, prompts[0] + 11, prompts[0] + 14],
        [prompts[1] + 5, prompts[1] + 7],
        [prompts[2]],
    ]
    assert terminal.sum(1).tolist() == [1.0, -1.5, -1.5]
    steps = batch.rewards - terminal
    assert steps[ends == 0].abs().max() == 0
    assert steps[1][ends[1] == 1].tolist() == pytest.approx([2 * 0.15, 2 * (0.1 - 0.5 + 0.15)], abs=1e-6)
    assert steps[2].sum().item() == pytest.approx(2 * -0.5, abs=1e-6)
    assert not (ends + terminal.abs())[batch.mask == 0].any()


def test_rollouts_of_a_question_are_a_group(ladder_tok: PreTrainedTokenizerFast) -> None:
    rollouts = [
        _reward(ladder_tok, question, _sample(ladder_tok, TEXT), [9.0] * 3, None, OPTIONS)
        for question in (HARD, EASY, HARD)
    ]
    assert group_ids(rollouts, torch.device("cpu")).tolist() == [0, 1, 0]


# Rollouts from a live policy


@pytest.fixture(scope="module")
def engine(ladder_policy: Path) -> TransformersEngine:
    return load_engine("transformers", ladder_policy)  # type: ignore[return-value]


def _roll_out(
    engine: TransformersEngine, evaluator: Path, questions: list[Question], update: int = 0
) -> list[Rollout]:
    options = OnlineRl(samples_per_question=3, max_new_tokens=16, temperature=2.5)
    completions = rl_runs.draw(engine, questions, options, update)
    judges = Judges(open_evaluator(evaluator), ExactGrader(), LADDER)
    return rewarded(completions, engine.tokenizer, judges, options)


def test_hard_questions_are_never_graded(engine: TransformersEngine, ladder_evaluator: Path) -> None:
    questions = [Question(f"e{i}", "1+2", "3") for i in range(20)] + [
        Question(f"h{i}", "1+2", None) for i in range(20)
    ]
    rollouts = _roll_out(engine, ladder_evaluator, questions)
    assert len(rollouts) == 120
    for rollout in rollouts:
        if rollout.question.answer is None:
            assert rollout.right is None
        else:
            assert rollout.right is (rollout.answer == "3")
        assert len(rollout.rewards) == len(rollout.sample.token_ids)
        assert 0 <= rollout.evaluator_score <= 1
    assert any(rollout.steps > 1 for rollout in rollouts)


def test_each_update_draws_anew_and_the_same_when_repeated(
    engine: TransformersEngine, ladder_evaluator: Path
) -> None:
    first, again, second = (_roll_out(engine, ladder_evaluator, [EASY], update) for update in (0, 0, 1))
    assert first == again
    assert {r.sample.token_ids for r in first}.isdisjoint({r.sample.token_ids for r in second})


def test_a_question_that_comes_twice_in_an_update_is_answered_anew(
    engine: TransformersEngine, ladder_evaluator: Path
) -> None:
    rollouts = _roll_out(engine, ladder_evaluator, [EASY, HARD, EASY])
    first, second = rollouts[:3], rollouts[6:]
    assert {r.sample.token_ids for r in first}.isdisjoint({r.sample.token_ids for r in second})
