"""Train an evaluator on easy labels: outcome, process, both, or pairs (paper section 3.3).

One loop for all kinds; they differ in where labels stand (`examples`) and in the loss:

    prm       step labels at step ends, binary cross-entropy
    orm       the outcome on every (or the last) token of a completion, binary cross-entropy
    oprm      one model on both, `outcome_share` of the examples being outcome examples
    pairwise  right above wrong solutions of the same problem, Bradley-Terry loss on the last token

The head is a `*ForTokenClassification` with one label, so that `from_pretrained` and vLLM's pooling
runner serve it. Quality is measured on easy validation problems, of the saved folder as others will
load it; no hard label is near.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.rewards.adapters import prepare, whole
from e2h_pipeline.rewards.examples import (
    labelled,
    mixed,
    orm_example,
    pair_examples,
    prm_example,
    usable,
)
from e2h_pipeline.rewards.kinds.pairwise import pairwise_objective
from e2h_pipeline.rewards.kinds.stepwise import step_objective
from e2h_pipeline.rewards.scoring import HEADING_FIELD
from e2h_pipeline.rewards.validate import Rows, validate
from e2h_pipeline.training.batches import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.recipe import RewardTraining

Kind = Literal["prm", "orm", "oprm", "pairwise"]

_READS: dict[str, tuple[str, ...]] = {
    "prm": ("steps",),
    "orm": ("outcomes",),
    "oprm": ("steps", "outcomes"),
    "pairwise": ("outcomes",),
}


def train_reward_model(
    kind: Kind,
    init: Path,
    step_labels: Path | None,
    outcome_labels: Path | None,
    out: Path,
    work: Path,
    options: RewardTraining,
    seed: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train an evaluator from the causal LM in `init` and save it to `out`.

    Under several processes all train and the main one alone saves and validates.

    Args:
        step_labels: folder of solutions with a label per segment (prm, oprm).
        outcome_labels: folder of solutions with an outcome (orm, oprm, pairwise).

    Returns:
        "solutions" or "pairs", "dropped" (for length, or without a label), "labels" (examples and labelled
        positions of each kind), the training summary, and in the main process the validation figures.

    Raises:
        ValueError: labels that the kind needs are not given, or none is left to train on.
    """
    from transformers import set_seed

    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_evaluator
    from e2h_pipeline.training.trainer import CURVES, Settings, is_main_process, train

    rows = _read(kind, {"steps": step_labels, "outcomes": outcome_labels})
    set_seed(seed)
    model, tokenizer = load_evaluator(init)
    stored_as = model.dtype
    if options.mixed_precision:
        model.float()
    setattr(model.config, HEADING_FIELD, options.heading)
    model.score.weight.data.zero_()
    found = make_examples(
        kind, tokenizer, {name: _split(r, "train") for name, r in rows.items()}, options, seed
    )
    kept = {name: usable(examples, options.max_tokens) for name, examples in found.items()}
    if kind == "oprm":
        steps, outcomes = mixed(kept["steps"], kept["outcomes"], options.outcome_share, seed)
        chosen = {"steps": steps, "outcomes": outcomes}
    else:
        chosen = kept
    examples = [example for part in chosen.values() for example in part]
    trained = prepare(model, options)
    summary = train(
        trained.train(),
        examples,
        pairwise_objective if kind == "pairwise" else step_objective,
        Settings.of(options, seed),
        pad_id=tokenizer.pad_token_id,
        work=work,
        reporter=reporter,
        curves=out / CURVES,
    )
    result = {
        "kind": kind,
        "pairs" if kind == "pairwise" else "solutions": len(examples),
        "dropped": sum(len(found[name]) - len(kept[name]) for name in found),
        "labels": {
            name: {"examples": len(part), "positions": sum(map(labelled, part))}
            for name, part in chosen.items()
        },
        **summary,
    }
    if not is_main_process():
        return result
    save_model(whole(trained, work).to(stored_as), tokenizer, out)
    return {**result, **validate(out, {name: _split(r, "validation") for name, r in rows.items()})}


def make_examples(
    kind: Kind,
    tokenizer: PreTrainedTokenizerBase,
    rows: Mapping[str, Rows],
    options: RewardTraining,
    seed: int,
) -> dict[str, list[Example]]:
    """Training examples of each kind of label that is read."""
    if kind == "pairwise":
        return {"pairs": pair_examples(tokenizer, rows["outcomes"], seed, options.heading)}
    found: dict[str, list[Example]] = {}
    if "steps" in rows:
        found["steps"] = [prm_example(tokenizer, row, options.heading) for row in rows["steps"]]
    if "outcomes" in rows:
        found["outcomes"] = [
            orm_example(tokenizer, row, options.heading, options.tokens) for row in rows["outcomes"]
        ]
    return found


def _read(kind: Kind, folders: Mapping[str, Path | None]) -> dict[str, Rows]:
    rows: dict[str, Rows] = {}
    for name in _READS[kind]:
        folder = folders[name]
        if folder is None:
            raise ValueError(f"an evaluator of kind {kind} needs labels of {name}: none were given")
        rows[name] = read_table(folder / "data.parquet").to_pylist()
    return rows


def _split(rows: Rows, split: str) -> Rows:
    return [row for row in rows if row["split"] == split]
