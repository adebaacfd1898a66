"""Take evaluators that others have trained into an artifact, with their provenance.

The files are copied, as those of a base model are: an artifact does not change when a folder or the
Hub does, and its data version is that of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.registry import LAYOUTS
from e2h_pipeline.rewards.evaluators import KIND_FILE, write_kind
from e2h_pipeline.rewards.outside.files import copy_model, local_folder
from e2h_pipeline.rewards.outside.layout import AUTO, LayoutError
from e2h_pipeline.rewards.outside.reader import OURS
from e2h_pipeline.rewards.outside.scorer import new_layout
from e2h_pipeline.rewards.validate import validate

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.recipe import NamedEvaluator, OutsideReward
    from e2h_pipeline.solutions import TextFormat

TRAINED_BY = "others, on data that nobody here knows"


def take_evaluator(
    init: Path | None, labels: Mapping[str, Path], options: OutsideReward, text: TextFormat, work: Work
) -> dict[str, Any]:
    """Write the recipe's evaluators to `work.out`.

    Args:
        init: none, because nothing is trained.
        labels: "steps", of which the validation rows are judged.
        text: how the domain writes solutions.

    Returns:
        Where each evaluator came from, and its figures on easy validation.

    Raises:
        LayoutError: an evaluator is not there, or its files do not fit its layout.
    """
    work.out.mkdir(parents=True, exist_ok=True)
    members, sources = [], []
    for number, named in enumerate(options.evaluator):
        told, source = _take(named, work.out, f"member-{number}")
        members.append(told)
        sources.append(source)
    write_kind(work.out, options.kind, {"rule": options.rule, "members": members})
    rows = read_table(labels["steps"] / TABLE).to_pylist()
    held = [row for row in rows if row["split"] == "validation"]
    figures = validate(work.out, {"steps": held}, text)
    return {"kind": options.kind, "trained_by": TRAINED_BY, "members": sources, **figures}


def _take(named: NamedEvaluator, out: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copy one evaluator to a folder of this name; what its reader needs, and where it came from."""
    folder = local_folder(named.model, named.revision)
    word = named.layout
    if word == AUTO:
        word = LAYOUTS.load(AUTO)(folder) or OURS
    source = {"model": named.model, "layout": word, "revision": _commit(named.model, folder)}
    if word == OURS:
        _take_ours(named, folder, out / name)
        return {"folder": name, "layout": OURS, "options": {}}, source
    options = named.options()
    layout = new_layout(word, options)
    copy_model(folder, out / name)
    for number, other in enumerate(layout.folders()):
        copied = f"{name}-{number}"
        copy_model(local_folder(other), out / copied)
        options = {key: copied if value == other else value for key, value in options.items()}
    return {"folder": name, "layout": word, "options": options}, source


def _take_ours(named: NamedEvaluator, folder: Path, out: Path) -> None:
    """A model with a score per token, in the format of this project."""
    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_evaluator

    if (folder / KIND_FILE).is_file():
        raise LayoutError(f"{folder}: no single evaluator; name what it was made of")
    if options := named.options():
        raise LayoutError(f"{named.model}: option '{next(iter(options))}' is of a layout: name it in layout")
    save_model(*load_evaluator(folder), out)


def _commit(name: str, folder: Path) -> str | None:
    """The commit of a Hub model, which its folder is named by; None of a local folder."""
    return None if Path(name).is_dir() else folder.name
