"""What a run of an experiment would do, before anything is computed or downloaded.

It names the stages, with what each reuses; what is missing (data, models, disk, the engine); and
about how long it takes. Times are those of earlier runs of the same stage in this home, with the same
base model and domain, on the same kind of device: of those whose recipe is nearest, the median. They
are not scaled by sizes, so each says which fields differ. A stage behind one that is made counts as made
too; where its inputs come out equal, the run will reuse it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from assets.watched import WATCHED
from e2h_pipeline.artifacts.difference import changes
from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.manifest import MANIFEST_NAME
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.models.base import local_source
from e2h_pipeline.models.hub import cached, hub_name, may_be_hub
from e2h_pipeline.orchestration.instance import open_to_read
from e2h_pipeline.orchestration.planning import Plan, Selection, plan_by_store, plans
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.registry import EVALUATOR_KINDS
from e2h_pipeline.stages.spec import RECIPE_ASSET, STAGES, narrow
from resources.engine import EngineResource

_READ = 200  # manifests of a stage, the newest
_SHOWN = 4  # fields that differ
_ANSWER_SECONDS = 1.0
_SIZE = ("model", "file", "train", "dtype", "hidden", "layers", "heads")
_MODEL_STAGES = ("base_model", "sft_policy", "easy_evaluator", "rl_policy")


@dataclass(frozen=True)
class StageForecast:
    """A stage of a run.

    Attributes:
        reused: the store has it.
        seconds: about how long it takes; None where no run of it is known.
        reckoned: what `seconds` is taken from.
    """

    stage: str
    reused: bool
    seconds: float | None = None
    reckoned: str = ""


@dataclass(frozen=True)
class Forecast:
    """A run.

    Attributes:
        missing: why it cannot succeed as things are.
        notes: what is worth knowing before, such as a download.
    """

    key: str
    stages: tuple[StageForecast, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def todo(self) -> frozenset[str]:
        """The stages that it would compute."""
        return frozenset(stage.stage for stage in self.stages if not stage.reused)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "key": self.key,
            "stages": [vars(stage) for stage in self.stages],
            "missing": list(self.missing),
            "notes": list(self.notes),
        }


def forecast(key: str, home: Path, selected: Selection | None, device: str) -> Forecast:
    """What a run would do. Nothing is written.

    Args:
        selected: only these stages; all of the recipe's scope where None.
        device: `Manifest.device` of this host.

    Raises:
        RecipeError: the key names no recipe.
    """
    store, recipe = ArtifactStore(home), Recipe.from_key(key, recipe_folders(home))
    plan, times = _plan(key, store, selected), _Times(store, recipe, device)
    stages = tuple(
        StageForecast(stage.name, True)
        if stage.artifact
        else times.of(stage.name, narrow(recipe, STAGES[stage.name].sections).as_dict())
        for stage in plan.stages
        if selected is None or stage.name in selected.of(recipe)
    )
    todo = [stage.stage for stage in stages if not stage.reused]
    found, notes = _models(recipe, todo)
    on_gpu = [stage for stage in todo if STAGES[stage].gpu]
    if on_gpu and device == "cpu" and local_source(recipe.base) is None and not recipe.base.train:
        notes.append(
            f"this host has no GPU: {len(on_gpu)} stages with {recipe.base.model} would run on the CPU"
        )
    missing = [*_data(recipe, todo), *found, *_engine(recipe, todo)]
    return Forecast(key, stages, tuple(dict.fromkeys(missing)), tuple(notes))


def disk_needed(recipe: Recipe, todo: Collection[str], weights: int) -> int:
    """Bytes that the models of a run take on the disk.

    Args:
        weights: bytes of the base model.
    """
    kept = sum(stage in todo for stage in _MODEL_STAGES)
    fetched = "base_model" in todo and hub_name(recipe.base)
    return weights * (kept + bool(fetched))


def free_bytes(home: Path) -> int:
    """Free bytes of the disk of a home folder, whether it is there or not."""
    return shutil.disk_usage(next(place for place in (home, *home.parents) if place.exists())).free


def _plan(key: str, store: ArtifactStore, selected: Selection | None) -> Plan:
    engine = EngineResource.from_environment()
    if not (store.home / "dagster" / "dagster.yaml").exists():
        return plan_by_store(store, key, engine)
    with open_to_read(store.home) as instance:
        return plans(instance, store, [key], engine, selected)[0]


def _data(recipe: Recipe, todo: Collection[str]) -> Iterator[str]:
    """Why data that a stage reads cannot be read."""
    wanted = {name for stage in todo for name in STAGES[stage].watches}
    for watched in WATCHED:
        if watched.name in wanted and (error := watched.state(watched.options(recipe)).error):
            yield error


def _engine(recipe: Recipe, todo: Collection[str]) -> Iterator[str]:
    """Why the host's engine cannot draw."""
    whole = recipe.slice(Recipe.model_fields)
    if any(STAGES[stage].samples(whole) for stage in todo):
        try:
            EngineResource.from_environment().version()
        except ValueError as error:
            yield str(error)


def _models(recipe: Recipe, todo: Collection[str]) -> tuple[list[str], list[str]]:
    """Models that are not on this machine: those that cannot be fetched either, and the others."""
    named = {"base.model": (recipe.base.model, recipe.base.revision)} if hub_name(recipe.base) else {}
    wanted = named if "base_model" in todo else {}
    if "easy_evaluator" in todo:
        sources = EVALUATOR_KINDS.load(recipe.reward.kind)().sources(recipe.reward)
        wanted |= {f"reward {name}": (name, None) for name in sources if may_be_hub(name)}
    missing, notes = [], []
    for field, (name, revision) in wanted.items():
        if cached(name, revision):
            continue
        if why := _no_hub():
            missing.append(
                f"{field} '{name}' is not on this machine, and {why}; fetch it: hf download {name}"
            )
        else:
            notes.append(f"{field} '{name}' is not on this machine: it will be downloaded")
    return missing, notes


def _no_hub() -> str:
    """Why nothing can be fetched from the Hub; empty if it can be reached."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), _ANSWER_SECONDS).close()
    except OSError as error:
        proxies = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
        if any(os.environ.get(name) for name in proxies):
            return ""  # the way to it is the proxy's matter
        return f"{address.hostname} does not answer ({error.strerror or error})"
    return ""


class _Times:
    """Earlier runs of stages, of experiments with the same model and problems on the same device."""

    def __init__(self, store: ArtifactStore, recipe: Recipe, device: str) -> None:
        self._store, self._device = store, device
        wanted = _circumstances(recipe.model_dump(mode="json"))
        self._alike = {
            made["experiment"]
            for made in _manifests(store.root / RECIPE_ASSET)
            if _circumstances(made["recipe"]) == wanted
        }

    def of(self, stage: str, wanted: Mapping[str, Any]) -> StageForecast:
        """A stage with the time of the runs whose recipe is nearest."""
        found = [
            (_differing(wanted, made["recipe"]), float(made["wall_seconds"]), str(made["experiment"]))
            for made in _manifests(self._store.root / stage)
            if made.get("device") == self._device and made["experiment"] in self._alike
        ]
        if not found:
            return StageForecast(stage, False)
        least = min(len(differing) for differing, _, _ in found)
        near = [one for one in found if len(one[0]) == least]
        fields = sorted(near[0][0])
        told = f"; differs: {', '.join(fields[:_SHOWN])}{' ...' if len(fields) > _SHOWN else ''}"
        runs = near[0][2] if len(near) == 1 else f"median of {len(near)} runs"
        return StageForecast(
            stage, False, median(seconds for _, seconds, _ in near), runs + (told if fields else "")
        )


def _circumstances(recipe: Mapping[str, Any]) -> list[Any]:
    """What makes times of two experiments incomparable, whatever a stage reads of their recipes."""
    base, problems = recipe.get("base") or {}, recipe.get("problems") or {}
    return [problems.get("source"), *(base.get(field) for field in _SIZE)]


def _differing(wanted: Mapping[str, Any], made: Mapping[str, Any]) -> frozenset[str]:
    """Dotted fields, without seeds and names, which take no time."""
    free = ("seed", "name", "description")
    return frozenset(one.field for one in changes(wanted, made) if one.field.rpartition(".")[2] not in free)


def _manifests(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The newest manifests of a stage, as they are: a time is no more than a time."""
    for path in _newest(folder.glob(f"*/{MANIFEST_NAME}")):
        try:
            made = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # being removed, or damaged: `e2h verify` tells
        if isinstance(made, dict) and {"recipe", "wall_seconds", "experiment"} <= made.keys():
            yield made


def _newest(paths: Iterable[Path]) -> Sequence[Path]:
    stats = []
    for path in paths:
        try:
            stats.append((path.stat().st_mtime, path))
        except OSError:
            continue
    return [path for _, path in sorted(stats, reverse=True)[:_READ]]
