"""Dagster's local launcher, which also notes the host of each run.

With one database for several hosts (Postgres) or containers (SQLite on a volume), only that host
can tell whether the run's process is alive. dagster.yaml and deploy/dagster-postgres.yaml name this
class as `run_launcher`.
"""

from __future__ import annotations

import socket

from dagster._core.launcher import DefaultRunLauncher, LaunchRunContext

HOST_TAG = "e2h/host"


class HostRunLauncher(DefaultRunLauncher):
    """Starts runs in processes of the code server, as Dagster's default does."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Tag the run with this host, then start it."""
        self._instance.add_run_tags(context.dagster_run.run_id, {HOST_TAG: host()})
        super().launch_run(context)


def host() -> str:
    """This host as a Dagster tag value: letters, digits, _ - and dots, at most 63 characters."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in socket.gethostname())[:63] or "local"
