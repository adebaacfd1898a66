"""The supervision firewall at the door: a stage that trains or selects is not started on hidden
answers, whatever part of the graph was asked for; and a failed check marks every number."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import toy_stages as toy
from tiny_experiment import new_home

from assets import checks
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.lineage import trace
from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.operations.runner import RunError, run_experiment
from e2h_pipeline.orchestration.experiments import Experiments
from e2h_pipeline.orchestration.planning import stage_order
from e2h_pipeline.orchestration.standing import was_strict
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.stages.asset import FirewallError, _require_no_leak, stage
from e2h_pipeline.stages.spec import STAGES
from resources.compute import BODIES
from resources.store import DagsterLedger


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture(autouse=True)
def _stages_as_they_were() -> Iterator[None]:
    stage_order()  # fills STAGES
    stages, bodies = dict(STAGES), dict(BODIES)
    yield
    for kept, now in ((stages, STAGES), (bodies, BODIES)):
        now.clear()
        now.update(kept)


RAN: list[str] = []


def stand_in(name: str, *reads: str, audit: bool = False) -> dg.AssetsDefinition:
    """A stage of the real graph's name that writes a file and notes that it ran."""

    def body(job: StageJob) -> dict[str, Any]:
        RAN.append(name)
        (job.out / "data.txt").write_text("made")
        return {}

    return stage(name=name, group="toy", reads=reads, audit=audit)(body)


def run(
    home: Path, instance: dg.DagsterInstance, assets: list[Any], select: str | None = None
) -> dg.ExecuteInProcessResult:
    RAN.clear()
    instance.add_dynamic_partitions("experiment", [toy.KEY])
    return dg.materialize(
        [toy.recipe, *assets],
        instance=instance,
        partition_key=toy.KEY,
        resources=toy.resources(home),
        selection=None if select is None else dg.AssetSelection.from_string(select),
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def why(result: dg.ExecuteInProcessResult) -> str:
    """The first failure."""
    (event, *_) = [e for e in result.all_events if e.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    return f"{event.step_key}: {error.cause.message if error.cause else error.message}"


def leaking_graph() -> list[Any]:
    """Step labels that declare gold answers, as in an edit of the code; numbers stop at
    rerank_metrics."""
    return [
        stand_in("gold_answers", audit=True),
        stand_in("easy_step_labels", "gold_answers"),
        stand_in("easy_evaluator", "easy_step_labels"),
        stand_in("rerank_metrics", "easy_evaluator", "gold_answers", audit=True),
        *(each for each in (checks.easy_evaluator_firewall, checks.rerank_metrics_firewall)),
    ]


@pytest.mark.parametrize(
    "select", [None, '+key:"rerank_metrics"', '+key:"easy_evaluator"', '+key:"easy_step_labels"']
)
def test_a_declared_leak_is_refused_before_it_runs(
    tmp_path: Path, instance: dg.DagsterInstance, select: str | None
) -> None:
    result = run(tmp_path, instance, leaking_graph(), select)
    assert not result.success
    assert "easy_step_labels: " in why(result) and "supervision firewall" in why(result)
    assert set(RAN) == {"gold_answers"}
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert made == {"recipe", "gold_answers"}


def test_a_leak_through_an_audit_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """Labels that call themselves an audit do not launder answers."""
    graph = [
        stand_in("gold_answers", audit=True),
        stand_in("easy_step_labels", "gold_answers", audit=True),
        stand_in("easy_evaluator", "easy_step_labels"),
    ]
    result = run(tmp_path, instance, graph)
    assert "easy_evaluator: " in why(result)
    assert "easy_evaluator reads easy_step_labels, gold_answers" in why(result)
    assert set(RAN) == {"gold_answers", "easy_step_labels"}


def artifact(store: ArtifactStore, asset: str, *inputs: Artifact, **recipe: Any) -> Artifact:
    def make(draft: Draft) -> None:
        (draft.out / "data.txt").write_text(asset)

    refs = {a.asset: InputRef(key=a.key, data_version=a.data_version) for a in inputs}
    return store.obtain(Request(asset, "c0de", recipe, refs), make)[0]


def test_an_artifact_of_earlier_code_that_saw_answers_is_refused(tmp_path: Path) -> None:
    """The declaration is mended, the artifact is there still."""
    store = ArtifactStore(tmp_path)
    easy = artifact(store, "toy_easy", artifact(store, "toy_gold"))
    with pytest.raises(FirewallError, match=r"toy_easy .* was made from toy_gold, and toy_policy would be"):
        _require_no_leak(STAGES["toy_policy"], [trace(store, easy)])
    _require_no_leak(STAGES["toy_score"], [trace(store, artifact(store, "toy_gold"))])


def test_a_run_with_a_declared_leak_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = new_home(tmp_path / "e2h")
    leaking = replace(STAGES["easy_step_labels"], reads=("easy_problems", "gold_answers"))
    monkeypatch.setitem(STAGES, "easy_step_labels", leaking)
    with pytest.raises(RunError, match="supervision firewall: easy_step_labels reads gold_answers"):
        run_experiment("tiny", home, "+rerank_metrics", lambda event: None)
    assert not (home / "store").exists()


def numbers(job: StageJob) -> dict[str, Any]:
    """A row of numbers."""
    row = {
        "policy": "sft",
        "method": "majority",
        "evaluator": "",
        "aggregation": "",
        "n": 1,
        "levels": "hard",
    }
    told = {"benchmark": "TOY", "accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.6, "problems": 10, "grader": "x"}
    write_table(job.out / "metrics.parquet", pa.Table.from_pylist([{**row, **told}]))
    return {}


def test_a_failed_check_marks_every_number_until_it_passes(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """A check that looks at content: an answer in a column of the benchmark's questions."""
    ids = [f"b{i}" for i in range(20)]
    shown = {"problem_id": ids, "question": [f"Question {i}?" for i in range(20)]}
    tables = {"told": {**shown, "remark": [str(17 * i) for i in range(20)]}, "silent": shown}

    def questions(which: str) -> dg.AssetsDefinition:
        def benchmark_questions(job: StageJob) -> dict[str, Any]:
            write_table(job.out / "data.parquet", pa.table(tables[which]))
            return {}

        return stage(name="benchmark_questions", group="toy", external=lambda recipe: which)(
            benchmark_questions
        )

    def gold(job: StageJob) -> dict[str, Any]:
        write_table(
            job.out / "data.parquet",
            pa.table({"problem_id": ids, "answer": [str(17 * i) for i in range(20)]}),
        )
        return {}

    def graph(which: str) -> list[Any]:
        return [
            stage(name="gold_answers", group="toy", audit=True)(gold),
            questions(which),
            checks.benchmark_questions_without_answers,
        ]

    metrics = stage(name="rerank_metrics", group="toy", audit=True, recipe=["evaluation"])(numbers)
    experiments = Experiments(DagsterLedger(instance), ArtifactStore(tmp_path))
    run(tmp_path, instance, [metrics])
    assert experiments.standing(toy.KEY).note == ""

    run(tmp_path, instance, graph("told"))
    (row,) = experiments.results(toy.KEY)
    assert row["strict"] is True
    assert row["leaks"] == [
        "check no_answers of benchmark_questions failed: benchmark_questions has column remark, which holds "
        "answers: 20 of 20 rows, 1.0 expected by chance"
    ]
    assert experiments.standing(toy.KEY).note == "LEAK"
    assert experiments.standing("another").leaks == ()

    run(tmp_path, instance, graph("silent"))
    assert experiments.results(toy.KEY)[0]["leaks"] == []


@pytest.mark.parametrize(
    ("recipe", "slices", "strict"),
    [
        ({"strict": True}, [{"problems": {"source": "math", "easy_levels": [1, 2, 3]}}], True),
        ({"strict": False}, [], False),
        ({"strict": True}, [{"problems": {"source": "math", "easy_levels": [1, 2, 3, 4]}}], False),
        ({"strict": True}, [{}, {"problems": {"source": "math", "hard_answers": True}}], False),
        (None, [{"problems": {"source": "gone", "easy_levels": [1, 9]}}], True),
        ({"strict": True}, [{"reward": {"kind": "prm"}}, {"reward": {"kind": "gone"}}], True),
        ({"strict": True}, [{}, {"reward": {"kind": "outside"}}], False),
    ],
)
def test_strictness_is_that_of_what_fed_a_number(
    recipe: dict[str, Any] | None, slices: list[dict[str, Any]], strict: bool
) -> None:
    """Also where the recipe says strict again and the numbers are of before."""
    assert was_strict(recipe, slices) is strict


def test_a_ceiling_is_marked_in_its_rows(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    toy.write_recipe(tmp_path, "problems: {easy_levels: [1, 2, 3, 4, 5]}\nstrict: false\n")
    run(
        tmp_path,
        instance,
        [stage(name="rerank_metrics", group="toy", audit=True, recipe=["evaluation"])(numbers)],
    )
    (row,) = Experiments(DagsterLedger(instance), ArtifactStore(tmp_path)).results(toy.KEY)
    assert (row["strict"], row["leaks"]) == (False, [])


def test_mlflow_is_told_of_a_failed_check_and_of_its_mend(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    from resources.tracking import ExperimentInfo, StageInfo, TrackingResource, local_database

    tracking, log = TrackingResource(uri=local_database(tmp_path)), logging.getLogger("test")
    info = StageInfo(ExperimentInfo(toy.KEY), "sft_policy", "k" * 64, "run-1", {}, {}, strict=False)
    with tracking.stage_run(tmp_path, info, log) as opened:
        opened.open()
    tracking.mark(tmp_path, toy.KEY, {"e2h.firewall.rerank_metrics:supervision_firewall": "a leak"}, log)
    tracking.mark(tmp_path, "another", {"e2h.firewall.x:y": "a leak"}, log)
    client = MlflowClient(local_database(tmp_path))
    experiment = client.get_experiment_by_name("e2h")
    tags = {r.info.run_name: r.data.tags for r in client.search_runs([experiment.experiment_id])}
    assert tags.keys() == {toy.KEY, f"sft_policy · {toy.KEY}", "another"}
    assert tags[f"sft_policy · {toy.KEY}"]["e2h.strict"] == "false"
    for name in (toy.KEY, f"sft_policy · {toy.KEY}"):
        assert tags[name]["e2h.firewall.rerank_metrics:supervision_firewall"] == "a leak"
        assert "e2h.firewall.x:y" not in tags[name]
    TrackingResource(uri="http://127.0.0.1:9").mark(
        tmp_path, toy.KEY, {"x": "y"}, log
    )  # no server: a warning


def test_every_recipe_that_ships_is_strict_or_says_so() -> None:
    assert Recipe.from_key("ladder").strict and not Recipe.from_key("ladder-ceiling").strict


def test_no_other_stage_can_call_itself_the_split() -> None:
    def second_split(job: StageJob) -> dict[str, Any]:
        return {}

    with pytest.raises(ValueError, match=r"only the split of the problems \(assets\.problems\) declassifies"):
        stage(group="toy", reads=["problem_source"], declassifies=True)(second_split)
