"""Somebody is told: a run failed, a check warned (a guard stopped a training), or a sweep has ended.

E2H_WEBHOOK    https://...: a JSON object is posted there. Its field `text` is what Slack shows.
E2H_SMTP_URL   smtp://user:password@host:587?to=a@b.org&from=c@d.org (smtps:// for TLS from the start;
               smtp:// uses TLS where the server offers it)

Addresses hold secrets: they are never logged, and errors name the host alone.
"""

from __future__ import annotations

import logging
import os
import smtplib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from urllib.parse import parse_qs, unquote, urlsplit

import dagster as dg

from e2h_pipeline.orchestration.records import failure_cause
from e2h_pipeline.stages.spec import EXPERIMENT_TAG

WEBHOOK, SMTP = "E2H_WEBHOOK", "E2H_SMTP_URL"
_SECONDS = 20
_SLACK = "hooks.slack.com"
_PARTITION_TAG = "dagster/partition"


@dataclass(frozen=True)
class Notice:
    """What is told.

    Attributes:
        text: the whole of it, for people.
        kind: run_failed, check_warned or sweep_ended.
        experiment: its key; empty for runs of no experiment, and for sweeps.
    """

    text: str
    kind: str
    experiment: str
    run_id: str


class NoticeError(RuntimeError):
    """It could not be told; the message names the host alone."""


def tell(notice: Notice, environment: Mapping[str, str]) -> list[str]:
    """Send a notice to all who are named; why it did not reach some of them."""
    ways: dict[str, Callable[[Notice, str], None]] = {WEBHOOK: _post, SMTP: _mail}
    failed = []
    for variable, way in ways.items():
        if address := environment.get(variable, ""):
            try:
                way(notice, address)
            except NoticeError as error:
                failed.append(f"{variable}: {error}")
    return failed


def _post(notice: Notice, address: str) -> None:
    import requests

    host = _host(address, ("http", "https"))
    told = {"text": notice.text} if host == _SLACK else asdict(notice)
    try:
        answer = requests.post(address, json=told, timeout=_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise NoticeError(f"{host} cannot be reached ({type(error).__name__})") from None
    if answer.status_code // 100 != 2:
        raise NoticeError(f"{host} answers {answer.status_code}")


def _mail(notice: Notice, address: str) -> None:
    host, parts = _host(address, ("smtp", "smtps")), urlsplit(address)
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if not given.get("to"):
        raise NoticeError(f"say to whom: smtp://{host}?to=somebody@example.org")
    message = EmailMessage()
    message["Subject"] = notice.text.splitlines()[0][:200]
    message["To"], message["From"] = given["to"], given.get("from", given["to"])
    message.set_content(notice.text)
    try:
        with _server(parts.scheme, host, parts.port or 0) as server:
            if parts.username:
                if not isinstance(server.sock, ssl.SSLSocket):
                    raise NoticeError(f"{host} has no TLS, and the password would be readable on its way")
                server.login(unquote(parts.username), unquote(parts.password or ""))
            server.send_message(message)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise NoticeError(f"{host} does not take mail ({type(error).__name__})") from None


def _server(scheme: str, host: str, port: int) -> smtplib.SMTP:
    """A connection, with TLS where that can be had; port 0 is the usual one."""
    safe = ssl.create_default_context()
    if scheme == "smtps":
        return smtplib.SMTP_SSL(host, port, timeout=_SECONDS, context=safe)
    server = smtplib.SMTP(host, port, timeout=_SECONDS)
    server.ehlo()
    if server.has_extn("starttls"):
        server.starttls(context=safe)
    return server


def _host(address: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(address)
        if parts.scheme in schemes and parts.hostname and (parts.port is None or parts.port > 0):
            return parts.hostname
    except ValueError:  # a port that is no number
        pass
    raise NoticeError(f"no address that begins with {schemes[0]}:// or {schemes[1]}://")


def told_status() -> dg.DefaultSensorStatus:
    """Of sensors that tell: on where somebody is named when the code is loaded."""
    named = any(os.environ.get(variable) for variable in (WEBHOOK, SMTP))
    return dg.DefaultSensorStatus.RUNNING if named else dg.DefaultSensorStatus.STOPPED


def tell_and_log(notice: Notice, log: logging.Logger) -> None:
    """Send a notice to all who are named; an error in the log says who was not reached."""
    for why in tell(notice, os.environ):
        log.error("nobody was told: %s", why)


def sensors() -> list[dg.SensorDefinition]:
    """Two sensors that tell; on where somebody is named when the code is loaded."""
    status = told_status()
    where = f"Tells {WEBHOOK} and {SMTP}, where they are set,"

    @dg.run_failure_sensor(
        name="tell_failures", default_status=status, description=f"{where} that a run failed, and why."
    )
    def tell_failures(context: dg.RunFailureSensorContext) -> None:
        tell_and_log(failure_notice(context.dagster_run, context.get_step_failure_events()), context.log)

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="tell_warnings",
        default_status=status,
        description=f"{where} that a check of a run warned: a guard stopped its training.",
    )
    def tell_warnings(context: dg.RunStatusSensorContext) -> None:
        notice = warning_notice(context.instance, context.dagster_run)
        if notice is not None:
            tell_and_log(notice, context.log)

    return [tell_failures, tell_warnings]


def failure_notice(run: dg.DagsterRun, failures: Sequence[dg.DagsterEvent]) -> Notice:
    """That a run failed, where and why."""
    key = _experiment(run)
    why = f": {failures[0].step_key}: {failure_cause(failures[0])}" if failures else "; see its log"
    return Notice(f"e2h: {key or run.job_name} failed{why}\nrun {run.run_id}", "run_failed", key, run.run_id)


def warning_notice(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Notice | None:
    """What the checks of a run warned of; None where none did."""
    found = []
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        event = entry.dagster_event
        check = event.asset_check_evaluation_data if event else None
        if check and not check.passed and check.severity == dg.AssetCheckSeverity.WARN:
            what = check.metadata.get("findings")
            found.append(f"{check.asset_key.to_user_string()}: {what.value if what else check.check_name}")
    if not found:
        return None
    key = _experiment(run)
    return Notice(f"e2h: {key}: {'; '.join(found)}\nrun {run.run_id}", "check_warned", key, run.run_id)


def _experiment(run: dg.DagsterRun) -> str:
    return run.tags.get(EXPERIMENT_TAG) or run.tags.get(_PARTITION_TAG, "")
