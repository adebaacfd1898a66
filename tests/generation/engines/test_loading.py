"""Engines by word: light to load, and no engine in the key of another's samples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from e2h_pipeline import registry
from e2h_pipeline.artifacts.code_version import code_of
from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.engines.protocol import Engine, Sample, SampleRequest, SamplingOptions
from e2h_pipeline.registry import ENGINES, RegistryError
from e2h_pipeline.solutions import TextFormat


class Parrot:
    """An engine of an installed package: repeats the prompt."""

    def open(self, model: Path) -> Engine:
        return self

    def version(self) -> dict[str, str]:
        return {"parrot": "1.0"}

    def sample(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: object = None
    ) -> list[list[Sample]]:
        return [[Sample(i, r.prompt, (1,), "stop", 0.0) for i in range(r.count)] for r in requests]


def test_engines_of_installed_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "installed", lambda group: {"parrot": f"{__name__}:Parrot"})
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Parrot.__module__])
    engine = load_engine("parrot", tmp_path)
    request = SampleRequest("1+1", TextFormat(question_heading="# Sum"), 0, 1)
    assert engine.sample([request], SamplingOptions(0, 1))[0][0].completion.startswith("# Sum\n\n1+1")
    with pytest.raises(RegistryError, match="engine: no 'vroom'; there are transformers, vllm, parrot"):
        load_engine("vroom", tmp_path)


def test_entries_are_light_to_import() -> None:
    modules = ", ".join(ENGINES.target(word).partition(":")[0] for word in ENGINES.entries)
    heavy = "{'torch', 'transformers', 'vllm'}"
    code = f"import sys; import {modules}, e2h_pipeline.generation.sample_pool; assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _modules(code: registry.Code) -> set[str]:
    from e2h_pipeline.artifacts.code_version import _closure

    return {module for module, _ in _closure(code.uses, code.packages)}


def test_no_engine_is_in_the_code_of_pools_but_the_chosen_one() -> None:
    def body(job: object) -> object:
        from e2h_pipeline.generation.sample_pool import answers_pool, sample_pool
        from e2h_pipeline.generation.search.independent import Independent

        return sample_pool, answers_pool, Independent

    engines = "e2h_pipeline.generation.engines"
    common, embedded = _modules(code_of(body)), _modules(ENGINES.code("transformers"))
    assert {f"{engines}.loading", f"{engines}.protocol"} <= common
    assert not {f"{engines}.{name}" for name in ("embedded", "transformers_engine", "vllm_engine")} & common
    assert f"{engines}.transformers_engine" in embedded
    assert not any(module.startswith(f"{engines}.vllm") for module in common | embedded)
    assert {f"{engines}.vllm_engine", f"{engines}.vllm_sampler"} <= _modules(ENGINES.code("vllm"))
