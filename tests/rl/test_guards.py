import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import rl_runs
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.problems.records import Problem, ProblemSplit, easy_table, question_table
from e2h_pipeline.recipe import (
    GrpoRl,
    Guards,
    OnlineRl,
    PpoRl,
    PrmReward,
    RestEmRl,
    RewardTraining,
    Rl,
    Sft,
)
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.rl.algorithms import BASE_MODEL
from e2h_pipeline.rl.guards import Metrics, trouble
from e2h_pipeline.rl.rounds.rest_em import RestEm
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.training.sft import train_sft

GOOD = {
    "kl": 0.01,
    "no_answer": 0.05,
    "one_step": 0.1,
    "repeated_steps": 0.0,
    "steps_level_1": 2.0,
    "steps_level_5": 6.5,
    "evaluator_easy": 0.7,
    "evaluator_hard": 0.5,
    "gradient_norm": 1.0,
}
OPTIONS = PpoRl(guards=Guards(window=3, hack_window=4))


def _history(*parts: tuple[int, dict[str, float]]) -> list[Metrics]:
    """The given number of updates of each part, good except for the given metrics."""
    return [{**GOOD, **changed} for updates, changed in parts for _ in range(updates)]


def _trouble(history: list[Metrics], options: Rl = OPTIONS) -> str | None:
    return trouble(history, options, best_update=0, best_accuracy=0.0)


def test_a_good_run_goes_on() -> None:
    history = _history((12, {}))
    assert all(_trouble(history[: i + 1]) is None for i in range(len(history)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_stops_the_run(bad: float) -> None:
    reason = _trouble([{"kl": 0.1, "policy_loss": bad}])
    assert reason == f"policy_loss is {bad}, not a finite number; lower rl.learning_rate"
    assert "kl is" in str(_trouble([{"kl": bad}]))


def test_too_far_from_the_sft_policy() -> None:
    options = PpoRl(max_kl=2.0)
    assert _trouble([{"kl": 2.0, "reward": -3.0}], options) is None
    assert "2.10 per token, above rl.max_kl=2.0; raise rl.kl" in str(_trouble([{"kl": 2.1}], options))


@pytest.mark.parametrize(
    ("name", "field", "start"),
    [
        ("no_answer", "unfinished", 0.05),
        ("one_step", "one_step", 0.1),
        ("repeated_steps", "repeated_steps", 0.0),
    ],
)
def test_more_of_a_vice(name: str, field: str, start: float) -> None:
    assert _trouble(_history((3, {}), (3, {name: start + 0.29}))) is None
    assert _trouble(_history((3, {}), (2, {name: 1.0}))) is None  # the windows still overlap
    reason = str(_trouble(_history((3, {}), (3, {name: start + 0.4}))))
    assert f"{name} is {start + 0.4:.2f} over its last 3 updates, {start:.2f} over its first 3" in reason
    assert f"rl.guards.{field}=0.3" in reason
    # Two of three updates are high: 2/3 of 0.4 is 0.27, of 0.5 it is 0.33
    assert _trouble(_history((4, {}), (2, {name: start + 0.4}))) is None
    assert _trouble(_history((4, {}), (2, {name: start + 0.5})))


def test_answers_that_look_at_nothing() -> None:
    history = _history((3, {"blind": 0.05}), (3, {"blind": 0.2}))
    assert "blind is 0.20 over its last 3 updates, 0.05 over its first 3" in str(_trouble(history))
    assert "rl.guards.blind=0.1; answers do not look" in str(_trouble(history))
    assert _trouble(_history((3, {"blind": 0.05}), (3, {"blind": 0.1}))) is None


def test_a_policy_that_always_had_a_vice_may_go_on() -> None:
    assert _trouble(_history((12, {"no_answer": 0.8, "one_step": 1.0, "repeated_steps": 0.9}))) is None


@pytest.mark.parametrize(("steps", "says"), [(10.0, "more_steps=1.4"), (4.5, "fewer_steps=0.7")])
def test_other_lengths_of_one_level(steps: float, says: str) -> None:
    """Fewer steps is the hack of docs/log.md, seed 12: only long problems lost steps."""
    reason = str(_trouble(_history((3, {}), (3, {"steps_level_5": steps}))))
    assert f"steps_level_5 is {steps:.2f} over its last 3 updates, 6.50 over its first 3" in reason
    assert f"rl.guards.{says}" in reason


@pytest.mark.parametrize("steps", [8.9, 4.6])
def test_somewhat_other_lengths(steps: float) -> None:
    assert _trouble(_history((3, {}), (3, {"steps_level_5": steps}))) is None


def test_a_level_is_compared_with_its_own_first_updates() -> None:
    """Level 5 enters late, as in a curriculum; its long solutions are not a rise."""
    history = [{**GOOD} for _ in range(9)]
    for metrics in history[:6]:
        del metrics["steps_level_5"]
    assert _trouble(list(history)) is None
    assert "steps_level_5" in str(_trouble([*history, *_history((3, {"steps_level_5": 12.0}))]))


def test_a_policy_that_starts_without_steps_may_learn_to_write_one() -> None:
    assert _trouble(_history((3, {"steps_level_1": 0.0}), (3, {"steps_level_1": 1.4}))) is None
    assert _trouble(_history((3, {"steps_level_1": 0.0}), (3, {"steps_level_1": 1.5})))


def test_rollouts_fall_behind_what_the_evaluator_thinks_of_them() -> None:
    """The hack that GRPO found on the ladder (docs/log.md): accuracy .72 to .60, evaluator's mean
    .63 to .68."""
    before = {"easy_accuracy": 0.72, "evaluator_easy": 0.63}
    reason = str(_trouble(_history((3, before), (3, {"easy_accuracy": 0.6, "evaluator_easy": 0.68}))))
    assert "easy_accuracy is 0.60 over its last 3 updates, 0.72 over its first 3" in reason
    assert "0.17 apart, more than rl.guards.hack_fall=0.1" in reason


@pytest.mark.parametrize(
    ("right", "liked"),
    [
        (0.6, 0.54),  # harder questions: both fall
        (0.73, 0.9),  # the evaluator's mean rises, accuracy stays
        (0.5, 0.64),  # worse, but no hack
        (0.7, 0.7),  # 0.02 + 0.07: not far apart
    ],
)
def test_rollouts_do_not_fall_behind(right: float, liked: float) -> None:
    before = {"easy_accuracy": 0.72, "evaluator_easy": 0.63}
    assert _trouble(_history((3, before), (3, {"easy_accuracy": right, "evaluator_easy": liked}))) is None


def _validated(*accuracies: float, evaluator: float) -> list[Metrics]:
    """A checkpoint every second update; the evaluator's mean on hard questions from update 5 on."""
    history = _history((4, {}), (2 * len(accuracies) - 4, {"evaluator_hard": evaluator}))
    return [
        {**metrics, "easy_validation_accuracy": accuracies[i // 2]} if i % 2 else metrics
        for i, metrics in enumerate(history)
    ]


def test_the_evaluator_is_happier_while_easy_validation_falls() -> None:
    history = _validated(0.8, 0.85, 0.7, 0.7, evaluator=0.55)
    reason = str(trouble(history, OPTIONS, best_update=4, best_accuracy=0.85))
    assert "easy_validation_accuracy is 0.700 at best in the last 4 updates" in reason
    assert "rl.guards.hack_fall=0.1 below the 0.850 of update 4" in reason
    assert "evaluator_hard rose from 0.500 to 0.550, more than rl.guards.hack_rise=0.02" in reason


def test_the_sft_policy_can_be_the_best() -> None:
    history = _validated(0.7, 0.7, 0.7, 0.7, evaluator=0.55)
    assert "below the 0.850 of update 0" in str(trouble(history, OPTIONS, 0, 0.85))


@pytest.mark.parametrize(
    ("accuracies", "evaluator"),
    [
        ((0.8, 0.85, 0.7, 0.7), 0.51),  # the evaluator hardly moved
        ((0.8, 0.85, 0.7, 0.7), 0.3),  # it fell too: worse, but no hack
        ((0.8, 0.85, 0.76, 0.7), 0.6),  # one checkpoint of the window is close to the best
        ((0.8, 0.85, 0.9, 0.95), 0.9),  # everything rises
    ],
)
def test_no_hack(accuracies: tuple[float, ...], evaluator: float) -> None:
    history = _validated(*accuracies, evaluator=evaluator)
    assert trouble(history, OPTIONS, best_update=4, best_accuracy=0.85) is None


def test_a_history_that_begins_with_the_sft_policy_is_counted_from_it() -> None:
    """Rounds: the best is round 1, with an evaluator's mean of .6. Counted from 1, it would be the
    .5 before."""
    means = ((0.5, 0.7), (0.6, 0.85), (0.61, 0.7))
    history = [
        {**GOOD, "evaluator_hard": mean, "easy_validation_accuracy": accuracy} for mean, accuracy in means
    ]
    options = PpoRl(guards=Guards(window=1, hack_window=1))
    assert trouble(history, options, 1, 0.85, begins=0) is None
    assert "rose from 0.500 to 0.610" in str(trouble(history, options, 1, 0.85))


def test_no_hack_is_seen_without_validation_or_in_the_first_window() -> None:
    assert trouble(_history((4, {}), (8, {"evaluator_hard": 0.9})), OPTIONS, 0, 0.85) is None
    assert trouble(_history((1, {}), (3, {"evaluator_hard": 0.9})), OPTIONS, 0, 0.85) is None
    assert trouble(_validated(0.5, 0.5, evaluator=0.9), OPTIONS, 0, 0.85) is None


def test_every_share_and_fall_can_be_turned_off() -> None:
    off = Guards(
        window=1, hack_window=1, unfinished=1, one_step=1, repeated_steps=1, fewer_steps=0, hack_fall=1
    )
    worst = dict.fromkeys(("no_answer", "one_step", "repeated_steps"), 1.0)
    history: list[Metrics] = [
        {**GOOD, **dict.fromkeys(worst, 0.0), "evaluator_easy": 0.0, "easy_accuracy": 1.0},
        {
            **GOOD,
            **worst,
            "steps_level_5": 0.0,
            "evaluator_easy": 1.0,
            "evaluator_hard": 1.0,
            "easy_accuracy": 0.0,
            "easy_validation_accuracy": 0.0,
        },
    ]
    assert trouble(history, PpoRl(guards=off), 0, 1.0) is None


def test_a_policy_that_runs_away_at_once_is_not_its_own_measure() -> None:
    """Means of the first and last three are 0.8 and 1, but the SFT policy's own update had 0.5."""
    history = _history(*[(1, {"no_answer": share}) for share in (0.5, 0.9, 1.0, 1.0, 1.0, 1.0)])
    assert "0.80 over its first 3 and 0.50 in the very first" in str(_trouble(history))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 6), st.floats(0, 1))
def test_a_share_stops_the_run_by_its_means_and_its_first_value(
    shares: list[float], window: int, limit: float
) -> None:
    options = PpoRl(guards=Guards(window=window, unfinished=limit))
    found = _trouble([{"kl": 0.0, "no_answer": share} for share in shares], options)
    first, last = (sum(part) / window for part in (shares[:window], shares[-window:]))
    assert (found is not None) == (len(shares) >= 2 * window and last - min(first, shares[0]) > limit)


# Real runs with tiny models and one question. Each hack is really learned, and one guard at a time
# must find it.

QUESTION = "1+2*2"
CHAIN = ("1+2=3", "3*2=6", "6+0=6", "6*1=6", "6+1=0")
OFF = {
    "unfinished": 1,
    "one_step": 1,
    "repeated_steps": 1,
    "more_steps": 1000,
    "fewer_steps": 0,
    "hack_fall": 1,
}
ON = Guards().model_dump()


def _policy(base: Path, folder: Path, *solutions: tuple[tuple[str, ...], str]) -> Path:
    """A policy that gives these solutions equally often."""
    problems = [
        Problem(f"sft/{i}/{j}", 1, "a", QUESTION, steps, answer)
        for j, (steps, answer) in enumerate(solutions)
        for i in range(8)
    ]
    rl_runs.write_solutions(folder / "sft", problems)
    options = Sft(epochs=30, batch_size=40, learning_rate=2e-2)
    train_sft(base, folder / "sft", options, MARKED, Work(folder / "policy", folder / "sft-work", 0))
    return folder / "policy"


def _evaluator(base: Path, folder: Path, *judged: tuple[tuple[str, ...], list[int]]) -> Path:
    """An evaluator that gives these marks to these steps and to the answer after them."""
    rows = [
        {
            "problem_id": f"{i}/{j}",
            "level": 1,
            "sample": 0,
            "split": "train",
            "question": QUESTION,
            "completion": MARKED.completion(steps, "6"),
            "labels": marks,
            "outcome": 1,
            "finished": True,
        }
        for j, (steps, marks) in enumerate(judged)
        for i in range(8)
    ]
    write_table(folder / "labels" / "data.parquet", pa.Table.from_pylist(rows))
    options = PrmReward(training=RewardTraining(epochs=20, batch_size=16, learning_rate=1e-2))
    work = Work(folder / "evaluator", folder / "evaluator-work", 0)
    train_reward_model(base, {"steps": folder / "labels"}, options, MARKED, work)
    return work.out


@pytest.fixture(scope="module")
def one_to_five_steps(ladder_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that takes one to five steps and answers 6."""
    folder = tmp_path_factory.mktemp("policy")
    return _policy(ladder_policy, folder, *((CHAIN[:steps], "6") for steps in range(1, 6)))


@pytest.fixture(scope="module")
def loves_one_step(ladder_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluator that calls everything after a first step wrong, except an answer: the paper's
    shaping rewards one step."""
    judged = [(CHAIN[:1], [1, 1])] + [(CHAIN[:steps], [1] + [0] * steps) for steps in range(2, 6)]
    return _evaluator(ladder_policy, tmp_path_factory.mktemp("evaluator"), *judged)


def _run(
    policy: Path,
    evaluator: Path,
    folder: Path,
    guard: str | None,
    options: type[OnlineRl] = PpoRl,
    **changed: Any,
) -> dict[str, Any]:
    """PPO (or another algorithm) without KL, on the evaluator's reward only, with one guard."""
    gold = [Problem(f"rl/{i}", 1, "a", QUESTION, ("1+2=3",), "6") for i in range(9)]
    split = ProblemSplit(tuple(gold[:8]), tuple(gold[8:]), (), ())
    write_table(folder / "easy_problems" / "data.parquet", easy_table(split))
    write_table(folder / "hard_questions" / "data.parquet", question_table(()))
    watched = OFF | ({guard: ON[guard]} if guard else {})
    usual = {
        "updates": 40,
        "rollouts": 48,
        "samples_per_question": 6,
        "minibatch": 48,
        "temperature": 1.0,
        "max_new_tokens": 60,
        "checkpoint_every": 2,
        "learning_rate": 2e-3,
        **({"value_learning_rate": 1e-2} if options is PpoRl else {}),
        "warmup_updates": 1,
        "kl": 0.0,
        "max_kl": 1000.0,
        "outcome_reward": 0.0,
        "step_bonus": 0.0,
        "guards": {"window": 3, "hack_window": 4, **watched},
    }
    return rl_runs.run(options.model_validate(usual | changed), policy, evaluator, folder, folder)


def _kept_the_best(summary: dict[str, Any], policy: Path, folder: Path) -> None:
    """Check that the run ended early with the policy of its best checkpoint, or with its first
    policy."""
    assert 0 < summary["updates"] < 40
    best = summary["best_update"]
    source = folder / "work" / f"update-{best:06d}" / "policy" if best else policy
    weights = (folder / "out" / "model.safetensors").read_bytes()
    assert weights == (source / "model.safetensors").read_bytes()
    assert all(tensor.isfinite().all() for tensor in load_file(folder / "out" / "model.safetensors").values())


@pytest.mark.parametrize(
    ("guard", "says", "hack"),
    [
        pytest.param("more_steps", "steps_level_1", {"shaping": "sum"}, id="a sum pays for steps"),
        pytest.param(
            "unfinished",
            "no_answer",
            {"shaping": "sum", "unfinished_penalty": 0.0, "max_new_tokens": 24},
            id="a sum and no penalty pay for never ending",
        ),
        pytest.param("repeated_steps", "repeated_steps", {"shaping": "sum"}, id="a sum pays for repetition"),
    ],
)
def test_a_reward_with_a_hole_is_found_and_the_run_stopped(
    guard: str,
    says: str,
    hack: dict[str, Any],
    one_to_five_steps: Path,
    ladder_evaluator: Path,
    tmp_path: Path,
) -> None:
    summary = _run(one_to_five_steps, ladder_evaluator, tmp_path, guard, **hack)
    assert str(summary["stopped"]).startswith(f"{says} is")
    assert f"rl.guards.{guard}={ON[guard]}" in summary["stopped"]
    _kept_the_best(summary, one_to_five_steps, tmp_path)


@pytest.mark.parametrize(("guard", "says"), [("one_step", "one_step"), ("fewer_steps", "steps_level_1")])
def test_an_evaluator_that_loves_one_step_outputs(
    guard: str, says: str, one_to_five_steps: Path, loves_one_step: Path, tmp_path: Path
) -> None:
    summary = _run(one_to_five_steps, loves_one_step, tmp_path, guard)
    assert str(summary["stopped"]).startswith(f"{says} is")
    assert f"rl.guards.{guard}={ON[guard]}" in summary["stopped"]
    _kept_the_best(summary, one_to_five_steps, tmp_path)


def test_a_hole_that_pays_for_solutions_without_steps(ladder_policy: Path, tmp_path: Path) -> None:
    """Clip, and an evaluator that calls everything wrong: each step costs, and no step costs as
    much as one."""
    lengths = (0, 3, 4, 5)
    policy = _policy(ladder_policy, tmp_path, *((CHAIN[:steps], "6") for steps in lengths))
    evaluator = _evaluator(
        ladder_policy, tmp_path, *((CHAIN[:steps], [0] * (steps + 1)) for steps in lengths)
    )
    summary = _run(policy, evaluator, tmp_path, "one_step", shaping="clip")
    assert str(summary["stopped"]).startswith("one_step is")
    _kept_the_best(summary, policy, tmp_path)
    rollouts = read_table(tmp_path / "out" / "rollouts.parquet")
    first, last = (
        rollouts.filter(pc.equal(rollouts["update"], update))["steps"].to_pylist()
        for update in (1, summary["updates"])
    )
    assert first.count(0) / len(first) < 0.5 < last.count(0) / len(last)


@pytest.fixture(scope="module")
def mistaken(ladder_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy that is right two times of three, and an evaluator that prefers its mistake.

    Right and wrong solutions have equal length; only answers to easy questions tell them apart.
    """
    folder = tmp_path_factory.mktemp("mistaken")
    right, wrong = ("1+2=3", "3*2=6"), ("1+2=4", "4*2=1")
    evaluator = _evaluator(ladder_policy, folder, (right, [0, 0, 0]), (wrong, [1, 1, 1]))
    return _policy(ladder_policy, folder, (right, "6"), (right, "6"), (wrong, "1")), evaluator


@pytest.mark.parametrize(
    ("options", "checkpoint_every", "says"),
    [
        (PpoRl, 2, "easy_validation_accuracy is 0.000 at best in the last 4"),
        (PpoRl, 40, "easy_accuracy is 0."),
        (GrpoRl, 40, "easy_accuracy is 0."),
    ],
    ids=["seen by validations", "seen between two validations", "GRPO"],
)
def test_an_evaluator_that_loves_a_mistake(
    options: type[OnlineRl],
    checkpoint_every: int,
    says: str,
    mistaken: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    policy, evaluator = mistaken
    summary = _run(policy, evaluator, tmp_path, "hack_fall", options, checkpoint_every=checkpoint_every)
    assert str(summary["stopped"]).startswith(says)
    assert "the policy has found what the evaluator overlooks" in summary["stopped"]
    assert summary["easy_validation_accuracy"] == 1.0
    _kept_the_best(summary, policy, tmp_path)


def _rest(
    policy: Path, evaluator: Path, base: Path, folder: Path, guard: str, reporter: Reporter
) -> dict[str, Any]:
    """One round of ReST-EM on hard questions, with the evaluator's vote as the only verdict; one
    guard is on."""
    gold = [Problem(f"rl/{i}", 4, "a", QUESTION, ("1+2=3",), "6") for i in range(9)]
    split = ProblemSplit((), tuple(gold[8:]), (), ())
    write_table(folder / "easy_problems" / "data.parquet", easy_table(split))
    write_table(folder / "hard_questions" / "data.parquet", question_table(tuple(gold[:8])))
    options = RestEmRl.model_validate(
        {
            "rounds": 1,
            "samples": 16,
            "top_k": 0,
            "epochs": 30,
            "batch_size": 8,
            "learning_rate": 2e-2,
            "max_kl": 1000.0,
            "max_new_tokens": 60,
            "guards": OFF | {guard: ON[guard]},
            "questions": "hard",
        }
    )
    job = rl_runs.job(options, policy, evaluator, folder, folder, reporter)
    return RestEm().train(replace(job, inputs={**job.inputs, BASE_MODEL: base}))


def test_the_only_round_of_rest_is_watched(
    ladder_policy: Path, mistaken: tuple[Path, Path], loves_one_step: Path, tmp_path: Path
) -> None:
    """Guards see its policy's samples before the policy is kept: one finds shorter solutions, the
    other the preferred mistake."""
    both = _policy(ladder_policy, tmp_path, (CHAIN[:1], "6"), (CHAIN[:4], "1"))
    for guard, says, seen, policy, evaluator in (
        ("one_step", "one_step is 1.00", {"after_one_step": 1.0}, both, loves_one_step),
        ("hack_fall", "easy_validation_accuracy is 0.000", {"easy_validation_accuracy": 0.0}, *mistaken),
    ):
        folder, reported = tmp_path / guard, rl_runs.Recorder()
        summary = _rest(policy, evaluator, ladder_policy, folder, guard, reported)
        assert str(summary["stopped"]).startswith(says)
        [point] = [values for _, values in reported.points if "seconds_update" in values]
        assert point.items() >= seen.items()
        assert (summary["updates"], summary["best_update"]) == (1, 0)
        weights = (folder / "out" / "model.safetensors").read_bytes()
        assert weights == (policy / "model.safetensors").read_bytes()


@pytest.mark.parametrize("minibatch", [16, 48], ids=["within an update", "between two updates"])
def test_weights_that_are_no_numbers(
    minibatch: int, one_to_five_steps: Path, ladder_evaluator: Path, tmp_path: Path
) -> None:
    """A step so large that logits overflow: rollouts of this policy still end, and it is not
    kept."""
    summary = _run(
        one_to_five_steps, ladder_evaluator, tmp_path, None, learning_rate=1e18, minibatch=minibatch
    )
    assert "not a finite number; lower rl.learning_rate" in summary["stopped"]
    assert summary["best_update"] == 0
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights == (one_to_five_steps / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("base", "rate", "longer"),
    [
        (rl_runs.GRPO, 0.03, {"updates": 8}),
        (rl_runs.REST, 0.03, {"rounds": 3}),
        (rl_runs.DPO, 0.003, {"rounds": 3}),
    ],
    ids=["grpo", "rest", "dpo"],
)
def test_the_other_algorithms_are_watched_too(
    base: Rl,
    rate: float,
    longer: dict[str, int],
    ladder_evaluator: Path,
    ladder_tables: Path,
    tmp_path: Path,
) -> None:
    """At this rate they forget everything. A round, like an update, is measured on its policy's
    samples."""
    options = base.model_copy(update={"learning_rate": rate, "max_kl": 0.5, **longer})
    summary = rl_runs.run(options, rl_runs.SHIPPED, ladder_evaluator, ladder_tables, tmp_path)
    assert "kl, to the SFT policy, is" in summary["stopped"]
    assert 0 < summary["updates"] < 8
    assert summary["best_update"] == 0
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights == (rl_runs.SHIPPED / "model.safetensors").read_bytes()


def test_an_honest_run_is_left_alone(ladder_policy: Path, ladder_evaluator: Path, tmp_path: Path) -> None:
    """All guards are on; right answers are rewarded and KL is costly, as in an ordinary recipe."""
    right, wrong = ("1+2=3", "3*2=6"), ("1+2=4", "4*2=1")
    policy = _policy(ladder_policy, tmp_path, (right, "6"), (wrong, "1"), (wrong, "1"))
    summary = _run(
        policy,
        ladder_evaluator,
        tmp_path,
        None,
        guards={"window": 3, "hack_window": 4},
        outcome_reward=1.0,
        process_scale=0.0,
        learning_rate=1e-3,
        kl=0.1,
        updates=16,
    )
    assert summary["stopped"] is None
    assert summary["easy_validation_accuracy"] == 1.0
