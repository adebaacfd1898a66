"""Gives up members of a sweep during training, by the learning curves of finished members.

The curve is easy validation at the checkpoints of PPO and GRPO, read from the work folder of the
running stage. It is compared with curves of the same algorithm. A given-up member leaves no
artifact and no result. Its checkpoint stays, and a sweep without the rule resumes from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.planning import plan_by_store
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.rl.guards import VALIDATION
from e2h_pipeline.sweeps.learning_curves import Curve, Median, Never, Predicted, Rule
from e2h_pipeline.sweeps.spec import Member, Sweep
from resources.engine import EngineResource

WATCHED = ("rl_policy",)


def rule_of(sweep: Sweep) -> Rule:
    """The rule that the sweep file names."""
    stop = sweep.stop
    if stop.rule == "median":
        return Median(least=stop.least)
    if stop.rule == "predicted":
        return Predicted(least=stop.least, confidence=stop.confidence)
    return Never()


class Judge:
    """Applies the rule to running members.

    Args:
        members: all members of the sweep, with their values on the axes.
    """

    def __init__(
        self, rule: Rule, members: Sequence[Member], store: ArtifactStore, engine: EngineResource
    ) -> None:
        self._rule, self._store, self._engine = rule, store, engine
        self._members = {member.key: member for member in members}
        self.idle = isinstance(rule, Never)

    def gives_up(self, key: str, stage: str) -> str | None:
        """Why to give up a member at this stage; None to let it run."""
        if self.idle or stage not in WATCHED:
            return None
        values = self._begun(key, stage)
        if not values:
            return None
        algorithm = self._algorithm(key)
        ended = [
            curve
            for other in self._members
            if other != key
            and self._algorithm(other) == algorithm
            and (curve := self._ended(other, stage)) is not None
        ]
        if not self._rule.hopeless(Curve(values, self._knobs(key)), ended):
            return None
        ends = sorted(curve.end for curve in ended)
        return (
            f"{stage} has {max(values):.3f} on easy validation after {len(values)} checkpoints; {len(ended)} members "
            f"ended with {ends[0]:.3f} to {ends[-1]:.3f}"
        )

    def _begun(self, key: str, stage: str) -> tuple[float, ...]:
        planned = next(s for s in plan_by_store(self._store, key, self._engine).stages if s.name == stage)
        if planned.request is None or planned.artifact is not None:
            return ()
        folder = self._store.work_dir(stage, planned.request.family)
        newest = max(folder.glob("update-*/progress.json"), default=None)
        return validation(json.loads(newest.read_text(encoding="utf-8"))["curves"]) if newest else ()

    def _ended(self, key: str, stage: str) -> Curve | None:
        planned = next(s for s in plan_by_store(self._store, key, self._engine).stages if s.name == stage)
        path = planned.artifact.path / "curves.jsonl" if planned.artifact else Path()
        if not path.is_file():
            return None
        lines = path.read_text(encoding="utf-8").splitlines()
        values = validation([json.loads(line) for line in lines])
        return Curve(values, self._knobs(key)) if values else None

    def _algorithm(self, key: str) -> str:
        return Recipe.from_key(key, recipe_folders(self._store.home)).rl.algorithm

    def _knobs(self, key: str) -> tuple[float, ...]:
        """The numeric values of the member; others have no order and are left out."""
        values = self._members[key].values.values()
        return tuple(float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool))


def validation(curves: Sequence[Mapping[str, float]]) -> tuple[float, ...]:
    """Easy validation at those updates of a run that have a checkpoint."""
    return tuple(point[VALIDATION] for point in curves if VALIDATION in point)
