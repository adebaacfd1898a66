"""Files that people write: any bytes give a recipe or one error that names the file, in bounded time."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from e2h_pipeline.recipe import FAMILIES, Recipe, RecipeError, recipe_names
from e2h_pipeline.recipe.yaml_files import read_yaml
from e2h_pipeline.sweeps.spec import SweepError, members, read_sweep

LAUGHS = "a0: &a0 [x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
)
BAD = {
    "nested aliases": (f"extends: ladder\n{LAUGHS}", "more than 5000 values"),
    "nested aliases of mappings": (
        "rl: &a0 {x: 1}\n" + "".join(f"b{n}: &a{n + 1} {{x: *a{n}, y: *a{n}}}\n" for n in range(40)),
        "more than 5000 values",
    ),
    "an alias of itself": ("a: &a [*a]\n", r"\*a stands for nothing before it"),
    "an unknown alias": ("a: *b\n", r"\*b stands for nothing before it"),
    "not UTF-8": (b"description: caf\xe9\n", "not UTF-8"),
    "UTF-16": ("description: x\n".encode("utf-16"), "not UTF-8"),
    "a long integer": (f"seed: {'9' * 6000}\n", "seed: .* too long for a number"),
    "a long integer as a name": (
        f"labels:\n  ? {'9' * 6000}\n  : {{weight: 1}}\n",
        "more than 200 characters",
    ),
    "a long version": (f"%YAML 1.{'9' * 6000}\n---\nseed: 1\n", "not valid YAML"),
    "deep nesting": ("a: " + "[" * 20_000, "nested deeper than 32"),
    "deep nesting of blocks": ("".join(f"{' ' * n}a:\n" for n in range(200)), "nested deeper than 32"),
    "a tab": ("rl:\n\tupdates: 3\n", r"line 2, column 1.*'\\t'"),
    "a field twice": ("seed: 1\nseed: 2\n", "line 2, column 1: field 'seed' is given twice"),
    "a field twice, deeper": ("rl: {updates: 1, updates: 2}\n", "field 'updates' is given twice"),
    "nothing": ("", "the file is empty"),
    "comments only": ("# nothing\n", "the file is empty"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "a second document"),
    "a list": ("- seed: 1\n", "a mapping of sections, not a list"),
    "text": ("seed\n", "a mapping of sections, not a text"),
    "a merge key": ("a: &a {seed: 1}\n<<: *a\n", "merge keys"),
    "a tag": ("seed: !!python/object/apply:os.getcwd []\n", "the tag "),
    "a list as a name": ("? [a]\n: 1\n", "a field's name is a word"),
    "a control character": ('description: "a\\0b"\n', "a control character"),
    "half a character": ('description: "\\uD800"\n', "a control character"),
    "no character": ('description: "\\UFFFFFFFF"\n', "not valid YAML"),
    "a large file": ("# " + "x" * 70_000, "larger than 64 KiB"),
    "no labels": ("labels: []\n", "labels"),
    "when without methods": ("rl: {when: 3}\n", "rl.when"),
    "when without fields": ("rl: {when: {ppo: 3}}\n", "rl.when"),
    "a long number as a name": (f"labels: {{{'9' * 150}: {{weight: 1}}}}\n", "labels.*there are 1"),
    "a section that is text": ("rl: 3\n", "rl: a mapping of fields is expected"),
    "a parent that is a list": ("extends: [ladder]\n", "is not another recipe's name"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    content, says = BAD[name]
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.process_time()
    with pytest.raises(RecipeError, match=says) as error:
        Recipe.from_key("mine", [tmp_path])
    assert time.process_time() - began < 5
    assert "mine" in str(error.value) or "labels" in str(error.value) or "rl" in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    with pytest.raises(SweepError):
        read_sweep(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing"])
def test_what_is_not_a_file_is_left_out_of_lists_and_named_when_asked_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "gone")
    with pytest.raises(RecipeError, match=r"mine"):
        Recipe.from_key("mine", [tmp_path])
    with pytest.raises(SweepError, match=r"mine\.yaml"):
        read_sweep(path)
    assert "mine" not in recipe_names([tmp_path])


_WORDS = (
    "010 08 0o17 0x1F 1e3 -1 1_000 1:30 yes no on null ~ true .inf .nan 2026-11-30 ppo rest prm ladder math "
    "seed rl labels when extends problems strict base reward 9999999999999999999 0.5 '' \"\\0\" x"
)
_SCALARS = st.sampled_from(_WORDS.split())
_NAMES = st.sampled_from(
    sorted({*Recipe.model_fields, *FAMILIES, "extends", "when", "0", "x", "<<", "weight"})
)
_DATA = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(_NAMES, inner, max_size=4).map(
            lambda fields: "{" + ", ".join(f"{name}: {value}" for name, value in fields.items()) + "}"
        )
    ),
    max_leaves=12,
)
_TEXTS = st.lists(
    st.sampled_from(["\n", " ", "  ", "\t", ": ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "!!int ", "%YAML 1.2", "---",
                     "|\n", ">", "'", '"', "\\", "# ", "? ", "<<", "é", "\ufeff", "\x00"]) | _SCALARS | _NAMES,
    max_size=30,
).map("".join)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@given(st.binary(max_size=200) | _TEXTS.map(str.encode) | _DATA.map(str.encode))
@example(b"rl:")
@example(b"labels: {0: x}")
@example(b"labels: [x, y]")
@example(b"problems: {easy_levels: [010]}")
def test_any_bytes_are_a_recipe_or_that_error(folder: Path, content: bytes) -> None:
    (folder / "mine.yaml").write_bytes(content)
    try:
        recipe = Recipe.from_key("mine", [folder])
    except RecipeError as error:
        assert error.args and not any("\n" in str(line) for line in error.args)
    else:
        assert Recipe.model_validate_json(recipe.canonical_json()) == recipe
    with suppress(SweepError):
        members(read_sweep(folder / "mine.yaml"), [folder])


def test_a_grid_that_excludes_without_end_is_refused(tmp_path: Path) -> None:
    """The members are few, but finding them would take years."""
    axes = "\n".join(f"  f{n}: [{', '.join(map(str, range(40)))}]" for n in range(8))
    path = tmp_path / "mine.yaml"
    path.write_text(f"recipe: ladder\naxes:\n{axes}\nexclude:\n  - {{f0: 1}}\n")
    with pytest.raises(SweepError, match="combinations; cut an axis"):
        members(read_sweep(path))


def test_aliases_within_bounds_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {x: [1, 2]}\nb: *a\nc: [*a, *a]\nd: &d 7\ne: *d\n")
    one = {"x": ["1", "2"]}
    assert read_yaml(path) == {"a": one, "b": one, "c": [one, one], "d": "7", "e": "7"}
