"""Evaluators of others in a recipe: taken into an artifact, they judge wherever ours do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rl_runs
from hypothesis import given
from hypothesis import strategies as st
from outside_models import layout_tokenizer, save_qwen_prm
from pydantic import ValidationError

from e2h_pipeline.artifacts.tables import TABLE, read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.engines.protocol import SampleRequest, SamplingOptions
from e2h_pipeline.generation.search.beam import Beam
from e2h_pipeline.generation.search.protocol import Tools
from e2h_pipeline.models.work import flops_per_token
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.recipe import BeamSearch, OutsideReward, Recipe, RecipeError
from e2h_pipeline.rewards.early_stop import lowest_scores
from e2h_pipeline.rewards.evaluators import Evaluator, open_evaluator
from e2h_pipeline.rewards.growing import GrowingScorer, search_scorer
from e2h_pipeline.rewards.outside.reader import Ensemble
from e2h_pipeline.rewards.outside.scorer import RULES, OutsideScorer, new_layout
from e2h_pipeline.rewards.outside.taken import take_evaluator
from e2h_pipeline.rewards.step_scorer import StepScorer
from e2h_pipeline.solutions import MARKED

ASKED = [
    ("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6", True),
    ("1-2", "1-2=6\n\n", False),
    ("2+2", "2+2=5\n\n", False),
    ("4*4", "", False),
]
NAMED = "ladder/reward.kind=outside/reward.evaluator=prm"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of Qwen2.5-Math-PRM, as published."""
    return save_qwen_prm(tmp_path_factory.mktemp("theirs") / "prm", layout_tokenizer())[0]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An easy_step_labels artifact."""
    rows = [
        {
            "problem_id": question,
            "split": split,
            "question": question,
            "completion": completion,
            "finished": finished,
            "labels": [float(label) for label in step_labels(question, completion)],
        }
        for question, completion, finished in ASKED
        for split in ("train", "validation")
    ]
    folder = tmp_path_factory.mktemp("labels")
    write_table(folder / TABLE, pa.Table.from_pylist(rows))
    return folder


def take(options: OutsideReward, labels: Path, folder: Path) -> dict[str, Any]:
    return take_evaluator(None, {"steps": labels}, options, MARKED, Work(folder / "out", folder / "work", 0))


@pytest.fixture(scope="module")
def taken(theirs: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of such an evaluator."""
    folder = tmp_path_factory.mktemp("taken")
    summary = take(OutsideReward.model_validate({"evaluator": str(theirs)}), labels, folder)
    assert summary["members"] == [{"model": str(theirs), "layout": "qwen-prm", "revision": None}]
    assert summary["trained_by"].startswith("others")
    assert summary["validation_steps"] == 5 and summary["validation_step_auroc"] is not None
    return folder / "out"


def alone(theirs: Path) -> list[Any]:
    return OutsideScorer(theirs, new_layout("qwen-prm", {}), (), MARKED).step_probabilities(ASKED)


def test_an_artifact_judges_as_its_source_wherever_it_lies(taken: Path, theirs: Path, tmp_path: Path) -> None:
    expected = alone(theirs)
    shutil.copytree(taken, tmp_path / "elsewhere")
    found = StepScorer(tmp_path / "elsewhere", MARKED).step_probabilities([*ASKED, ASKED[0]])
    for own, wanted in zip(found, [*expected, expected[0]], strict=True):
        assert own == pytest.approx(wanted, abs=1e-6)
    assert [len(own) for own in found] == [3, 1, 1, 0, 3]
    lowest = lowest_scores(open_evaluator(taken), [(q, c) for q, c, _ in ASKED], text=MARKED)
    assert lowest == pytest.approx([own.min(initial=1.0) for own in expected], abs=1e-6)
    told = (taken / "kind.json").read_text()
    assert str(theirs) not in told  # else the same weights in a moved folder were another evaluator


@pytest.mark.parametrize("rule", RULES)
def test_an_ensemble_of_theirs_and_ours(
    rule: str, theirs: Path, labels: Path, ladder_evaluator: Path, tmp_path: Path
) -> None:
    named = [str(theirs), {"model": str(ladder_evaluator)}]
    summary = take(OutsideReward.model_validate({"evaluator": named, "rule": rule}), labels, tmp_path)
    assert [member["layout"] for member in summary["members"]] == ["qwen-prm", "ours"]
    found = StepScorer(tmp_path / "out", MARKED).step_probabilities(ASKED)
    ours = StepScorer(ladder_evaluator, MARKED).step_probabilities(ASKED)
    for own, *rows in zip(found, alone(theirs), ours, strict=True):
        assert own == pytest.approx(RULES[rule](np.stack(rows)), abs=1e-6)


class Fixed(Evaluator):
    """Always the same logits."""

    models = ()

    def __init__(self, fixed: list[float]) -> None:
        self.fixed = fixed

    def logits(self, solutions: Any, text: Any, batch_tokens: int = 0) -> list[list[float]]:
        return [self.fixed for _ in solutions]


TWO_STEPS = st.lists(st.floats(-80, 80), min_size=2, max_size=2)


@given(st.lists(TWO_STEPS, min_size=2, max_size=4))
def test_log_odds_of_an_ensemble_are_finite_and_lie_between_its_members(members: list[list[float]]) -> None:
    parts = tuple(map(Fixed, members))
    for rule in ("mean", "min"):
        (found,) = Ensemble(parts, rule).logits([("q", "a", True)], MARKED)
        for step, own in enumerate(found):
            inside = [min(20.7, max(-20.7, member[step])) for member in members]  # 1e-9 from sure
            assert min(inside) - 0.05 <= own <= max(inside) + 0.05
    (careful,) = Ensemble(parts, "disagreement").logits([("q", "a", True)], MARKED)
    assert np.isfinite(careful).all()


def test_an_evaluator_has_several_spellings_and_one_form() -> None:
    alike: list[Any] = ["me/prm", {"model": "me/prm"}, ["me/prm"], [{"model": "me/prm", "layout": "auto"}]]
    assert len({OutsideReward.model_validate({"evaluator": one}).model_dump_json() for one in alike}) == 1
    for wrong, says in (
        ({"model": "m", "sytem": "x"}, "sytem"),
        ({"model": "m", "layout": "tlr"}, "no 'tlr'; did you mean 'trl'"),
        ("", "at least 1 character"),
    ):
        with pytest.raises(ValidationError, match=says):
            OutsideReward.model_validate({"evaluator": wrong})


def test_a_strict_recipe_cannot_have_one() -> None:
    with pytest.raises(RecipeError, match=r"reward\.kind=outside needs strict: false, because nobody here"):
        Recipe.from_key(NAMED)
    found = Recipe.from_key(f"{NAMED}/strict=false").reward
    assert isinstance(found, OutsideReward) and found.layouts == ("auto",)
    with pytest.raises(RecipeError, match=r"reward\.evaluator: name a folder"):
        Recipe.from_key("ladder/strict=false/reward.kind=outside")
    with pytest.raises(RecipeError, match="training is a field of kind="):
        Recipe.from_key(f"{NAMED}/strict=false/reward.training.epochs=1")


@pytest.mark.parametrize(
    ("evaluator", "says"),
    [
        ({"model": "{theirs}", "layout": "trl", "tag": "x"}, "layout trl: no option 'tag'"),
        ({"model": "{theirs}", "layout": "skywork"}, r"v_head\.summary"),
        ({"model": "{theirs}", "layout": "implicit"}, "option 'reference' is missing"),
        ({"model": "{ours}", "tag": "x"}, "option 'tag' is of a layout"),
        ({"model": "{policy}"}, "without a head that scores tokens is no evaluator"),
        ({"model": "{taken}"}, "no single evaluator"),
    ],
)
def test_an_evaluator_that_cannot_be_taken_is_named(
    evaluator: dict[str, str],
    says: str,
    theirs: Path,
    taken: Path,
    labels: Path,
    ladder_evaluator: Path,
    ladder_policy: Path,
    tmp_path: Path,
) -> None:
    places = {"theirs": theirs, "ours": ladder_evaluator, "policy": ladder_policy, "taken": taken}
    named = {**evaluator, "model": evaluator["model"].format(**places)}
    with pytest.raises(ValueError, match=says):
        take(OutsideReward.model_validate({"evaluator": named}), labels, tmp_path)


def test_a_search_is_guided_by_it(taken: Path, ladder_evaluator: Path, theirs: Path) -> None:
    """It reads whole texts, where ours reads them as they grow."""
    assert isinstance(search_scorer(ladder_evaluator, MARKED), GrowingScorer)
    scorer = search_scorer(taken, MARKED)
    assert isinstance(scorer, StepScorer)
    options = BeamSearch(beams=2, expansions=2)
    request = SampleRequest("1+2*2", MARKED, 7, 2)
    tools = Tools(load_engine("transformers", rl_runs.SHIPPED), scorer)
    found = Beam().search(tools, [request], SamplingOptions(1.0, 40), options)
    assert len(found.samples[0]) == 2 and found.costs is not None
    assert all(cost.read_tokens > 0 for cost in found.costs[0])
    assert flops_per_token(taken) == flops_per_token(theirs) > 0


SMALL = {"updates": 1, "rollouts": 8, "max_new_tokens": 16}


@pytest.mark.parametrize(
    "options",
    [
        rl_runs.PPO.model_copy(update=SMALL),
        rl_runs.PPO.model_copy(update={**SMALL, "lora_rank": 2}),
        rl_runs.REST.model_copy(update={"rounds": 1, "samples": 2, "probe_questions": 8, "epochs": 1}),
    ],
    ids=["ppo", "lora", "rounds"],
)
def test_it_rewards_a_policy_with_another_tokenizer(
    options: Any, taken: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    summary = rl_runs.run(options, rl_runs.SHIPPED, taken, ladder_tables, tmp_path)
    assert summary.get("critic_starts_as") == ("sft_policy" if options.algorithm == "ppo" else None)
    scores = read_table(tmp_path / "out" / "rollouts.parquet")["evaluator_score"].to_pylist()
    assert len(scores) > 7 and len(set(scores)) > 1 and 0 < min(scores) < max(scores) < 1
