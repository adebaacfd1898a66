"""Sweeps launched by the schedule and the sensor: a real file, a real instance and tiny stages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from planted_checks import WHY, report_check
from tiny_experiment import new_home
from webhook import Hook, hook

from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.definitions import build
from e2h_pipeline.operations.runner import run_experiment
from e2h_pipeline.orchestration.automation import JOB
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.planning import add_experiments
from e2h_pipeline.sweeps.page import write_page
from e2h_pipeline.sweeps.sensors import changed_sweeps, daily_sweeps, sweep_pages, sweep_summaries
from e2h_pipeline.sweeps.spec import Member, load_sweep
from e2h_pipeline.sweeps.status import MemberStatus, as_row, sweep_status

__all__ = ["hook"]

SWEEP = """
recipe: tiny
axes: {seed: [1, 2]}
select: +easy_problems
retries: 2
priority: 3
daily: true
"""
STAGES = {"recipe", "problem_source", "easy_problems"}
KEYS = ["tiny/seed=1", "tiny/seed=2"]
TAGS = {
    "e2h/sweep": "small",
    "dagster/priority": "3",
    "dagster/max_retries": "2",
    "dagster/retry_on_asset_or_op_failure": "true",
}


@lru_cache(maxsize=1)
def definitions() -> dg.Definitions:
    """The code location."""
    return build()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = new_home(tmp_path / "e2h")
    (folder / "sweeps").mkdir()
    monkeypatch.setenv("E2H_HOME", str(folder))
    return folder


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as found:
        yield found


def write(home: Path, text: str, name: str = "small") -> None:
    (home / "sweeps" / f"{name}.yaml").write_text(text)


def night(instance: dg.DagsterInstance, day: int = 1) -> ScheduleExecutionData:
    """One tick of the schedule, evaluated like the daemon's."""
    when = datetime(2026, 11, day, 2, tzinfo=UTC)
    repository = definitions().get_repository_def()
    with dg.build_schedule_context(instance, when, repository_def=repository) as context:
        return daily_sweeps().evaluate_tick(context)


def look(instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[dg.RunRequest], str, str]:
    """One tick of the sensor: its launches, its cursor, and the reason if it launches nothing."""
    repository = definitions().get_repository_def()
    reference = instance.get_ref()
    with dg.build_sensor_context(cursor=cursor, repository_def=repository, instance_ref=reference) as context:
        found = changed_sweeps().evaluate_tick(context)
    return list(found.run_requests or []), str(found.cursor), str(found.skip_message)


def run(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.DagsterRun:
    """Execute the launched runs here instead of in a run worker."""
    result = (
        definitions()
        .resolve_job_def(JOB)
        .execute_in_process(
            instance=instance,
            partition_key=request.partition_key,
            asset_selection=list(request.asset_selection or []),
            tags=dict(request.tags),
            raise_on_error=False,
        )
    )
    found = instance.get_run_by_id(result.run_id)
    assert found is not None
    return found


def test_the_schedule_launches_what_is_not_made_and_nothing_else(
    home: Path, instance: dg.DagsterInstance
) -> None:
    write(home, SWEEP)
    write(home, SWEEP.replace("daily: true", "daily: false").replace("1, 2", "3"), "other")
    run_experiment(KEYS[0], home, "+easy_problems", lambda _: None)
    (request,) = night(instance).run_requests
    assert request.partition_key == KEYS[1]
    assert {key.to_user_string() for key in request.asset_selection} == STAGES
    assert request.tags.items() >= TAGS.items()
    assert instance.get_dynamic_partitions("experiment") == KEYS
    assert [again.run_key for again in night(instance).run_requests] == [
        request.run_key
    ]  # the daemon drops it
    assert night(instance, 2).run_requests[0].run_key != request.run_key
    assert run(instance, request).is_success
    after = night(instance, 2)
    assert not after.run_requests
    assert after.skip_message == "nothing to do in 1 sweeps with daily: true"


def test_a_member_that_runs_is_not_launched_again(home: Path, instance: dg.DagsterInstance) -> None:
    write(home, SWEEP)
    add_experiments(instance, KEYS)
    instance.create_run_for_job(
        definitions().resolve_job_def(JOB),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": KEYS[0], "e2h/host": "elsewhere"},
    )
    assert [request.partition_key for request in night(instance).run_requests] == KEYS[1:]


def test_two_sweeps_that_share_a_member_launch_it_once(home: Path, instance: dg.DagsterInstance) -> None:
    write(home, SWEEP)
    write(home, SWEEP.replace("1, 2", "2, 3"), "wider")
    launched = [request.partition_key for request in night(instance).run_requests]
    assert launched == [*KEYS, "tiny/seed=3"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("recipe: [", "not valid YAML"),
        ("recipe: nothing\naxes: {seed: [1]}\ndaily: true", "no recipe 'nothing'"),
        ("recipe: tiny\naxes: {seed: [1]}\ndaily: true\nselect: +easy_pm", "'+easy_pm' names no stage"),
        ("recipe: tiny\naxes: {seed: [1]}\ndaily: true\nselect: 'a ('", "select: "),
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40)),
            "more than",
        ),
        ("description: caf\udce9", "not UTF-8"),
        (f"recipe: tiny\naxes: {{seed: [{'9' * 6000}]}}\ndaily: true", "recipe key is longer"),
        ("axes: " + "[" * 5000, "nested deeper"),
        (None, "nothing to do in 0 sweeps"),
    ],
    ids=[
        "no YAML",
        "no recipe",
        "no stage",
        "no selection",
        "aliases",
        "no UTF-8",
        "digits",
        "deep",
        "no file",
    ],
)
def test_a_sweep_that_cannot_be_used_holds_up_no_other(
    home: Path, instance: dg.DagsterInstance, text: str | None, says: str
) -> None:
    bad = home / "sweeps" / "bad.yaml"
    bad.parent.mkdir(exist_ok=True)
    if text is None:
        bad.mkdir()
    else:
        bad.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert says in night(instance).skip_message
    write(home, SWEEP)
    assert [request.partition_key for request in night(instance).run_requests] == KEYS
    launched, cursor, _ = look(instance, "{}")
    assert [request.partition_key for request in launched] == KEYS
    launched, _, why = look(instance, cursor)
    assert not launched
    assert why == ("cannot be used, see the log: bad" if text else "no new or edited sweep file")


def test_the_sensor_launches_a_file_that_is_new_or_edited_once(
    home: Path, instance: dg.DagsterInstance
) -> None:
    write(home, SWEEP.replace("1, 2", "8, 9"), "before")
    launched, cursor, why = look(instance, None)
    assert (launched, why) == ([], "no new or edited sweep file")  # existed when the sensor was switched on
    run_experiment(KEYS[0], home, "+easy_problems", lambda _: None)
    write(home, SWEEP)
    (request,), cursor, _ = look(instance, cursor)
    assert request.partition_key == KEYS[1]
    assert request.tags.items() >= TAGS.items()
    launched, cursor, why = look(instance, cursor)
    assert (launched, why) == ([], "no new or edited sweep file")
    assert run(instance, request).is_success
    write(home, SWEEP + "description: other words\n")
    launched, cursor, why = look(instance, cursor)
    assert (launched, why) == ([], "nothing to do in new or edited sweep files")
    write(home, SWEEP.replace("1, 2", "2, 3"))
    launched, cursor, _ = look(instance, cursor)
    assert [request.partition_key for request in launched] == ["tiny/seed=3"]
    assert set(json.loads(cursor)) == {"before", "small"}


@pytest.mark.parametrize("retries", [0, 2])
def test_a_stage_that_fails_is_tried_again_as_often_as_the_sweep_says(
    home: Path, instance: dg.DagsterInstance, retries: int
) -> None:
    """dagster.yaml forbids this for failed stages; Dagster's reading of the tags is on the run."""
    write(
        home,
        "recipe: tiny/problems.source=math/problems.path=nothing-there\naxes: {seed: [1]}\ndaily: true\n"
        f"select: +problem_source\nretries: {retries}\n",
    )
    (request,) = night(instance).run_requests
    failed = run(instance, request)
    assert failed.status == dg.DagsterRunStatus.FAILURE
    assert failed.tags["dagster/failure_reason"] == "STEP_FAILURE"
    assert failed.tags["dagster/will_retry"] == str(retries > 0).lower()


def pages(instance: dg.DagsterInstance, cursor: str | None) -> tuple[str, str]:
    """One tick of the sensor that writes pages: its message and its cursor."""
    with dg.build_sensor_context(cursor=cursor, instance_ref=instance.get_ref()) as context:
        found = sweep_pages().evaluate_tick(context)
    return str(found.skip_message), str(found.cursor)


def summaries(instance: dg.DagsterInstance, cursor: str | None) -> tuple[str, str]:
    """One tick of the sensor that tells of ended sweeps: its message and its cursor."""
    with dg.build_sensor_context(cursor=cursor, instance_ref=instance.get_ref()) as context:
        found = sweep_summaries().evaluate_tick(context)
    return str(found.skip_message), str(found.cursor)


def test_a_launched_sweep_has_a_page_while_it_runs_and_is_told_of_once_it_has_ended(
    home: Path,
    instance: dg.DagsterInstance,
    hook: tuple[str, type[Hook]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, kind = hook
    monkeypatch.setenv("E2H_WEBHOOK", address)
    _, told = summaries(instance, None)
    write(home, SWEEP + "description: <script>alert(1)</script>\n")
    page = home / "reports" / "sweep-small.html"
    assert pages(instance, None)[0] == "no sweep has a new or changed run"
    first, second = night(instance).run_requests
    going_on = instance.create_run_for_job(
        definitions().resolve_job_def(JOB),
        status=dg.DagsterRunStatus.STARTED,
        tags={**first.tags, "dagster/partition": KEYS[0], "e2h/host": "elsewhere"},
    )
    said, cursor = pages(instance, None)
    assert said == str(page)
    assert "1 running" in page.read_text() and "1 missing" in page.read_text()
    later = str(float(cursor) + 3600)
    page.unlink()
    assert pages(instance, later)[0] == str(page)  # it still goes on
    said, told = summaries(instance, told)
    assert said == "no sweep has ended" and not kind.got
    instance.report_run_canceled(going_on)
    page.unlink()
    assert run(instance, second).is_success
    assert pages(instance, cursor)[0] == str(page)
    assert "1 made" in page.read_text() and "running" not in page.read_text().split("<body>")[1]
    assert "&lt;script&gt;" in page.read_text() and "<script" not in page.read_text()
    assert pages(instance, later)[0] == "no sweep has a new or changed run"
    for _ in range(2):
        _, told = summaries(instance, told)
    (notice,) = kind.got
    assert notice["kind"] == "sweep_ended"
    assert notice["text"].splitlines() == [
        "e2h: sweep small has ended: 1 made, 1 missing of 2 members",
        f"page: {page}",
    ]
    a_member_with_a_leak_is_not_made(instance, home)


def a_member_with_a_leak_is_not_made(instance: dg.DagsterInstance, home: Path) -> None:
    """Of a sweep whose second member is made: a check of the firewall fails, and passes again."""
    sweep, store = load_sweep("small", [home / "sweeps"]), ArtifactStore(home)
    report_check(instance, KEYS[1], passed=False)
    _, row = sweep_status(instance, store, sweep)
    leak = f"check split_integrity of easy_problems failed: {WHY}"
    assert (row.state, row.error, row.standing.leaks) == (
        "failed",
        f"supervision firewall: {leak}",
        (leak,),
    )
    assert as_row(row)["leaks"] == [leak] and as_row(row)["strict"] is True
    forged = dg.AssetCheckEvaluation(
        dg.AssetKey("easy_problems"), "split_integrity", passed=True, metadata={}, partition=KEYS[1]
    )
    instance.report_runless_asset_event(forged)  # from outside: it clears nothing
    assert sweep_status(instance, store, sweep)[1].state == "failed"
    report_check(instance, KEYS[1], passed=True)
    assert sweep_status(instance, store, sweep)[1].state == "made"


def test_numbers_that_cannot_be_read_leave_the_rest_of_the_page(
    home: Path, instance: dg.DagsterInstance
) -> None:
    """A record made by another program: `e2h results` refuses it."""
    instance.report_runless_asset_event(dg.AssetMaterialization("benchmark_metrics", partition="tiny"))
    instance.report_runless_asset_event(dg.AssetMaterialization("report", partition="tiny"))
    rows = [MemberStatus(Member("tiny", {"seed": 0}), "made", made=7, stages=7)]
    write(home, SWEEP)
    page = write_page(ArtifactStore(home), load_sweep("small", [home / "sweeps"]), rows)
    assert "7/7" in page.read_text()
