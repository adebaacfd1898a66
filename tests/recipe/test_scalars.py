"""Scalars are read by the type of their field; what programs read in two ways is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.recipe import PpoRl, Recipe, RecipeError
from e2h_pipeline.sweeps.spec import SweepError, members, read_sweep


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("seed", "010", r"seed: '010' has a leading zero; write 10 \(or 8, which YAML 1.1 reads here\)"),
        ("seed", "08", r"seed: '08' has a leading zero; write 8$"),
        ("seed", "-010", r"write -10 \(or -8,"),
        ("seed", "00", "has a leading zero; write 0$"),
        ("rl.kl", "00.5", "has a leading zero"),
        ("rl.kl", "010", "has a leading zero"),
        ("seed", "1_000", "'1_000' is not a whole number"),
        ("rl.kl", "1_000.5", "is not a finite number"),
        ("seed", "1e400", "is not a whole number"),
        ("rl.kl", "1e400", "is not a finite number"),
        ("rl.kl", ".nan", "is not a finite number"),
        ("rl.kl", "inf", "is not a finite number"),
        ("seed", "9223372036854775808", "does not fit into 64 bits"),
        ("seed", "true", "seed"),
        ("seed", "0b101", "is not a whole number"),
        ("strict", "no", "strict: 'no' is neither true nor false"),
        ("strict", "off", "is neither true nor false"),
        ("strict", "0", "is neither true nor false"),
        ("base.train", "y", "is neither true nor false"),
        ("problems.easy_levels", "01,2", "has a leading zero; write 1 "),
        ("labels.weight", "01", "has a leading zero; write 1 "),
    ],
)
def test_what_is_ambiguous_is_refused_in_keys_files_and_sweeps(
    field: str, text: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe.from_key(f"ladder/{field}={text}")
    *sections, name = field.split(".")
    value = f"[{text}]" if "," in text else text
    for written in (value, value if "," in text else f"'{text}'"):
        inner = "".join(f"{section}: {{" for section in sections) + f"{name}: {written}" + "}" * len(sections)
        (tmp_path / "mine.yaml").write_text(inner)
        with pytest.raises(RecipeError, match=says):
            Recipe.from_key("mine", [tmp_path])
    (tmp_path / "sweep.yaml").write_text(f"recipe: ladder\naxes: {{{field}: [{value}]}}\n")
    with pytest.raises(SweepError, match=says):
        members(read_sweep(tmp_path / "sweep.yaml"))


def test_a_time_in_base_60_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rl: {updates: 1:30}\n")
    with pytest.raises(RecipeError, match=r"rl\.updates: '1:30' is not a whole number"):
        Recipe.from_key("mine", [tmp_path])


@pytest.mark.parametrize(
    "text", ["010", "1e10", "1234567", "0x1F", "true", "no", "2026-11-30", "1_000", "08", ".5"]
)
def test_a_text_that_looks_like_something_else_stays_a_text(text: str, tmp_path: Path) -> None:
    assert Recipe.from_key(f"ladder/base.revision={text}").base.revision == text
    (tmp_path / "mine.yaml").write_text(
        f"description: {text}\nbase: {{revision: {text}}}\nsampling: {{stop: [{text}]}}"
    )
    recipe = Recipe.from_key("mine", [tmp_path])
    assert (recipe.description, recipe.base.revision, recipe.sampling.stop) == (text, text, (text,))
    (tmp_path / "sweep.yaml").write_text(f"recipe: ladder\naxes: {{base.revision: [{text}]}}\n")
    (member,) = members(read_sweep(tmp_path / "sweep.yaml"))
    assert Recipe.from_key(member.key).base.revision == text


@pytest.mark.parametrize("text", ["null", "~", "Null", ""])
def test_null_is_null_without_quotes_only(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: {{revision: {text}}}\n")
    assert Recipe.from_key("mine", [tmp_path]).base.revision is None
    (tmp_path / "mine.yaml").write_text(f"base: {{revision: '{text}'}}\n")
    assert Recipe.from_key("mine", [tmp_path]).base.revision == text


@pytest.mark.parametrize(
    ("text", "value"), [("0x1F", 31), ("0o17", 15), ("1e3", 1000), ("+5", 5), ("0", 0), ("3.0", 3)]
)
def test_whole_numbers_of_yaml_1_2(text: str, value: int, tmp_path: Path) -> None:
    assert Recipe.from_key(f"ladder/seed={text}").seed == value
    (tmp_path / "mine.yaml").write_text(f"seed: {text}\n")
    assert Recipe.from_key("mine", [tmp_path]).seed == value


@given(st.integers(0, 2**63 - 1), st.floats(1e-300, 1e300))
def test_numbers_as_python_prints_them_read_back(whole: int, real: float) -> None:
    recipe = Recipe.from_key(f"ladder/seed={whole}/rl.kl={real!r}")
    assert isinstance(recipe.rl, PpoRl)
    assert (recipe.seed, recipe.rl.kl) == (whole, real)


def test_values_of_a_sweep_are_shown_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "recipe: ladder\naxes: {rl.kl: [2e-3, 0.1], base.train: [true]}\nexclude: [{rl.kl: 0.10}]\n"
    )
    (member,) = members(read_sweep(tmp_path / "sweep.yaml"))
    assert member.values == {"rl.kl": 0.002, "base.train": True}


def test_two_spellings_of_one_experiment_are_one_member(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("recipe: ladder\naxes: {rl.kl: [0.1, 0.10]}\n")
    with pytest.raises(SweepError, match="two members are"):
        members(read_sweep(tmp_path / "sweep.yaml"))
