"""Every domain fits the protocol; a domain of an installed package is one entry."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Literal

import pytest

from e2h_pipeline.artifacts.code_version import code_behind
from e2h_pipeline.problems.domain import Domain
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemPool
from e2h_pipeline.problems.source import describe_source, load_pool, load_split, look_at_source
from e2h_pipeline.recipe import FAMILIES, Base, Problems, Recipe
from e2h_pipeline.registry import CORPORA, DOMAINS, PROBLEM_READERS, STEP_CHECKERS


class Hills(Problems):
    """Three named levels, from a file."""

    levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    level_names: ClassVar[tuple[str, ...]] = ("gentle", "steep", "sheer")
    supervisable_levels: ClassVar[tuple[int, ...]] = (1,)
    grader: ClassVar[str] = "exact"

    source: Literal["hills"] = "hills"
    path: str = ""


class HillReader:
    """Reads problems from a JSON file: name to level."""

    def pool(self, options: Hills) -> ProblemPool:
        try:
            levels = json.loads(Path(options.path).read_text())
        except ValueError as error:
            raise ProblemError(f"{options.path}: not JSON ({error}); mend it") from None
        problems = [
            Problem(name, level, "hills", f"How high is {name}?", (), "9") for name, level in levels.items()
        ]
        return ProblemPool(
            problems, [Problem("top", 3, "hills", "Which of all hills is the highest?", (), "10")]
        )

    def fingerprint(self, options: Hills) -> Mapping[str, str]:
        return {Path(options.path).name: Path(options.path).read_text()}

    def files(self, options: Hills) -> Sequence[Path]:
        return [Path(options.path)]


HILLS = Domain(
    name="hills",
    benchmark="TOPS",
    options=Hills,
    answer_of=lambda completion, finished: completion if finished else None,
    reader="hills_of_a_test:HillReader",
)
LEVELS = {"a": 1, "b": 1, "c": 1, "d": 2, "e": 3, "f": None}


@pytest.fixture
def hills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hills:
    """Adds the domain of hills to the registry and to recipes; its section."""
    module = ModuleType("hills_of_a_test")
    module.HILLS, module.HillReader = HILLS, HillReader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hills_of_a_test", module)
    monkeypatch.setitem(DOMAINS.entries, "hills", "hills_of_a_test:HILLS")  # type: ignore[arg-type]
    monkeypatch.setitem(FAMILIES["problems"].members, "hills", Hills)  # type: ignore[arg-type]
    file = tmp_path / "hills.json"
    file.write_text(json.dumps(LEVELS))
    return Hills(path=str(file), validation=1)


@pytest.mark.parametrize("word", DOMAINS.words())
def test_every_domain_says_what_it_must(word: str) -> None:
    domain = DOMAINS.load(word)
    assert isinstance(domain, Domain) and domain.name == word
    assert FAMILIES["problems"].member(word) is domain.options
    assert set(domain.supervisable) < set(domain.levels)
    assert domain.levels == tuple(range(1, len(domain.levels) + 1))
    assert len(domain.level_names) in (0, len(domain.levels))
    for level, name in zip(domain.levels, domain.level_names, strict=False):
        assert domain.options(easy_levels=[name]).easy_levels == (level,), "a key names a level so"
    reader = PROBLEM_READERS.load(word)()
    assert all(callable(getattr(reader, name)) for name in ("pool", "fingerprint", "files"))
    completion = domain.text.completion(["First.", "Then."], "7")
    assert domain.answer_of(completion, True) == "7"
    assert domain.answer_of(completion, False) is None
    if (checker := STEP_CHECKERS.load(word)) is not None:
        assert callable(checker)
    if (corpus := CORPORA.load(word)) is not None:
        assert set(corpus().knobs(Base(), domain.options())) >= {"base"}


def test_no_two_domains_share_a_benchmark() -> None:
    names = [DOMAINS.load(word).benchmark for word in DOMAINS.words()]
    assert len(set(names)) == len(names)


def test_parts_of_a_domain_have_code_of_their_own() -> None:
    """An edit of reader, corpus or checker does not re-make stages that only read the domain."""
    domain = DOMAINS.load("ladder")
    modules = {name: code_behind(target) for name, target in vars(domain).items() if ":" in str(target)}
    assert set(modules) >= {"reader", "step_checker", "corpus"}
    versions = {DOMAINS.code("ladder").version(), *(code.version() for code in modules.values())}
    assert len(versions) == 1 + len(modules)


def test_a_domain_of_another_package(hills: Hills) -> None:
    split = load_split(hills)
    assert {p.problem_id for p in (*split.easy_train, *split.easy_validation)} == {"a", "b", "c"}
    assert [p.problem_id for p in split.hard] == ["d", "e"]
    described = describe_source(hills, load_pool(hills))
    assert described["benchmark"] == "TOPS"
    assert described["train_by_level"] == {"1": 3, "2": 1, "3": 1}
    assert described["unknown_level"] == ["f"]
    assert described["duplicates"]["same"] == []


def test_the_firewall_is_the_domains(hills: Hills) -> None:
    def recipe(**more: object) -> Recipe:
        return Recipe.model_validate({"name": "x", "problems": {**hills.model_dump(), **more}})

    assert recipe(easy_levels=["gentle"]).problems.easy_levels == (1,)
    with pytest.raises(ValueError, match=r"level 2 in problems\.easy_levels needs strict: false"):
        recipe(easy_levels=[1, "steep"])
    with pytest.raises(ValueError, match=r"easy_levels must be some of 1, 2, 3, gentle"):
        recipe(easy_levels=[4])


def test_a_level_that_the_domain_does_not_have_is_refused(hills: Hills) -> None:
    Path(hills.path).write_text(json.dumps({"a": 1, "z": 4}))
    with pytest.raises(ProblemError, match=r"problem z is of level 4, but hills has the levels 1, 2, 3"):
        load_pool(hills)


def test_its_files_are_watched(hills: Hills) -> None:
    before = look_at_source(hills)
    assert not before.error and set(before.sizes) == {"hills.json"}
    Path(hills.path).write_text(json.dumps({**LEVELS, "z": 4}))
    after = look_at_source(hills)
    assert after.version != before.version and "problem z is of level 4" in after.error
    Path(hills.path).write_text("{")
    assert "not JSON" in look_at_source(hills).error
