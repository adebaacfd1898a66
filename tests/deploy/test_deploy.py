"""Dagster accepts the configuration in deploy/; launchers are checked against their packages'
schemas (extra dev)."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config
from dagster._core.secrets.env_file import get_env_var_dict

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.recipe.keys import recipe_names

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


def test_the_image_runs_as_nobody_and_is_the_one_that_kubernetes_names() -> None:
    """Nothing here can build it: docs/production.md says how far its steps were tried."""
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line[:1].isupper()]
    (user,) = (value for step, value in steps if step == "USER")
    assert user not in ("root", "0") and f"useradd --create-home --uid 10001 {user}" in text
    values, job = (ROOT / "deploy" / "kubernetes" / name for name in ("values.yaml", "gpu-job.yaml"))
    (deployment,) = _read(values)["dagster-user-deployments"]["deployments"]
    image = f"{deployment['image']['repository']}:{deployment['image']['tag']}"
    assert f"-t {image} ." in text and f"image: {image}" in job.read_text(encoding="utf-8")
    (mount,) = deployment["volumeMounts"]
    assert ["VOLUME", mount["mountPath"]] in steps and f"E2H_HOME={mount['mountPath']} " in text
    copied = next(value for step, value in steps if step == "COPY").split()[:-1]
    ignored = (ROOT / "deploy" / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert set(copied) <= kept and all((ROOT / name).exists() for name in kept)
    (torch,) = re.findall(r"^torch==\S+", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert f"{torch}+cpu" in text


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "slurm").iterdir()), ids=lambda path: path.name)
def test_slurm_scripts_are_shell_and_name_files_and_recipes_that_exist(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text(encoding="utf-8")
    assert all((ROOT / name).is_file() for name in re.findall(r"deploy/[\w./-]+\w", text))
    for recipe in re.findall(r"sbatch deploy/\S+ (\S+)", text):
        assert recipe in recipe_names()


def test_env_gives_dagsters_own_commands_the_same_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dagster dev` and `dg dev` read .env, which `make setup` writes."""
    (line,) = re.findall(r"printf '(.*)' \"\$\(CURDIR\)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    written = line.replace("$$", "$").replace("\\n", "\n") % (ROOT / ".e2h")
    (tmp_path / ".env").write_text(written)
    monkeypatch.delenv("E2H_HOME", raising=False)
    wanted = {"E2H_HOME": str(home()), "DAGSTER_HOME": str(home() / "dagster")}
    assert get_env_var_dict(str(tmp_path)) == wanted
    monkeypatch.setenv("E2H_HOME", "/elsewhere")
    assert get_env_var_dict(str(tmp_path))["DAGSTER_HOME"] == "/elsewhere/dagster"
