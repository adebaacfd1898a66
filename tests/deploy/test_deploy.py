"""Dagster accepts the configuration in deploy/; launchers are checked against their packages'
schemas (extra dev)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "dagster.yaml"
VARIANTS = [
    ROOT / "deploy" / name
    for name in ("dagster-postgres.yaml", "kubernetes/dagster.yaml", "ray/dagster.yaml")
]


def _read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [SHIPPED, *VARIANTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_dagster_takes_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("E2H_POSTGRES_URL", "E2H_RAY_JOBS"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    dagster_instance_config(str(path.parent), config_filename=path.name)
    launcher = _read(path).get("run_launcher")
    if launcher:
        module = pytest.importorskip(launcher["module"], reason=f"{launcher['module']} is not installed")
        schema = getattr(module, launcher["class"]).config_type()
        done = process_config(resolve_to_config_type(schema), launcher.get("config", {}))
        assert done.success, done.errors


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_variants_differ_only_where_they_have_to(path: Path) -> None:
    """A new setting in dagster.yaml must be added to the variants."""
    shipped, variant = _read(SHIPPED), _read(path)
    assert variant.keys() - shipped.keys() == {"storage"}
    assert shipped.keys() - variant.keys() == {"instance_class"}  # for SQLite only
    for section in ("telemetry", "nux", "run_retries"):
        assert variant[section] == shipped[section]
    for section in ("run_monitoring", "concurrency"):
        assert variant[section].keys() == shipped[section].keys()


@pytest.mark.parametrize("path", [SHIPPED, VARIANTS[0]], ids=lambda path: path.name)
def test_the_local_launcher_is_ours(path: Path) -> None:
    named = _read(path)["run_launcher"]
    assert getattr(importlib.import_module(named["module"]), named["class"]).__name__ == "HostRunLauncher"


def test_kubernetes_files_are_yaml_and_ask_for_a_gpu() -> None:
    (job,) = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "gpu-job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1 and container["command"][:2] == [
        "e2h",
        "run",
    ]
    values = _read(ROOT / "deploy" / "kubernetes" / "values.yaml")
    assert values["dagsterWebserver"]["service"]["type"] == "ClusterIP"
