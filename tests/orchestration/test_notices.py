"""Who is told of what, by real servers on loopback."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import toy_stages as toy
from webhook import Hook, hook

from assets.checks import training_not_stopped
from e2h_pipeline.orchestration import notices
from e2h_pipeline.orchestration.notices import Notice, failure_notice, sensors, tell, warning_notice
from e2h_pipeline.orchestration.records import failure_cause

__all__ = ["hook"]
NOTICE = Notice("e2h: toy failed: it broke\nrun 1", "run_failed", "toy", "1")


class _Mailbox(socketserver.StreamRequestHandler):
    """A mail server without TLS, as far as one message needs it."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        lines: list[str] = []
        for line in self.rfile:
            word = line.decode().strip().upper()
            if word.startswith("QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            if word == "DATA":
                self.wfile.write(b"354 go on\r\n")
                while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    lines.append(text)
                self.server.got.append("\n".join(lines))  # type: ignore[attr-defined]
            self.wfile.write(b"250 ok\r\n")


@pytest.fixture
def mailbox() -> Iterator[tuple[int, list[str]]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mailbox) as server:
        server.got = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], server.got  # type: ignore[attr-defined]
        server.shutdown()


def test_a_webhook_gets_json_whose_text_is_for_people(hook: tuple[str, type[Hook]]) -> None:
    address, kind = hook
    assert tell(NOTICE, {notices.WEBHOOK: address}) == []
    assert kind.got == [{"text": NOTICE.text, "kind": "run_failed", "experiment": "toy", "run_id": "1"}]


def test_a_mail_says_in_its_subject_what_it_is_about(mailbox: tuple[int, list[str]]) -> None:
    port, got = mailbox
    assert tell(NOTICE, {notices.SMTP: f"smtp://127.0.0.1:{port}?to=a@example.org&from=b@example.org"}) == []
    (mail,) = got
    assert "Subject: e2h: toy failed: it broke" in mail and "To: a@example.org" in mail and "run 1" in mail


def test_a_password_does_not_travel_in_the_open(mailbox: tuple[int, list[str]]) -> None:
    port, got = mailbox
    (why,) = tell(NOTICE, {notices.SMTP: f"smtp://me:pass-word@127.0.0.1:{port}?to=a@example.org"})
    assert "has no TLS" in why and "pass-word" not in why and got == []


@pytest.mark.parametrize("answer", [302, 403, 500])
def test_an_answer_that_is_no_yes_is_told_without_the_address(
    hook: tuple[str, type[Hook]], answer: int
) -> None:
    address, kind = hook
    kind.answer = answer
    assert tell(NOTICE, {notices.WEBHOOK: address}) == [f"E2H_WEBHOOK: 127.0.0.1 answers {answer}"]


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/token",
        "token",
        "http://",
        "http://host:port/token",
        "http://127.0.0.1:1/token",
        "http://[/",
    ],
)
def test_what_cannot_be_reached_is_one_line_without_secrets(address: str) -> None:
    (why,) = tell(NOTICE, {notices.WEBHOOK: address})
    assert "token" not in why and "\n" not in why


def test_mail_needs_somebody() -> None:
    (why,) = tell(NOTICE, {notices.SMTP: "smtp://127.0.0.1"})
    assert why == "E2H_SMTP_URL: say to whom: smtp://127.0.0.1?to=somebody@example.org"


def test_a_failure_says_what_where_and_why(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_policy], raise_on_error=False)
        failures = [event for event in result.all_events if event.is_step_failure]
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        notice = failure_notice(run, failures)
    assert notice.text.splitlines()[0] == f"e2h: toy failed: toy_policy: {failure_cause(failures[0])}"
    assert (notice.experiment, notice.run_id) == ("toy", result.run_id)


@pytest.mark.parametrize("passed", [True, False])
def test_a_warning_is_told_where_there_is_one(passed: bool) -> None:
    assert next(iter(training_not_stopped.check_specs)).name == "training_not_stopped"  # what warns today

    @dg.asset
    def policy() -> None: ...

    @dg.asset_check(asset=policy)
    def watched() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata={"findings": "a guard stopped it"}
        )

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([policy, watched], instance=instance, tags={"e2h/experiment": "toy"})
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        notice = warning_notice(instance, run)
    told = None if notice is None else notice.text.splitlines()[0]
    assert told == (None if passed else "e2h: toy: policy: a guard stopped it")


@pytest.mark.parametrize("named", [True, False])
def test_the_sensors_run_where_somebody_is_named(monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    monkeypatch.setenv(notices.WEBHOOK, "http://127.0.0.1:1" if named else "")
    wanted = dg.DefaultSensorStatus.RUNNING if named else dg.DefaultSensorStatus.STOPPED
    assert {sensor.default_status for sensor in sensors()} == {wanted}


def test_the_failure_sensor_tells(
    tmp_path: Path, hook: tuple[str, type[Hook]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, kind = hook
    monkeypatch.setenv(notices.WEBHOOK, address)
    sensor = next(one for one in sensors() if one.name == "tell_failures")
    with dg.DagsterInstance.ephemeral() as instance:
        result = toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_policy], raise_on_error=False)
        (failed,) = (event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE")
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        context = dg.build_run_status_sensor_context(
            sensor_name=sensor.name, dagster_event=failed, dagster_instance=instance, dagster_run=run
        )
        sensor(context.for_run_failure())
    assert "toy_easy was never materialized for toy" in kind.got[0]["text"]
