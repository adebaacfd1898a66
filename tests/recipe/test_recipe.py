"""Recipe keys become paths, tags and partitions: only well-formed keys in one spelling pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.definitions import build
from e2h_pipeline.recipe import PpoRl, Recipe, RecipeError, canonical_key, one_spelling, recipe_names
from e2h_pipeline.recipe.scalars import usual_number
from e2h_pipeline.stages.spec import STAGES, narrow


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_parse_and_say_what_they_are(name: str) -> None:
    recipe = Recipe.from_key(name)
    assert recipe.description
    assert Recipe.model_validate_json(recipe.canonical_json()) == recipe


@pytest.mark.parametrize(
    ("name", "algorithm", "questions", "hard_answers", "step_rewards"),
    [
        ("llemma-7b", "ppo", "all", False, True),
        ("llemma-7b-rest-easy", "rest", "easy", False, False),
        ("llemma-7b-rest-hard", "rest", "hard", True, False),
        ("llemma-7b-rest-all", "rest", "all", True, False),
        ("llemma-7b-dpo-easy", "dpo", "easy", False, True),
        ("llemma-7b-dpo-all", "dpo", "all", True, True),
        ("llemma-7b-ppo-easy", "ppo", "easy", False, False),
        ("llemma-7b-ppo-hard", "ppo", "hard", True, False),
        ("llemma-7b-ppo-all", "ppo", "all", True, False),
        ("llemma-7b-metamath", "ppo", "all", False, True),
        ("llemma-7b-metamath-rest-easy", "rest", "easy", False, False),
        ("llemma-7b-metamath-dpo-easy", "dpo", "easy", False, True),
        ("llemma-7b-metamath-dpo", "dpo", "all", False, True),
        ("llemma-7b-metamath-dpo-all", "dpo", "all", True, True),
        ("llemma-7b-metamath-ppo-easy", "ppo", "easy", False, False),
        ("llemma-7b-metamath-ppo-all", "ppo", "all", True, False),
    ],
)
def test_rows_of_the_papers_table_2(
    name: str, algorithm: str, questions: str, hard_answers: bool, step_rewards: bool
) -> None:
    """Rows differ in supervision and algorithm; within each half policy, evaluator and evaluation
    are the same."""
    half = "llemma-7b-metamath" if "metamath" in name else "llemma-7b"
    recipe, main = Recipe.from_key(name), Recipe.from_key(half)
    assert (recipe.rl.algorithm, recipe.rl.questions) == (algorithm, questions)
    rewarded = getattr(recipe.rl, "process_scale", 0) > 0 or getattr(recipe.rl, "evaluator_agrees", False)
    assert (recipe.problems.hard_answers, rewarded) == (hard_answers, step_rewards)
    assert recipe.strict is not hard_answers
    for section in ("base", "solutions", "sft", "labels", "reward", "sampling", "evaluation"):
        assert getattr(recipe, section) == getattr(main, section)


def test_the_halves_of_table_2_differ_in_what_they_are_taught() -> None:
    ours, theirs = Recipe.from_key("llemma-7b"), Recipe.from_key("llemma-7b-metamath")
    assert (ours.solutions.source, ours.labels[0].source) == ("prm800k", "prm800k")
    assert (theirs.solutions.source, theirs.labels[0].source) == ("metamath", "shepherd")
    assert theirs.rl.updates * theirs.rl.rollouts == ours.rl.updates * ours.rl.rollouts == 500 * 512
    for section in ("problems", "reward", "sampling", "evaluation"):
        assert getattr(ours, section) == getattr(theirs, section)
    ceiling = Recipe.from_key("llemma-7b-metamath-ceiling")
    assert not ceiling.strict and set(ceiling.problems.easy_levels) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    "key",
    [
        "",
        "../ladder",
        "ladder/../../etc/passwd",
        "/etc/passwd",
        "Ladder",
        "ladder/seed",
        "ladder/seed=",
        "ladder/seed=1/",
        "ladder//seed=1",
        "ladder/seed=1\n",
        "ladder/seed=a b",
        "ladder/seed=1/seed=2",
        "ladder/seed='1'",
        "ladder/__class__=1",
        "ladder/" + "/".join(f"rl.updates={i}" for i in range(40)),
    ],
)
def test_malformed_keys_are_refused(key: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.from_key(key)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("nothing", "no recipe 'nothing'"),
        ("ladder/rl.speed=3", r"no field 'rl\.speed'"),
        ("ladder/rocket.speed=3", "no field 'rocket'"),
        ("ladder/sed=3", "did you mean 'seed'"),
        ("ladder/rl.clipp=1", "did you mean 'clip'"),
        ("ladder/seed.value=3", "seed is not a section|seed"),
        ("ladder/rl.updates=many", r"rl\.updates"),
        ("ladder/rl.updates=0", r"rl\.updates"),
        ("ladder/problems.easy_levels=1,2,4", "strict: false"),
        ("ladder/rl.lag=1/rl.checkpoint_every=1", "set checkpoint_every to 2 or more"),
        ("ladder/rl.lag=2", r"rl\.lag"),
    ],
)
def test_bad_overrides_are_named(key: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe.from_key(key)


def test_overrides_are_typed() -> None:
    recipe = Recipe.from_key("ladder/sft.learning_rate=3e-4/problems.easy_levels=1,2/base.train=true/seed=7")
    assert recipe.sft.learning_rate == 3e-4
    assert recipe.problems.easy_levels == (1, 2)
    assert recipe.base.train is True
    assert recipe.seed == 7


def test_a_folder_of_ones_own_comes_first(tmp_path: Path) -> None:
    (tmp_path / "ladder.yaml").write_text("description: mine\nseed: 9\n")
    assert Recipe.from_key("ladder", [tmp_path]).seed == 9


def test_unknown_fields_in_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("learning_rate: 3\n")
    with pytest.raises(RecipeError, match="learning_rate"):
        Recipe.from_key("mine", [tmp_path])


def test_overrides_are_sorted() -> None:
    assert canonical_key("ladder/seed=1/rl.updates=5") == canonical_key("ladder/rl.updates=5/seed=1")
    assert canonical_key("ladder") == "ladder"


@pytest.mark.parametrize(
    ("key", "spelled"),
    [
        ("ladder/seed=1/rl.kl=0.10", "ladder/rl.kl=0.1/seed=1"),
        ("ladder/rl.kl=1e-1", "ladder/rl.kl=0.1"),
        ("ladder/rl.kl=+.10", "ladder/rl.kl=0.1"),
        ("ladder/rl.kl=0.0", "ladder/rl.kl=0"),
        ("ladder/evaluation.easy_levels=+1,2", "ladder/evaluation.easy_levels=1,2"),
        ("ladder/base.revision=0.10", "ladder/base.revision=0.10"),  # a name, not a number
        ("ladder/sft.learning_rate=0.000010", "ladder/sft.learning_rate=1e-5"),
        ("ladder/sft.learning_rate=25.0e-06", "ladder/sft.learning_rate=2.5e-5"),
        ("ladder/sft.learning_rate=1e-4", "ladder/sft.learning_rate=0.0001"),
        ("ladder/sft.learning_rate=1e-300", "ladder/sft.learning_rate=1e-300"),
        ("ladder/seed=2000000000", "ladder/seed=2000000000"),
    ],
)
def test_values_have_one_spelling(key: str, spelled: str) -> None:
    assert one_spelling(key) == one_spelling(spelled) == spelled


@given(st.floats(0, 1e6), st.integers(0, 2**31))
def test_one_spelling_is_the_same_recipe(kl: float, seed: int) -> None:
    key = f"ladder/seed={seed}/rl.kl={kl!r}"
    assert Recipe.from_key(one_spelling(key)) == Recipe.from_key(key)
    assert one_spelling(one_spelling(key)) == one_spelling(key)


@given(st.from_regex(r"[-+]?[0-9]{0,3}\.?[0-9]{0,3}([eE][-+]?[0-9]{1,30})?", fullmatch=True))
def test_a_number_is_little_work(text: str) -> None:
    assert len(usual_number(text)) <= max(len(text), 40)


@given(st.permutations(["seed=1", "rl.updates=5", "sft.epochs=2"]))
def test_order_of_overrides_does_not_matter(parts: list[str]) -> None:
    one, other = "/".join(["ladder", *parts]), "ladder/rl.updates=5/seed=1/sft.epochs=2"
    assert canonical_key(one) == other
    assert Recipe.from_key(one) == Recipe.from_key(other)


@given(st.text(max_size=60))
def test_no_text_gets_past_the_parser_as_a_path(text: str) -> None:
    try:
        key = canonical_key(f"ladder/{text}")
    except RecipeError:
        return
    assert ".." not in key.split("/") and not key.startswith("/")


def test_a_slice_shows_its_sections_only() -> None:
    view = Recipe.from_key("ladder").slice(["sft", "seed"])
    assert view.seed == 0
    assert set(view.as_dict()) == {"sft", "seed"}
    with pytest.raises(RecipeError, match=r"reads recipe\.rl"):
        _ = view.rl
    with pytest.raises(RecipeError, match="no such recipe section: nonsense"):
        Recipe.from_key("ladder").slice(["nonsense"])


def test_stop_strings_are_texts_in_a_recipe_file(tmp_path: Path) -> None:
    (tmp_path / "stops.yaml").write_text('description: d\nsampling: {stop: ["\\n\\n\\n", "# Question"]}\n')
    recipe = Recipe.from_key("stops", [tmp_path])
    assert recipe.sampling.stop == ("\n\n\n", "# Question")
    assert recipe.easy_samples.stop == ()
    (tmp_path / "empty.yaml").write_text('description: d\nsampling: {stop: [""]}\n')
    with pytest.raises(RecipeError, match=r"sampling\.stop: .*an empty text would end every completion"):
        Recipe.from_key("empty", [tmp_path])


def test_keys_in_the_docs_are_keys() -> None:
    text = (Path(__file__).parents[2] / "docs" / "rl.md").read_text(encoding="utf-8")
    keys = re.findall(r"`((?:ladder|llemma-7b)[a-z0-9_./=-]*)`", text)
    assert len(keys) > 18
    for key in keys:
        assert canonical_key(key) == key
        Recipe.from_key(key)
    settings = re.findall(r"`((?:problems|rl)\.[a-z0-9_.]*=[a-z0-9_./=]*)`", text)
    assert len(settings) >= 5
    for setting in settings:
        assert any(_is_key(f"ladder/rl.algorithm={word}/{setting}") for word in ("ppo", "rest", "dpo")), (
            setting
        )


def _is_key(key: str) -> bool:
    try:
        Recipe.from_key(key)
    except RecipeError:
        return False
    return True


def test_gsm8k_is_taught_on_two_and_three_steps_and_measured_on_more() -> None:
    """The whole pipeline with adapters, at sizes for two cores; both kinds of labels feed the
    evaluator."""
    recipe = Recipe.from_key("gsm8k-0.5b")
    assert recipe.strict and recipe.scope == "pipeline" and recipe.base.revision
    assert recipe.problems.easy_levels == recipe.evaluation.easy_levels == (1, 2)
    assert (recipe.problems.benchmark_limit, recipe.sampling.samples) == (150, 8)
    assert recipe.sft.lora_rank and isinstance(recipe.rl, PpoRl) and recipe.rl.lora_rank
    build()  # fills STAGES
    evaluator = STAGES["easy_evaluator"]
    inputs = evaluator.inputs(narrow(recipe, evaluator.sections))
    assert {"easy_step_labels", "easy_outcome_labels"} <= set(inputs)
    assert recipe.labels[0].source == "monte_carlo"


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ("search.method=beam/sampling.samples=6", "finds 4 samples together, and sampling.samples=6"),
        ("search.method=dvts/early_stop.enabled=true", "search.method=dvts drops beginnings itself"),
        ("search.method=dvts/search.beams=3", "beams is a field of method=beam, not of method=dvts"),
        (
            "searches.method=beam/searches.beams=5",
            "beam beams=5 finds 5 samples together, and search_comparison",
        ),
        (
            "searches.method=dvts/scope=evaluator/human_steps.sources=process_bench",
            "there is nothing to search",
        ),
        (
            "searches.method=dvts/scope=reranking/search_comparison.policy=rl",
            "policy=rl needs scope: pipeline",
        ),
    ],
)
def test_searches_that_do_not_fit_are_refused(overrides: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        Recipe.from_key(f"ladder/{overrides}")


def test_searches_are_a_list_that_keys_change_by_number(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(
        "extends: ladder\nsearches: [{method: dvts}, {method: beam, beams: 8}]\n", encoding="utf-8"
    )
    recipe = Recipe.from_key("two/searches.0.expansions=8", [tmp_path])
    assert [search.label for search in recipe.searches] == ["dvts expansions=8", "beam beams=8"]
    assert [search.together for search in recipe.searches] == [1, 8]
    with pytest.raises(RecipeError, match="two of them are the same"):
        Recipe.from_key("two/searches.1.method=dvts", [tmp_path])
    assert Recipe.from_key("ladder").searches == ()
