"""A changed data file re-makes only what depends on it; a missing file is an alert."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from ticks import evaluate
from toy_stages import resources

from assets.base_model import base_model
from assets.easy_solutions import easy_solutions
from assets.easy_step_labels import easy_step_labels
from assets.problem_source import problem_source
from assets.problems import benchmark_questions, easy_problems, gold_answers, hard_questions
from assets.recipe import recipe
from assets.watched import LABEL_FILES, MODEL_FILES, READABLE, SOLUTION_FILES, WATCHED, problems_readable
from e2h_pipeline.artifacts import hashing
from e2h_pipeline.artifacts.lineage import trace
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.definitions import build
from e2h_pipeline.orchestration.automation import automated
from e2h_pipeline.orchestration.source_watch import Seen, look, overtaken, sensor
from e2h_pipeline.problems.files import SourceState
from e2h_pipeline.problems.source import look_at_source
from e2h_pipeline.problems.supplied_files import look_at_supplied
from e2h_pipeline.recipe import Labels, MathProblems, Prm800kLabels, ShepherdLabels
from e2h_pipeline.registry import LABEL_SOURCES
from e2h_pipeline.stages.spec import EXPERIMENTS
from resources.store import latest_artifact

STAGES = [recipe, problem_source, easy_problems, hard_questions, benchmark_questions, gold_answers]
RECIPE = """
description: MATH from {folder}
problems: {{source: math, path: {folder}, strict_counts: false, validation: 1}}
"""
SPLIT = {"problem_source", "easy_problems", "hard_questions", "benchmark_questions", "gold_answers"}


def _record(name: str, level: int, answer: int) -> str:
    return json.dumps(
        {
            "unique_id": name,
            "problem": f"What is ${answer} + 0$ ({name})?",
            "solution": f"It is $\\boxed{{{answer}}}$.",
            "answer": str(answer),
            "subject": "Algebra",
            "level": level,
        }
    )


def _write(path: Path, part: str, answers: list[int]) -> None:
    lines = [_record(f"{part}/{i}", 1 + i % 5, answer) for i, answer in enumerate(answers)]
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _math(folder: Path) -> Path:
    folder.mkdir()
    _write(folder / "math_train.jsonl.gz", "train", list(range(10)))
    _write(folder / "math_test.jsonl", "test", list(range(10)))
    _write(folder / "math500.jsonl", "benchmark", list(range(5)))
    return folder


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        found.add_dynamic_partitions("experiment", ["one", "two", "ladder"])
        yield found


class World:
    """Two experiments on MATH-like folders and one on the ladder, watched and automated as in
    production."""

    def __init__(self, tmp_path: Path, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = tmp_path / "home", instance
        self._resources = resources(self.home)
        self.one, self.two = _math(tmp_path / "one"), _math(tmp_path / "two")
        for folder in (self.one, self.two):
            (self.home / "recipes" / f"{folder.name}.yaml").write_text(RECIPE.format(folder=folder))
        self._seen: Seen = {}
        self._cursor: dg.AssetDaemonCursor | None = None
        self.definitions = dg.Definitions(
            assets=[*automated(STAGES), *(watched.spec for watched in WATCHED)],
            asset_checks=[problems_readable],
            resources=self._resources,
        )

    def watch(self) -> list[dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation]:
        """One tick of the sensor, its events reported as the daemon does."""
        events, self._seen, unknown, _ = look(self.instance, self.home, self._seen)
        assert not unknown
        for event in events:
            self.instance.report_runless_asset_event(event)
        return events

    def materialize(self, stages: list[dg.AssetsDefinition], key: str) -> bool:
        """One run of one experiment; true if it succeeded."""
        return dg.materialize(
            stages,
            instance=self.instance,
            partition_key=key,
            resources=self._resources,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        ).success

    def made(self) -> dict[tuple[str, str], int]:
        """(asset, experiment) -> number of its latest materialization."""
        return {
            (stage.key.to_user_string(), key): number
            for stage in STAGES
            for key, number in self.instance.event_log_storage.get_latest_storage_id_by_partition(
                stage.key, dg.DagsterEventType.ASSET_MATERIALIZATION
            ).items()
        }

    def tick(self) -> set[tuple[str, str]]:
        """One evaluation of the automation; runs and returns its requests, as (asset,
        experiment)."""
        found = evaluate(self.definitions, self.instance, self._cursor)
        self._cursor = found.cursor
        asked = {
            (stage.key.to_user_string(), key)
            for stage in STAGES
            for key in found.get_requested_partitions(stage.key)
            if key is not None
        }
        for key in {key for _, key in asked}:
            self.materialize([s for s in STAGES if (s.key.to_user_string(), key) in asked], key)
        return asked

    def settle(self) -> list[set[tuple[str, str]]]:
        """Tick until nothing is requested."""
        ticks: list[set[tuple[str, str]]] = []
        while (asked := self.tick()) and len(ticks) < 10:
            ticks.append(asked)
        return ticks


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    """A world in which everything is made and observed, and nothing is requested."""
    made = World(tmp_path, instance)
    made.watch()
    for key in ("one", "two", "ladder"):
        assert made.materialize(STAGES, key)
    assert made.settle() == []
    return made


def _asked(ticks: list[set[tuple[str, str]]]) -> set[tuple[str, str]]:
    return set().union(*ticks)


def test_an_unchanged_source_is_quiet(world: World) -> None:
    assert world.watch() == []
    assert world.settle() == []


def test_the_first_look_at_experiments_of_the_command_line_starts_what_was_overtaken_alone(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """`e2h run` makes experiments without a look at their sources; opening the pages starts nothing, where the
    files are still what the stages were made of."""
    world = World(tmp_path, instance)
    for key in ("one", "two", "ladder"):
        assert world.materialize(STAGES, key)
    assert world.settle() == []
    _write(world.one / "math_test.jsonl", "test", [*range(9), 99])
    found = look(instance, world.home, {})
    assert found.first == ["ladder", "one", "two"]
    (request,) = overtaken(instance, world.home, found.first)
    assert request.partition_key == "one" and request.asset_selection == [problem_source.key]
    world.watch()
    assert world.settle() == []
    assert world.materialize([problem_source], "one")  # as that run does
    assert _asked(world.settle()) >= {("easy_problems", "one"), ("benchmark_questions", "one")}


def test_a_touched_file_is_quiet(world: World) -> None:
    os.utime(world.one / "math_test.jsonl")
    assert world.watch() == []
    assert world.settle() == []


def test_a_file_that_changes_during_a_run_changes_nothing_of_it(world: World) -> None:
    """All parts of the split come from the state of the files that `problem_source` read."""
    _write(world.one / "math_train.jsonl.gz", "train", [*range(9), 99])
    assert world.materialize([recipe, problem_source], "one")
    _write(world.one / "math_train.jsonl.gz", "train", [*range(9), 77])
    assert world.materialize([easy_problems, hard_questions, gold_answers], "one")
    store = ArtifactStore(world.home)
    read = {}
    for stage in (easy_problems, hard_questions, gold_answers):
        made = latest_artifact(world.instance, store, stage.key.to_user_string(), "one")
        assert made is not None
        read[made.asset] = " ".join(read_table(made.path / TABLE, ["question"])["question"].to_pylist())
        (source,) = [node for node in trace(store, made).inputs if node.asset == "problem_source"]
        assert "math_train.jsonl.gz" in source.artifact.manifest.external
    assert "$99 + 0$" in read["hard_questions"] and "$99 + 0$" in read["gold_answers"]
    assert "$77" not in " ".join(read.values())


def test_a_changed_file_remakes_what_depends_on_it_and_no_other_experiment(world: World) -> None:
    _write(world.one / "math_test.jsonl", "test", [*range(9), 99])
    observed = world.watch()
    assert {event.partition for event in observed} == {"one"}
    ticks = world.settle()
    assert ticks[0] == {("problem_source", "one")}
    assert _asked(ticks) == {(stage, "one") for stage in SPLIT}


def test_the_event_says_which_file_changed(world: World) -> None:
    _write(world.one / "math_test.jsonl", "test", [*range(9), 99])
    (observed,) = [event for event in world.watch() if isinstance(event, dg.AssetMaterialization)]
    assert "math_test.jsonl changed from" in str(observed.description)
    assert "math500" not in str(observed.description)
    table = observed.metadata["files"]
    assert isinstance(table, dg.TableMetadataValue)
    assert {row.data["name"] for row in table.records} == {
        "math_train.jsonl.gz",
        "math_test.jsonl",
        "math500.jsonl",
    }
    assert all(row.data["bytes"] and row.data["modified"] and row.data["hash"] for row in table.records)


@pytest.mark.parametrize("broken", ["gone", "empty", "cut", "not JSON", "folder"])
def test_a_source_that_cannot_be_read_is_an_alert_until_it_is_restored(world: World, broken: str) -> None:
    path = world.one / "math_train.jsonl.gz"
    whole = path.read_bytes()
    path.unlink()
    if broken == "folder":
        path.mkdir()
    elif broken != "gone":
        cut = {"empty": gzip.compress(b""), "cut": whole[:-9], "not JSON": gzip.compress(b"{")}[broken]
        path.write_bytes(cut)
    (alert,) = world.watch()
    assert isinstance(alert, dg.AssetCheckEvaluation) and not alert.passed
    assert str(world.one) in str(alert.description) and "(one)" in str(alert.description)
    assert world.watch() == []  # reported once
    assert world.settle() == []
    path.rmdir() if broken == "folder" else path.unlink(missing_ok=True)
    path.write_bytes(whole)
    (restored,) = world.watch()
    assert isinstance(restored, dg.AssetCheckEvaluation) and restored.passed
    assert world.settle() == []


def test_what_is_asked_for_of_a_source_that_is_gone_fails_and_makes_nothing(world: World) -> None:
    (world.one / "math500.jsonl").unlink()
    world.watch()
    before = world.made()
    for key in ("one", "two"):
        path = world.home / "recipes" / f"{key}.yaml"
        path.write_text(path.read_text().replace("validation: 1", "validation: 2"))
        world.materialize([recipe], key)
    world.settle()
    again = {stage for stage, number in world.made().items() if number != before[stage]}
    assert ("easy_problems", "two") in again
    assert {stage for stage in again if stage[1] == "one"} == {("recipe", "one")}


def test_a_file_is_hashed_again_only_when_it_may_have_changed(tmp_path: Path) -> None:
    options = MathProblems(path=str(_math(tmp_path / "one")), strict_counts=False)
    look_at_source(options)
    before = hashing._hash_as_seen.cache_info().misses
    assert not look_at_source(options).error
    assert hashing._hash_as_seen.cache_info().misses == before
    os.utime(tmp_path / "one" / "math_test.jsonl")
    look_at_source(options)
    assert hashing._hash_as_seen.cache_info().misses == before + 1


def test_content_that_hides_behind_an_old_time_is_seen(tmp_path: Path) -> None:
    folder = _math(tmp_path / "one")
    options = MathProblems(path=str(folder), strict_counts=False)
    before, path = look_at_source(options), folder / "math_test.jsonl"
    times = path.stat()
    path.write_bytes(path.read_bytes().replace(b"$1 + 0$", b"$7 + 0$"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert look_at_source(options).version != before.version


def test_an_unreachable_hub_is_an_error_that_says_so(tmp_path: Path) -> None:
    code = (
        "from e2h_pipeline.problems.source import look_at_source; from e2h_pipeline.recipe import MathProblems;"
        "print(look_at_source(MathProblems(hub='some/math')).error)"
    )
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "cannot ask the Hub for the commit of some/math" in done.stdout, done.stderr


def test_a_pinned_hub_commit_is_its_version_without_network() -> None:
    commits = "a" * 40, "b" * 40
    state = look_at_source(MathProblems(hub="some/math", hub_revision="+".join(commits)))
    assert not state.error and set(state.parts.values()) == set(commits)


def test_an_experiment_whose_recipe_is_gone_does_not_stop_the_watch(world: World) -> None:
    world.instance.add_dynamic_partitions("experiment", ["no-such-recipe"])
    events, seen, unknown, _ = look(world.instance, world.home, {})
    assert len(unknown) == 1 and "no-such-recipe" in str(unknown[0])
    assert all(set(experiments) == {"one", "two", "ladder"} for experiments in seen.values())
    assert len(seen) == len(WATCHED) and len(events) == 7 * len(WATCHED)


BAD_RECIPES = {
    "aliases": "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40)),
    "no UTF-8": "description: caf\udce9\n",
    "digits": f"seed: {'9' * 6000}\n",
    "deep": "rl: " + "[" * 5000,
    "octal": "seed: 010\n",
    "empty": "",
    "a folder": None,
}


def test_bad_recipes_do_not_stop_the_watch_of_the_others(world: World) -> None:
    for name, text in BAD_RECIPES.items():
        path = world.home / "recipes" / f"{name.replace(' ', '-').lower()}.yaml"
        if text is None:
            path.mkdir()
        else:
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
        world.instance.add_dynamic_partitions("experiment", [path.stem])
    _write(world.one / "math_test.jsonl", "test", [*range(9), 99])
    events, _, unknown, _ = look(world.instance, world.home, world._seen)
    assert {event.partition for event in events} == {"one"}
    assert len(unknown) == len(BAD_RECIPES)
    assert all("\n" not in str(error) for error in unknown)


def test_a_source_that_breaks_does_not_stop_the_watch_of_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed label sources are other people's code."""

    def broken(self: object, options: object) -> list[Path]:
        raise LookupError("not thought of")

    monkeypatch.setattr(LABEL_SOURCES.load("prm800k"), "files", broken)
    path = world.home / "recipes" / "two.yaml"
    path.write_text(path.read_text() + "labels: {source: prm800k}\n")
    _write(world.one / "math_test.jsonl", "test", [*range(9), 99])
    *events, alert = world.watch()
    assert {event.partition for event in events if not isinstance(event, dg.AssetCheckEvaluation)} == {"one"}
    assert isinstance(alert, dg.AssetCheckEvaluation) and "LookupError: not thought of" in str(
        alert.description
    )


def test_the_check_in_the_ui_says_the_same(world: World) -> None:
    (world.two / "math500.jsonl").unlink()
    result = dg.materialize(
        [problems_readable, *STAGES],
        selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("problem_files"), READABLE)),
        instance=world.instance,
        resources=resources(world.home),
        raise_on_error=False,
    )
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed and "no math500.jsonl" in str(evaluation.description)


def test_the_sensor_is_on_and_the_experiment_job_does_not_need_it() -> None:
    definitions = build()
    assert definitions.resolve_sensor_def("watch_files").default_status == dg.DefaultSensorStatus.RUNNING
    job = definitions.resolve_job_def("experiment")
    assert not {dg.AssetKey(watched.name) for watched in WATCHED} & job.asset_layer.selected_asset_keys


def _stale_causes(world: World, asset: str, key: str) -> list[str]:
    """The reasons for which Dagster's page calls a partition out of date, in its words."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    graph = world.definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(world.instance, graph, LoadingContextForTest(world.instance))
    causes = resolver.get_stale_causes(dg.AssetKey(asset), key)
    return [f"{cause.dependency.asset_key.to_user_string()}: {cause.reason}" for cause in causes]


def test_the_page_says_why_something_is_out_of_date(world: World) -> None:
    assert _stale_causes(world, "problem_source", "one") == []
    _write(world.one / "math_test.jsonl", "test", [*range(9), 99])
    world.watch()
    assert _stale_causes(world, "problem_source", "one") == [
        "problem_files: has a new dependency data version"
    ]
    assert _stale_causes(world, "problem_source", "two") == []


def test_the_sensor_as_the_daemon_runs_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2H_HOME", str(world.home))
    first = sensor()(dg.build_sensor_context(instance=world.instance))
    assert isinstance(first, dg.SensorResult) and len(first.asset_events) == 7 * len(WATCHED)
    assert first.cursor
    second = sensor()(dg.build_sensor_context(instance=world.instance, cursor=first.cursor))
    assert isinstance(second, dg.SensorResult) and not second.asset_events
    assert f"nothing new in {3 * len(WATCHED)} sources" in str(second.skip_reason)


# Step labels and base models


def _rated(path: Path, ratings: list[list[int]]) -> None:
    """Human ratings of solutions, in the form of decoded PRM800K."""
    rows = [
        {"unique_id": f"train/{i}", "level": 1, "problem": f"Question {i}?", "ratings": each}
        | {"steps": [f"Step {n} of {i}." for n in range(len(each))]}
        for i, each in enumerate(ratings)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Supervised:
    """An experiment with labels and base model in files, one with solutions in files, and one on
    the ladder. Their stages are only reported as made, because the tests check requests."""

    stages = (easy_step_labels, base_model, easy_solutions)

    def __init__(self, tmp_path: Path, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = tmp_path / "home", instance
        (self.home / "recipes").mkdir(parents=True)
        self.labels, self.model = tmp_path / "labels.jsonl", tmp_path / "model"
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        _rated(self.labels, [[1, 1], [1, -1]])
        self.solutions = tmp_path / "MetaMathQA.json"
        self.solutions.write_text("[]")
        for name in ("one", "two"):  # `two` has its own model, so that only the labels are shared
            own = (
                f"base: {{model: {self.model}}}"
                if name == "one"
                else f"solutions: {{source: metamath, path: {self.solutions}}}"
            )
            (self.home / "recipes" / f"{name}.yaml").write_text(
                f"labels: {{source: prm800k, path: {self.labels}}}\n{own}\n"
            )
        said = [
            dg.AssetSpec(name, partitions_def=EXPERIMENTS)
            for name in (
                "recipe",
                "easy_problems",
                "hard_questions",
                "benchmark_questions",
                "easy_samples",
                "sft_policy",
            )
        ]
        self.definitions = dg.Definitions(
            assets=[*automated(self.stages), *said, *(watched.spec for watched in WATCHED)],
            resources=resources(self.home),
        )
        self._seen: Seen = {}
        self._cursor: dg.AssetDaemonCursor | None = None
        self.watch()
        for key in instance.get_dynamic_partitions("experiment"):
            for spec in (*said, *(spec for stage in self.stages for spec in stage.specs)):
                instance.report_runless_asset_event(dg.AssetMaterialization(spec.key, partition=key))
        assert self.asked() == set()

    def watch(self) -> list[dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation]:
        """One tick of the sensor, its events reported as the daemon does."""
        events, self._seen, *_ = look(self.instance, self.home, self._seen)
        for event in events:
            self.instance.report_runless_asset_event(event)
        return events

    def asked(self) -> set[tuple[str, str]]:
        """The requests of one evaluation of the automation."""
        found = evaluate(self.definitions, self.instance, self._cursor)
        self._cursor = found.cursor
        return {
            (stage.key.to_user_string(), key)
            for stage in self.stages
            for key in found.get_requested_partitions(stage.key)
            if key is not None
        }


@pytest.fixture
def supervised(tmp_path: Path, instance: dg.DagsterInstance) -> Supervised:
    """Everything is reported as made and observed, and nothing is requested."""
    return Supervised(tmp_path, instance)


def test_changed_labels_start_the_labels_of_the_experiments_that_read_them(supervised: Supervised) -> None:
    assert supervised.watch() == [] and supervised.asked() == set()
    os.utime(supervised.labels)
    assert supervised.watch() == []
    _rated(supervised.labels, [[1, 1], [1, 1]])
    changed = [event for event in supervised.watch() if isinstance(event, dg.AssetMaterialization)]
    assert {event.asset_key.to_user_string() for event in changed} == {LABEL_FILES}
    assert all("labels.jsonl changed from" in str(event.description) for event in changed)
    assert supervised.asked() == {("easy_step_labels", "one"), ("easy_step_labels", "two")}
    assert supervised.asked() == set()


@pytest.mark.parametrize("broken", ["gone", "empty", "not JSON"])
def test_labels_that_cannot_be_read_are_an_alert_until_they_are_restored(
    supervised: Supervised, broken: str
) -> None:
    whole = supervised.labels.read_bytes()
    if broken == "gone":
        supervised.labels.unlink()
    else:
        supervised.labels.write_text({"empty": "", "not JSON": "{\n"}[broken])
    (alert,) = supervised.watch()
    assert isinstance(alert, dg.AssetCheckEvaluation) and not alert.passed
    assert alert.asset_key == dg.AssetKey(LABEL_FILES)
    assert "labels.jsonl" in str(alert.description) and "(one, two)" in str(alert.description)
    assert supervised.watch() == [] and supervised.asked() == set()
    supervised.labels.write_bytes(whole)
    (restored,) = supervised.watch()
    assert isinstance(restored, dg.AssetCheckEvaluation) and restored.passed
    assert supervised.asked() == set()


def test_changed_solutions_start_what_the_policy_is_taught(supervised: Supervised) -> None:
    supervised.solutions.write_text('[{"query": "q"}]')
    changed = [event for event in supervised.watch() if isinstance(event, dg.AssetMaterialization)]
    assert [(event.asset_key.to_user_string(), event.partition) for event in changed] == [
        (SOLUTION_FILES, "two")
    ]
    assert supervised.asked() == {("easy_solutions", "two")}
    supervised.solutions.write_text('[{"query": "q"}')
    (alert,) = supervised.watch()
    assert isinstance(alert, dg.AssetCheckEvaluation) and not alert.passed
    assert "MetaMathQA.json: ends behind element 1" in str(alert.description)
    assert supervised.asked() == set()


def _look(*labels: Labels) -> SourceState:
    return look_at_supplied("labels", [(LABEL_SOURCES.load(each.source)(), each) for each in labels])


def test_labels_of_the_data_folder_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2H_DATA_DIR", raising=False)
    assert "set labels.path" in _look(Prm800kLabels()).error
    monkeypatch.setenv("E2H_DATA_DIR", str(tmp_path))
    assert str(tmp_path / "steps") in _look(Prm800kLabels()).error
    (tmp_path / "steps").mkdir()
    _rated(tmp_path / "steps" / "prm800k_human.jsonl", [[1]])
    (tmp_path / "steps" / "README.md").write_text("not read, so not watched")
    state = _look(Prm800kLabels())
    assert not state.error and set(state.parts) == {"prm800k_human.jsonl"}


def test_files_of_several_label_sources_are_told_apart(tmp_path: Path) -> None:
    """Two folders may have a file of the same name."""
    sources = []
    for name, rating in (("one", 1), ("two", -1)):
        (tmp_path / name).mkdir()
        _rated(tmp_path / name / "labels.jsonl", [[rating]])
        sources.append(Prm800kLabels(path=str(tmp_path / name / "labels.jsonl")))
    state = _look(*sources)
    assert set(state.parts) == set(state.sizes) == {"0 prm800k: labels.jsonl", "1 prm800k: labels.jsonl"}
    assert len(set(state.parts.values())) == 2
    assert "gone.jsonl" in _look(*sources, ShepherdLabels(path=str(tmp_path / "gone.jsonl"))).error


def test_a_local_base_model_is_watched(supervised: Supervised) -> None:
    (supervised.model / "config.json").write_text('{"hidden_size": 8}')
    (changed, _) = supervised.watch()
    assert isinstance(changed, dg.AssetMaterialization) and changed.partition == "one"
    assert changed.asset_key == dg.AssetKey(MODEL_FILES) and "config.json changed" in str(changed.description)
    assert supervised.asked() == {("base_model", "one")}
    supervised.model.rename(supervised.model.with_name("away"))
    (alert,) = supervised.watch()
    assert isinstance(alert, dg.AssetCheckEvaluation) and not alert.passed
    assert f"base.model {supervised.model}: no such folder" in str(alert.description)
    assert supervised.asked() == set()
