"""Shards on a Ray cluster of two one-core nodes: the same results, also when workers and nodes
die."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
import ray_shards
import ray_stages
import thieves
from graded_texts import verdicts_of
from processes import alive

from e2h_pipeline.artifacts.hashing import content_hash, data_version
from e2h_pipeline.artifacts.reads import Reads
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.shards import LocalRunner, Runner, shard_path
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.grading import sharded
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Sampling, Scoring
from e2h_pipeline.rewards.pool import score_pool
from resources.ray_runner import RayRunner, ShardError, Surroundings, _Worker
from resources.supervise import descendants

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")

SIX = [(f"part-{i}", (i,)) for i in range(6)]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Folder of Ray's files; a short path, because it holds sockets."""
    found = Path(tempfile.mkdtemp(prefix="e2h-ray-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(found))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # nodes find ray_shards.py
        patch.setenv("CUDA_VISIBLE_DEVICES", "7")  # a node cannot have a hidden GPU
        yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[ray.cluster_utils.Cluster]:
    """Two nodes on this machine, each with a core, one with a pretended GPU."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=node)
    found.add_node(**node, num_gpus=1)
    found.wait_for_nodes()
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def runner(cluster: ray.cluster_utils.Cluster) -> RayRunner:
    return RayRunner(cluster.address)


def _tables(runner: Runner, function: object, calls: list) -> dict[str, pa.Table]:
    found = list(runner.run(function, calls))
    assert len(dict(found)) == len(found)
    return dict(found)


def _wait(condition: object, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def test_shards_are_as_here_from_workers_that_stay_and_no_more_are_under_way(
    runner: RayRunner, tmp_path: Path
) -> None:
    calls = [(f"part-{i}", (tmp_path, i)) for i in range(12)]
    found: dict[str, pa.Table] = {}
    for name, table in runner.run(ray_shards.noted, calls):
        assert name not in found
        found[name] = table
        time.sleep(0.05)  # enough time for them to run ahead
        assert len(list(tmp_path.iterdir())) <= len(found) + 2
    surroundings = [json.loads(note.read_text()) for note in tmp_path.iterdir()]
    assert {(s["OMP_NUM_THREADS"], s["E2H_GRADING_WORKERS"]) for s in surroundings} == {("1", "1")}
    pids = {s["pid"] for s in surroundings}
    assert 1 <= len(pids) <= 2 and os.getpid() not in pids
    assert _wait(lambda: not any(map(alive, pids)), 30)
    assert found == dict(LocalRunner().run(ray_shards.noted, calls))


def test_who_stops_listening_leaves_nothing_behind(runner: RayRunner, tmp_path: Path) -> None:
    calls = [("quick", (tmp_path, 0)), ("slow", (tmp_path, 1))]
    (tmp_path / "0.pid").touch()
    results = runner.run(ray_shards.endless_at_first, calls)
    assert next(results)[0] == "quick"
    assert _wait((tmp_path / "1.pid").exists)
    results.close()
    assert _wait(lambda: not alive(int((tmp_path / "1.pid").read_text())), 30)


def test_a_killed_workers_shard_is_made_again(runner: RayRunner, tmp_path: Path) -> None:
    calls = [(str(i), (tmp_path, i)) for i in range(4)]
    for i in (0, 1, 3):
        (tmp_path / f"{i}.pid").touch()
    victim = tmp_path / "2.pid"
    killer = subprocess.Popen(
        ["sh", "-c", f"while [ ! -e {victim} ]; do sleep 0.1; done; kill -9 $(cat {victim})"]
    )
    found = _tables(runner, ray_shards.endless_at_first, calls)
    assert killer.wait(60) == 0
    assert found == dict(LocalRunner().run(ray_shards.endless_at_first, calls))


def test_a_shard_that_kills_its_workers_is_named(runner: RayRunner) -> None:
    with pytest.raises(ShardError, match=r"shard part-1: its worker died 4 times"):
        _tables(runner, ray_shards.deadly, SIX)


def test_a_worker_too_wide_for_any_node_is_refused(cluster: ray.cluster_utils.Cluster) -> None:
    with pytest.raises(ShardError, match="no node of the Ray cluster has 3 cores"):
        _tables(RayRunner(cluster.address, threads=3), ray_shards.squares, SIX)


def test_a_stage_that_wants_gpus_gets_one_for_each_worker(
    cluster: ray.cluster_utils.Cluster, tmp_path: Path
) -> None:
    calls = [(str(i), (tmp_path, i)) for i in range(4)]
    _tables(RayRunner(cluster.address, gpu=True), ray_shards.noted, calls)
    notes = [json.loads(note.read_text()) for note in tmp_path.iterdir()]
    assert {note["CUDA_VISIBLE_DEVICES"] for note in notes} == {"7"}
    assert len({note["pid"] for note in notes}) == 1  # it loads its model once


def test_an_address_without_a_cluster(cluster: ray.cluster_utils.Cluster) -> None:
    ray.shutdown()  # an existing connection is used
    with pytest.raises(ShardError, match=r"no Ray cluster at '127\.0\.0\.1:1' \(E2H_RAY_ADDRESS\)"):
        _tables(RayRunner("127.0.0.1:1"), ray_shards.squares, SIX)


def test_other_versions_and_other_code_are_refused() -> None:
    wanted = Surroundings.here()
    assert list(wanted.code) == ["e2h_pipeline"]
    _Worker(wanted).check()
    with pytest.raises(RuntimeError, match=r"node \S+ has torch .* instead of 1\.0: install"):
        _Worker(replace(wanted, packages={**wanted.packages, "torch": "1.0"})).check()
    with pytest.raises(RuntimeError, match=r"node \S+ has other code of e2h_pipeline than this stage began"):
        _Worker(replace(wanted, code={"e2h_pipeline": "0" * 64})).check()


def test_a_node_with_other_code_makes_no_shard(runner: RayRunner) -> None:
    runner.wanted = replace(runner.wanted, code={"e2h_pipeline": "0" * 64})
    with pytest.raises(ShardError, match=r"cannot start a worker: RuntimeError: node \S+ has other code"):
        _tables(runner, ray_shards.squares, SIX)


STEP = """
import os, sys, tempfile
from pathlib import Path
import ray_stages

ray_stages.run("in_endless_shards", Path(sys.argv[1]))
"""


def test_all_processes_end_with_a_killed_step(folder: Path, tmp_path: Path) -> None:
    """The step has its own cluster, whose agents would otherwise stay for a minute."""
    code = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    command = [sys.executable, "-c", STEP, str(tmp_path)]
    step = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": code})
    try:
        assert _wait((tmp_path / "0.pid").exists, 120)
        below = descendants(step.pid)
        assert int((tmp_path / "0.pid").read_text()) in below
    finally:
        step.send_signal(signal.SIGKILL)
        step.wait()
    assert _wait(lambda: not any(map(alive, below)), 30)


def test_sampling_scoring_and_grading_give_the_same_data(
    runner: RayRunner,
    ladder_policy: Path,
    ladder_evaluator: Path,
    ladder_tables: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compares the files of each stage, made here and on the cluster."""
    monkeypatch.setattr(sharded, "PAIRS", 40)
    monkeypatch.setattr(sharded, "ANSWERS", 40)
    questions = ladder_tables / "benchmark_questions"
    options = Sampling(
        samples=6, temperature=1.5, top_k=0, max_new_tokens=24, shard_questions=10, shard_samples=4
    )
    versions = []
    for name, by in (("here", LocalRunner()), ("ray", runner)):
        out, work = tmp_path / name / "out", tmp_path / name / "work"
        rows = read_table(questions / "data.parquet")
        pool = out / "pool"
        drawing = Drawing(ladder_policy, LADDER, options, "pool", Independent())
        sample_pool(drawing, rows, Work(pool, work / "pool", 0, runner=by))
        scoring = Work(out / "scores", work / "scores", runner=by)
        score_pool(ladder_evaluator, pool, questions, Scoring(), LADDER.text, scoring)
        with sharded_grader("math", work / "grades", by, Reporter()) as judge:
            texts = read_table(pool, ["completion"])["completion"].to_pylist()
            grades = verdicts_of(judge, [("3", text) for text in texts])
            classes = judge.classes([texts[i : i + 20] for i in range(0, len(texts), 20)])
        write_table(out / "grades.parquet", pa.table({"verdict": grades}))
        write_table(out / "classes.parquet", pa.table({"classes": classes}))
        files = {str(path.relative_to(out)): content_hash(path) for path in out.rglob("*.parquet")}
        assert len(files) == 2 * len(list(pool.iterdir())) + 2 > 8
        versions.append(data_version(files))
    assert versions[0] == versions[1]


def test_a_stage_of_shards_in_mode_ray(cluster: ray.cluster_utils.Cluster, tmp_path: Path) -> None:
    outcome = ray_stages.run("in_shards", tmp_path, cluster.address)
    assert outcome.summary == {"runner": "RayRunner"}
    for i in range(4):
        assert read_table(shard_path(tmp_path / "out", f"part-{i}")) == ray_shards.squares(i)


def test_a_stage_says_which_shard_failed_and_why(cluster: ray.cluster_utils.Cluster, tmp_path: Path) -> None:
    with pytest.raises(
        dg.Failure, match=r"ShardError: shard part-1: ValueError: bad question in line 7$"
    ) as caught:
        ray_stages.run("in_broken_shards", tmp_path, cluster.address)
    assert "ray_shards.py" in str(caught.value.metadata["traceback"].value)


def test_shards_open_only_what_their_stage_declares(
    cluster: ray.cluster_utils.Cluster, tmp_path: Path
) -> None:
    """The shard reads its input, then gold."""
    easy, gold = tmp_path / "home" / "easy" / "data.parquet", tmp_path / "home" / "gold" / "data.parquet"
    for place in (easy, gold):
        write_table(place, pa.table({"answer": ["7"]}))
    reads = Reads.of("thief", open=[easy.parent], closed=[tmp_path / "home"])
    with pytest.raises(ShardError, match=re.escape(str(gold))):
        _tables(RayRunner(cluster.address, reads=reads), thieves.taken, [("part-0", (easy, gold))])
    found = _tables(RayRunner(cluster.address, reads=reads), thieves.taken, [("part-0", (easy, easy))])
    assert found["part-0"].to_pylist() == [{"answer": "7"}]


def test_a_lost_nodes_shard_is_made_on_another(
    cluster: ray.cluster_utils.Cluster, runner: RayRunner, tmp_path: Path
) -> None:
    """This test comes last, because the cluster then has one node less."""
    calls = [(str(i), (tmp_path, i)) for i in range(2)]
    results = runner.run(ray_shards.endless_at_first, calls)
    found: dict[str, pa.Table] = {}
    taker = threading.Thread(target=lambda: found.update(results))
    taker.start()
    assert _wait(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    lost = next(iter(cluster.worker_nodes))
    raylet = lost.all_processes["raylet"][0].process.pid
    there = set(descendants(raylet))
    pids = {int(note.read_text()) for note in tmp_path.glob("*.pid")}
    assert len(pids & there) == 1
    cluster.remove_node(lost, allow_graceful=False)
    os.kill((pids - there).pop(), signal.SIGKILL)  # otherwise the remaining worker would hang for ever
    taker.join(120)
    assert not taker.is_alive()
    assert found == {str(i): ray_shards.squares(i) for i in range(2)}
