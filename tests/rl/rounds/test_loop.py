import json
import math
from pathlib import Path

import pyarrow.compute as pc
import pytest
import rl_runs
import torch
from rl_runs import SHIPPED, WATCHED, Recorder
from safetensors.torch import load_file

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.problems.records import ProblemSplit, question_table
from e2h_pipeline.recipe import PreferenceRl, RestEmRl, RoundsRl, Sft
from e2h_pipeline.rl.questions import Question, read_questions
from e2h_pipeline.rl.rollouts import Rollout
from e2h_pipeline.rl.rounds import preference_losses as preference
from e2h_pipeline.rl.rounds.preference import IterativePreference, pair_losses
from e2h_pipeline.rl.rounds.rest_em import RestEm
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.training.batches import Example
from e2h_pipeline.training.sft import train_sft

REST = rl_runs.REST.model_copy(update={"max_new_tokens": 60, "max_kl": 0.5, "probe_questions": 2560})
DPO = rl_runs.DPO.model_copy(
    update={"samples": 6, "max_new_tokens": 60, "max_kl": 0.5, "probe_questions": 2560}
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory, ladder_tables: Path) -> Path:
    """The shipped base model after a little SFT; it is sometimes right."""
    folder = tmp_path_factory.mktemp("rounds-policy")
    options = Sft(epochs=6, batch_size=16, learning_rate=3e-4)
    work = Work(folder / "out", folder / "work", 0)
    train_sft(SHIPPED, ladder_tables / "easy_solutions", options, MARKED, work)
    return folder / "out"


def solution(problem: str, answer: str, work: str, score: float, gold: str | None) -> Rollout:
    text = f"{work}\n\n# Answer\n\n{answer}"
    sample = Sample(0, text, tuple(text.encode()), "stop", -2.0)
    question = Question(problem, "q", gold, hard=gold is None)
    return Rollout(question, (1, 2), sample, (), score, 1, answer, None if gold is None else answer == gold)


def text_of(example: Example) -> str:
    """The completion after a prompt of two tokens; here a token is a byte."""
    return bytes(int(token) for token in example["input_ids"][2:]).decode()


# What is chosen


def test_rest_keeps_right_solutions_once_each_and_few_of_a_question() -> None:
    right = [solution("e", "6", f"1+{i}=6", 0.1, "6") for i in range(5)]
    twice, wrong = solution("e", "6", "1+0=6", 0.1, "6"), solution("e", "5", "1+9=5", 0.9, "6")
    options = RestEmRl(per_question=3)
    chosen, counts = RestEm().choose(
        [*right, twice, wrong, solution("f", "1", "0+0=1", 0.9, "2")], ExactGrader().classes, options, 0, 1
    )
    texts = {text_of(example) for example in chosen}
    assert len(chosen) == len(texts) == 3
    assert texts <= {r.sample.completion for r in right}
    assert counts == {"questions": 2, "questions_without_right": 1}
    assert all(example["labels"][:2] == [-100, -100] for example in chosen)
    assert all(example["labels"][2:] == example["input_ids"][2:] for example in chosen)


def test_rest_takes_the_weighted_votes_winner_where_no_answer_may_be_seen() -> None:
    solved = [
        solution("h", "3", "1+2=3", 0.9, None),
        solution("h", "4", "1+2=4", 0.3, None),
        solution("h", "4", "2+1=4", 0.3, None),
    ]
    chosen, _ = RestEm().choose(solved, ExactGrader().classes, RestEmRl(), 0, 1)
    assert [text_of(example) for example in chosen] == [solved[0].sample.completion]


def test_pairs_become_examples_with_what_the_drawing_policy_gave() -> None:
    solved = [solution("e", "6", "1+5=6", 0.9, "6"), solution("e", "5", "1+9=5", 0.2, "6")]
    chosen, counts = IterativePreference().choose(solved, ExactGrader().classes, PreferenceRl(), 0, 1)
    [example] = chosen
    first, second = (2 + len(s.sample.token_ids) for s in solved)
    assert counts["pairs"] == 1
    assert example["lengths"] == [first, second]
    labels = example["labels"]
    assert [labels[first - 1], labels[-1]] == [1.0, 0.0]
    assert sum(label != -100 for label in labels) == 2
    assert sum(example["mask"]) == first + second - 4
    assert [example["reference"][first - 1], example["reference"][-1], sum(example["reference"])] == [
        -2,
        -2,
        -4,
    ]


def test_the_evaluator_has_no_say_in_pairs_where_it_need_not_agree() -> None:
    solved = [solution("e", "6", "1+5=6", 0.1, "6"), solution("e", "5", "1+9=5", 0.9, "6")]
    with_evaluator, _ = IterativePreference().choose(solved, ExactGrader().classes, PreferenceRl(), 0, 1)
    alone = PreferenceRl(evaluator_agrees=False)
    outcome_only, _ = IterativePreference().choose(solved, ExactGrader().classes, alone, 0, 1)
    assert (len(with_evaluator), len(outcome_only)) == (0, 1)


@pytest.mark.parametrize("name", ["dpo", "sppo", "simpo", "orpo"])
def test_the_loss_of_a_batch_is_that_of_its_pairs(name: str) -> None:
    options = PreferenceRl.model_validate({"loss": name, "beta": 0.3, "gamma": 0.2, "odds_weight": 0.4})
    sums, reference = torch.tensor([-3.0, -8.0, -2.0, -1.0]), torch.tensor([-4.0, -7.0, -2.0, -3.0])
    mask = torch.tensor([[1.0, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]])
    ratios, means = sums - reference, sums / torch.tensor([2.0, 3, 1, 2])
    expected = {
        "dpo": preference.dpo(ratios[[0, 2]], ratios[[1, 3]], 0.3),
        "sppo": preference.sppo(ratios[[0, 2]], ratios[[1, 3]], 0.3),
        "simpo": preference.simpo(means[[0, 2]], means[[1, 3]], 0.3, 0.2),
        "orpo": preference.orpo(means[[0, 2]], means[[1, 3]], 0.4),
    }[name]
    torch.testing.assert_close(pair_losses(sums, reference, mask, options), expected)


# Runs


@pytest.mark.parametrize("options", [REST, DPO], ids=["rest", "dpo"])
def test_a_run_leaves_policy_curves_and_rollouts(
    options: RoundsRl, policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    reported = Recorder()
    summary = rl_runs.run(options, policy, ladder_evaluator, ladder_tables, tmp_path, reported)
    assert (summary["updates"], summary["stopped"]) == (2, None)
    curves = [json.loads(line) for line in (tmp_path / "out" / "curves.jsonl").read_text().splitlines()]
    points = [(step, values) for step, values in reported.points if "kl" in values]
    assert [step for step, _ in points] == [1, 2]
    for (_, values), point in zip(points, curves, strict=True):
        assert values.keys() >= WATCHED | {"loss", "easy_validation_accuracy"}
        assert all(values[name] > 0 for name in WATCHED if name.startswith("seconds"))
        assert sum(values[name] for name in WATCHED if name.startswith("seconds")) < values["seconds"]
        assert not any(name.startswith("seconds") for name in point)  # a run done again gives the same file
    assert all(math.isfinite(value) for point in curves for value in point.values())
    assert curves[0]["kl"] == pytest.approx(0, abs=1e-4)  # the policy at the start of the round drew
    assert curves[1]["kl"] != pytest.approx(0, abs=1e-4)
    assert curves[0]["after_kl"] != pytest.approx(0, abs=1e-4)  # the policy at the end of the round
    accuracies = [point["easy_validation_accuracy"] for point in curves]
    assert summary["easy_validation_accuracy"] >= max(accuracies)
    load_policy(tmp_path / "out")
    rollouts = read_table(tmp_path / "out" / "rollouts.parquet")
    hard = rollouts.filter(pc.greater_equal(rollouts["level"], 4))
    inputs = {name: ladder_tables / name for name in ("easy_problems", "hard_questions")}
    questions, drawn = len(read_questions(inputs, options)[0]), options.samples
    assert rollouts.num_rows == 2 * questions * drawn
    assert hard["right"].null_count == hard.num_rows > 0
    assert rollouts["kl"].null_count == 2 * questions * (drawn - 1)
    assert not list((tmp_path / "work").glob("round-*/pool"))


def test_dpo_starts_at_log_two(
    policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    """The policy that drew is the reference, so at a tiny learning rate each loss is log 2."""
    options = DPO.model_copy(update={"learning_rate": 1e-12, "rounds": 1})
    rl_runs.run(options, policy, ladder_evaluator, ladder_tables, tmp_path)
    [curve] = (tmp_path / "out" / "curves.jsonl").read_text().splitlines()
    assert json.loads(curve)["loss"] == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize("options", [REST, DPO], ids=["rest", "dpo"])
def test_rest_starts_over_from_the_base_model_and_dpo_goes_on(
    options: RoundsRl, policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    """At a tiny learning rate a round ends where it began; the policy that draws is not the base
    model."""
    still = options.model_copy(update={"learning_rate": 1e-12, "rounds": 1, "epochs": 1})
    rl_runs.run(still, policy, ladder_evaluator, ladder_tables, tmp_path)
    base, drew = (load_file(folder / "model.safetensors") for folder in (SHIPPED, policy))
    assert not _close(base, drew)
    ended = load_file(tmp_path / "work" / "round-01" / "policy" / "model.safetensors")
    assert _close(ended, base if options is REST else drew)


def _close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(tensor, other[name], atol=1e-6) for name, tensor in one.items())


def test_a_round_that_chooses_nothing_ends_the_run_with_the_policy_it_had(
    ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    """A random policy never ends its solutions, so there is nothing to choose from."""
    options = REST.model_copy(update={"max_new_tokens": 2})
    summary = rl_runs.run(options, ladder_policy, ladder_evaluator, ladder_tables, tmp_path)
    assert summary["updates"] == 0
    assert "no solutions were chosen" in summary["stopped"]
    kept = load_policy(tmp_path / "out")[0].state_dict()
    assert all(torch.equal(kept[k], v) for k, v in load_policy(ladder_policy)[0].state_dict().items())


def test_hard_answers_reach_training_in_controls_alone(
    ladder_split: ProblemSplit, ladder_tables: Path, tmp_path: Path
) -> None:
    write_table(tmp_path / "data.parquet", question_table(ladder_split.hard, with_answers=True))
    strict = {name: ladder_tables / name for name in ("easy_problems", "hard_questions")}
    control = strict | {"hard_questions": tmp_path}
    known, hidden = (read_questions(inputs, RestEmRl(questions="hard"))[0] for inputs in (control, strict))
    assert [q.answer for q in known] == [p.answer for p in ladder_split.hard]
    assert {q.answer for q in hidden} == {None}
    assert all(q.hard for q in (*known, *hidden))
