"""Every algorithm, killed by SIGKILL during its work and resumed, ends with the files of an
undisturbed run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import rl_runs
from safetensors.torch import load, load_file

OPTIONS = {
    "ppo": "STATEFUL",
    "ppo-lora": "LAGGED",
    "grpo": "GRPO",
    "rest": "REST",
    "dpo": "DPO",
}  # names in rl_runs


def _train(algorithm: str, evaluator: Path, tables: Path, folder: Path) -> None:
    rl_runs.run(getattr(rl_runs, OPTIONS[algorithm]), rl_runs.SHIPPED, evaluator, tables, folder)


@pytest.fixture(scope="module")
def whole(
    ladder_evaluator: Path, ladder_tables: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, bytes]]:
    """The files of an algorithm's undisturbed run, made once."""
    made: dict[str, dict[str, bytes]] = {}

    def files(algorithm: str) -> dict[str, bytes]:
        if algorithm not in made:
            folder = tmp_path_factory.mktemp(algorithm)
            _train(algorithm, ladder_evaluator, ladder_tables, folder)
            made[algorithm] = _files(folder)
        return made[algorithm]

    return files


def _files(folder: Path) -> dict[str, bytes]:
    """Files of a run, and its last weights, because the best checkpoint may be the first one."""
    paths = [*folder.glob("out/*"), *folder.glob("work/update-000005/**/*.safetensors")]
    paths += [
        *folder.glob("work/update-000005/progress.json"),
        *folder.glob("work/round-02/**/*.safetensors"),
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _kill(
    kill_midway: Callable[[str], None],
    algorithm: str,
    evaluator: Path,
    tables: Path,
    folder: Path,
    at: str,
    done: int,
) -> None:
    kill_midway(
        f"import sys; sys.path.insert(0, {str(Path(rl_runs.__file__).parent)!r})\n"
        "import rl_runs\n"
        f"rl_runs.run(rl_runs.{OPTIONS[algorithm]}, rl_runs.SHIPPED, Path({str(evaluator)!r}),\n"
        f"    Path({str(tables)!r}), Path({str(folder)!r}), rl_runs.Killer({at!r}, {done}))\n"
    )
    assert not (folder / "out").exists()


@pytest.mark.parametrize("algorithm", ["ppo", "ppo-lora", "grpo"])
def test_killed_between_two_checkpoints(
    algorithm: str,
    whole: Callable[[str], dict[str, bytes]],
    ladder_evaluator: Path,
    ladder_tables: Path,
    tmp_path: Path,
    kill_midway: Callable[[str], None],
) -> None:
    """Update 4 was learned but not saved; there are the checkpoint of update 2 or 3 and a torn one."""
    name = f"{algorithm.partition('-')[0].upper()} updates"
    _kill(kill_midway, algorithm, ladder_evaluator, ladder_tables, tmp_path, name, 4)
    work = tmp_path / "work"
    every = getattr(rl_runs, OPTIONS[algorithm]).checkpoint_every
    assert [path.name for path in work.glob("update-*")] == [f"update-{3 // every * every:06d}"]
    torn = work / ".update-000004.tmp" / "policy"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    _train(algorithm, ladder_evaluator, ladder_tables, tmp_path)
    assert _files(tmp_path) == whole(algorithm)


@pytest.mark.parametrize(
    ("algorithm", "at", "left"),
    [
        # Round 2 draws in two shards, and one is there
        ("rest", ("round 2 samples", 1), "round-02/samples"),
        ("dpo", ("round 2 samples", 1), "round-02/samples"),
        ("dpo", ("solutions scored", 100), "round-01/scored"),  # more questions than the guards' samples
        ("rest", ("round 1 policy samples", 1), "round-01/probe/samples"),
        ("dpo", ("round_2/loss", 2), "round-02/chosen.parquet"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_killed_in_a_round(
    algorithm: str,
    at: tuple[str, int],
    left: str,
    whole: Callable[[str], dict[str, bytes]],
    ladder_evaluator: Path,
    ladder_tables: Path,
    tmp_path: Path,
    kill_midway: Callable[[str], None],
) -> None:
    _kill(kill_midway, algorithm, ladder_evaluator, ladder_tables, tmp_path, *at)
    assert (tmp_path / "work" / left).exists()
    _train(algorithm, ladder_evaluator, ladder_tables, tmp_path)
    assert _files(tmp_path) == whole(algorithm)


def test_a_run_carries_its_curriculum_and_its_kl_coefficient(
    whole: Callable[[str], dict[str, bytes]],
) -> None:
    """Otherwise equal files would not prove that both are restored."""
    curves = [json.loads(line) for line in whole("ppo")["out/curves.jsonl"].splitlines()]
    coefficients = [point["kl_coefficient"] for point in curves]
    assert len(set(coefficients[2:])) == 3
    assert rl_runs.STATEFUL.kl not in coefficients[2:]
    progress = json.loads(whole("ppo")["work/update-000005/progress.json"])
    assert all(level["fast"] != level["slow"] for level in progress["curriculum"].values())


def test_adapters_learn(whole: Callable[[str], dict[str, bytes]]) -> None:
    """They begin with a half of zeros."""
    saved = load(whole("ppo-lora")["work/update-000005/policy/adapter_model.safetensors"])
    assert all(tensor.any() for name, tensor in saved.items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("algorithm", "last"),
    [
        ("ppo", "work/update-000005/policy/model.safetensors"),
        ("grpo", "work/update-000005/policy/model.safetensors"),
        ("rest", "work/round-02/policy/model.safetensors"),
        ("dpo", "work/round-02/policy/model.safetensors"),
    ],
)
def test_these_runs_learn(algorithm: str, last: str, whole: Callable[[str], dict[str, bytes]]) -> None:
    """Otherwise equal weights would prove nothing."""
    before = load_file(rl_runs.SHIPPED / "model.safetensors")
    after = load(whole(algorithm)[last])
    assert any(not tensor.equal(after[name]) for name, tensor in before.items())
