"""A member of a sweep that is given up while it learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from e2h_pipeline.artifacts.manifest import read_manifest
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.operations.sweep_runner import SweepEvent, _Crew
from e2h_pipeline.recipe import canonical_key
from e2h_pipeline.sweeps.learning_curves import Curve, Median, Never, Predicted
from e2h_pipeline.sweeps.spec import Member, Sweep
from e2h_pipeline.sweeps.stop import Judge, rule_of
from resources.engine import EngineResource

pytestmark = pytest.mark.slow
# All guards are off, because 16 rollouts per update are noisy enough to trip several.
LONG = canonical_key(
    "tiny/rl.updates=3000/rl.learning_rate=1e-9/rl.guards.hack_fall=1/rl.guards.unfinished=1/rl.guards.one_step=1"
    "/rl.guards.repeated_steps=1/rl.guards.more_steps=99/rl.guards.fewer_steps=0"
)


class AfterTwo:
    """Gives up members with two checkpoints when another has ended, and records its inputs."""

    def __init__(self) -> None:
        self.shown: list[tuple[Curve, list[Curve]]] = []

    def hopeless(self, begun: Curve, ended: Sequence[Curve]) -> bool:
        self.shown.append((begun, list(ended)))
        return len(begun.values) >= 2 and len(ended) == 1


def test_the_rule_is_the_files() -> None:
    def named(**stop: object) -> object:
        return rule_of(Sweep.model_validate({"name": "s", "recipe": "r", "axes": {}, "stop": stop}))

    assert named() == Never()
    assert named(rule="median", least=7) == Median(7)
    assert named(rule="predicted", confidence=0.99) == Predicted(20, 0.99)


def test_a_member_is_stopped_at_its_checkpoint_and_leaves_no_result(
    tiny_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2H_HOME", str(tiny_home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store, engine, rule = ArtifactStore(tiny_home), EngineResource(), AfterTwo()
    members = [Member("tiny", {"rl.updates": 6}), Member(LONG, {"rl.updates": 3000})]
    sweep = Sweep.model_validate(
        {"name": "long", "recipe": "tiny", "axes": {"rl.updates": [3000]}, "select": "+rl_policy"}
    )
    events: list[SweepEvent] = []
    crew = _Crew(sweep, tiny_home, store, engine, events.append, Judge(rule, members, store, engine))
    [outcome] = crew.run([LONG], 1)
    assert outcome.error is None
    assert "rl_policy has" in str(outcome.given_up)
    assert "1 members ended with" in str(outcome.given_up)
    assert "rl_policy" not in outcome.computed
    assert events[-1].given_up == outcome.given_up
    begun, [ended] = rule.shown[-1]
    assert (len(begun.values) >= 2, begun.knobs, ended.knobs) == (True, (3000.0,), (6.0,))
    policies = (tiny_home / "store" / "rl_policy").iterdir()  # other tests of this home make others
    own = next(folder for folder in policies if read_manifest(folder).experiment == "tiny")
    lines = (own / "curves.jsonl").read_text().splitlines()
    assert len(ended.values) == len(lines)  # a checkpoint per update
