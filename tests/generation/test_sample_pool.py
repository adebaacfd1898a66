"""The sample pool: complete, the same after kills and growth, and damage is reported."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forked
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.artifacts.hashing import parquet_hash
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.request import Draft, Request, StoreError
from e2h_pipeline.artifacts.shards import Call, LocalRunner
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.protocol import Sample, SamplingOptions
from e2h_pipeline.generation.sample_pool import (
    Drawing,
    answers_pool,
    pool_table,
    sample_blocks,
    sample_pool,
    sampling_options,
)
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Sampling

if TYPE_CHECKING:
    import pyarrow as pa

OPTIONS = Sampling(samples=3, temperature=1.0, top_k=0, max_new_tokens=12, shard_questions=4, shard_samples=3)
GROWING = OPTIONS.model_copy(update={"shard_samples": 4})
FIRST = "part-00000-000000.parquet"


class Told(Reporter):
    """Keeps messages and reported metrics."""

    def __init__(self) -> None:
        super().__init__(every_seconds=0)
        self.lines: list[str] = []
        self.points: list[tuple[int, dict[str, float]]] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.points.append((step, dict(values)))


class Counting(LocalRunner):
    """Counts the samples in the shards that it runs."""

    drawn = 0

    def run(self, function: Callable[..., pa.Table], calls: Sequence[Call]) -> Iterator[tuple[str, pa.Table]]:
        for name, table in super().run(function, calls):
            self.drawn += table.num_rows
            yield name, table


def _contents(folder: Path) -> dict[str, str]:
    return {path.name: parquet_hash(path) for path in sorted(folder.iterdir())}


def _drawing(policy: Path, options: Sampling = OPTIONS, stage: str = "benchmark_samples") -> Drawing:
    return Drawing(policy, LADDER, options, stage, Independent())


def _draw(
    policy: Path,
    tables: Path,
    folder: Path,
    options: Sampling = OPTIONS,
    seed: int = 0,
    reporter: Reporter | None = None,
    **how: Any,
) -> dict[str, Any]:
    questions = read_table(tables / "benchmark_questions" / "data.parquet")
    work = Work(folder / "out", folder / "work", seed, reporter or Reporter(), **how)
    return sample_pool(_drawing(policy, options), questions, work)


def test_a_pool_has_every_sample_of_every_question(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    summary = _draw(ladder_policy, ladder_tables, tmp_path)
    questions = read_table(ladder_tables / "benchmark_questions" / "data.parquet").to_pylist()
    rows = read_table(tmp_path / "out").to_pylist()
    assert [(r["problem_id"], r["level"], r["sample"]) for r in rows] == [
        (q["problem_id"], q["level"], i) for q in questions for i in range(3)
    ]
    assert all(r["tokens"] == len(r["token_ids"]) for r in rows)
    names = [f"part-0000{i}-000000.parquet" for i in range(5)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    assert summary["questions"] == 20
    assert summary["samples"] == 60
    assert summary["tokens"] == sum(r["tokens"] for r in rows)
    assert summary["unfinished"] == sum(r["finish_reason"] == "length" for r in rows)
    assert 0 < summary["unfinished"] < 60
    assert summary["no_answer"] == sum(not r["answered"] for r in rows) >= summary["unfinished"]
    assert (summary["drawn"], summary["reused"]) == (60, 0)


def test_shards_and_number_of_samples_leave_samples_alone(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    def completions(name: str, **changed: int) -> dict[tuple[str, int], list[int]]:
        _draw(ladder_policy, ladder_tables, tmp_path / name, OPTIONS.model_copy(update=changed))
        rows = read_table(tmp_path / name / "out").to_pylist()
        return {(r["problem_id"], r["sample"]): r["token_ids"] for r in rows}

    usual = completions("usual")
    assert completions("shards", shard_questions=7) == usual
    assert completions("blocks", shard_samples=2) == usual
    more = completions("more", samples=5)
    assert len(more) == 100
    assert {name: more[name] for name in usual} == usual


def test_seed_and_stage_name_the_randomness(ladder_policy: Path, ladder_tables: Path, tmp_path: Path) -> None:
    _draw(ladder_policy, ladder_tables, tmp_path / "a", seed=0)
    _draw(ladder_policy, ladder_tables, tmp_path / "b", seed=1)
    a, b = (read_table(tmp_path / name / "out", ["token_ids"]).to_pylist() for name in "ab")
    assert a != b


def test_blocks_lie_on_a_grid_that_does_not_depend_on_n() -> None:
    assert sample_blocks(64, 64) == [(0, 64)]
    assert sample_blocks(100, 64) == [(0, 64), (64, 36)]
    assert sample_blocks(0, 64) == [(0, 0)]
    assert sample_blocks(1, 1) == [(0, 1)]
    for small in (64, 128, 192):
        assert set(sample_blocks(small, 64)) <= set(sample_blocks(4 * small, 64))


@given(samples=st.integers(0, 300), size=st.integers(1, 80))
def test_blocks_hold_every_sample_once(samples: int, size: int) -> None:
    drawn = [s for first, count in sample_blocks(samples, size) for s in range(first, first + count)]
    assert drawn == list(range(samples))


def test_from_n_to_4n_costs_3n_and_gives_the_pool_drawn_in_one_go(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    grown, straight = tmp_path / "grown", tmp_path / "straight"
    small, large = GROWING.model_copy(update={"samples": 4}), GROWING.model_copy(update={"samples": 16})
    runner = Counting()
    summary = _draw(ladder_policy, ladder_tables, grown, small, runner=runner)
    assert (summary["drawn"], summary["reused"], runner.drawn) == (80, 0, 80)
    (grown / "out").rename(grown / "small")
    summary = _draw(ladder_policy, ladder_tables, grown, large, runner=runner)
    assert (summary["drawn"], summary["reused"], runner.drawn) == (240, 80, 320)
    _draw(ladder_policy, ladder_tables, straight, large)
    assert _contents(grown / "out") == _contents(straight / "out")
    assert (grown / "small" / FIRST).samefile(grown / "out" / FIRST)  # linked, not copied
    # And back: the smaller pool draws nothing that the larger has.
    (grown / "out").rename(grown / "large")
    assert _draw(ladder_policy, ladder_tables, grown, small)["drawn"] == 0


def test_a_block_that_n_cuts_short_is_drawn_again_and_never_taken_for_whole(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    for samples, drawn in ((6, 120), (8, 80), (6, 0)):  # 4 of 6 are whole blocks; both spellings stay
        options = GROWING.model_copy(update={"samples": samples})
        assert _draw(ladder_policy, ladder_tables, tmp_path, options)["drawn"] == drawn
        assert len(read_table(tmp_path / "out")) == 20 * samples
        assert all("+" not in p.name for p in (tmp_path / "out").iterdir())
        (tmp_path / "out").rename(tmp_path / f"out-{drawn}")


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_shard_is_named_and_drawn_again_alone(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path, damage: str
) -> None:
    _draw(ladder_policy, ladder_tables, tmp_path)
    whole = _contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    shard = sorted((tmp_path / "work").iterdir())[2]
    data = bytearray(shard.read_bytes())
    if damage == "flipped":
        data[60] ^= 1  # in the first column's values
    shard.write_bytes(data if damage == "flipped" else data[:-100])
    told = Told()
    summary = _draw(ladder_policy, ladder_tables, tmp_path, reporter=told)
    assert (summary["drawn"], summary["reused"]) == (12, 48)
    assert next(line for line in told.lines if "damaged" in line).startswith(str(shard))
    assert _contents(tmp_path / "out") == whole


def test_a_damaged_file_of_an_artifact_is_named_and_only_its_shard_drawn_again(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    store, drawn = ArtifactStore(tmp_path), []

    def make(draft: Draft) -> None:
        options = GROWING.model_copy(update={"samples": 4})
        questions = read_table(ladder_tables / "benchmark_questions" / "data.parquet")
        work = Work(draft.out / "data", draft.work, 0)
        draft.summary = sample_pool(_drawing(ladder_policy, options, "pool"), questions, work)
        drawn.append(draft.summary["drawn"])

    request = Request("benchmark_samples", "c0de", {"sampling": {"samples": 4}}, grows="sampling.samples")
    made, _ = store.obtain(request, make)
    victim = made.path / "data" / "part-00002-000000.parquet"
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=r"part-00002-000000\.parquet: does not match its hash"):
        store.obtain(request, make)
    shutil.rmtree(made.path)
    again, reused = store.obtain(request, make)
    assert not reused and drawn == [80, 4 * 4]
    assert again.data_version == made.data_version


def test_what_is_held_does_not_grow_with_n(ladder_policy: Path, ladder_tables: Path, tmp_path: Path) -> None:
    """Memory of Python objects and Arrow buffers with 8 times the samples and the same model."""
    import pyarrow as pa

    def peak(samples: int) -> int:
        options = Sampling(
            samples=samples, temperature=1.0, top_k=0, max_new_tokens=4, shard_questions=10, shard_samples=16
        )
        tracemalloc.start()
        _draw(ladder_policy, ladder_tables, tmp_path / str(samples), options)
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return traced

    peak(16)  # imports, and objects that are made once
    before = pa.total_allocated_bytes()
    small, large = peak(32), peak(256)
    assert pa.total_allocated_bytes() - before < 100_000
    assert large < small + 600_000  # all samples together are some millions


def test_progress_counts_what_is_done_now_and_shows_what_was_there(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    first, again = Told(), Told()
    _draw(ladder_policy, ladder_tables, tmp_path, reporter=first)
    assert first.lines[0] == "0/60 samples (0%, 0.0/s, 0 tokens/s)"
    assert "12/60 samples (20%, " in first.lines[1] and first.lines[1].endswith(" s left)")
    assert [step for step, _ in first.points] == [0, 12, 24, 36, 48, 60]
    last = first.points[-1][1]
    assert last["progress/share_done"] == 1 and last["progress/seconds_left"] == 0
    assert last["progress/tokens_per_second"] > last["progress/samples_per_second"] > 0
    shutil.rmtree(tmp_path / "out")
    _draw(ladder_policy, ladder_tables, tmp_path, reporter=again)
    assert again.lines[-1] == "60/60 samples (100%, 0.0/s, 0 tokens/s)"


def test_options_of_the_recipe_reach_the_engine() -> None:
    options = Sampling(temperature=0.5, max_new_tokens=9, top_k=3, top_p=0.9, batch_tokens=99, stop=("\n\n",))
    assert sampling_options(options) == SamplingOptions(0.5, 9, 3, 0.9, 99, ("\n\n",))


def test_how_a_sample_ended_is_recorded() -> None:
    row = {"problem_id": "p", "level": 1}
    ends = [
        Sample(0, "# Answer\n\n8", (1, 2), "stop", -1.0),
        Sample(1, "# Answer\n\n8", (1, 2), "length", -1.0),
        Sample(2, "no idea", (1,), "stop", -1.0, stop_reason="!"),
    ]
    columns = ["finish_reason", "stop_reason", "answered"]
    assert pool_table([(row, sample) for sample in ends], LADDER).select(columns).to_pylist() == [
        {"finish_reason": "stop", "stop_reason": None, "answered": True},
        {"finish_reason": "length", "stop_reason": None, "answered": False},
        {"finish_reason": "stop", "stop_reason": "!", "answered": False},
    ]


def test_an_unknown_engine_is_named(ladder_policy: Path, ladder_tables: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine: no 'vroom'; there are transformers, vllm"):
        _draw(ladder_policy, ladder_tables, tmp_path, engine="vroom")


# A process with loaded libraries forks: each child draws into the store and is killed by SIGKILL
# after a while; the last one lives. Prints the number of kills, the shards that each left, and the
# data version of this pool and of an undisturbed one.
KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch, transformers
from e2h_pipeline.artifacts.store import ArtifactStore, Request
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import BeamSearch, IndependentSearch, Sampling
from e2h_pipeline.registry import SEARCH_METHODS
from e2h_pipeline.rewards.growing import GrowingScorer, reader_of

policy, questions, home = Path(sys.argv[1]), read_table(Path(sys.argv[2])), Path(sys.argv[3])
search = {"beam": BeamSearch(beams=2, expansions=2), "independent": IndependentSearch()}[sys.argv[5]]
scorer = GrowingScorer(Path(sys.argv[4]), LADDER.text)
method = SEARCH_METHODS.load(search.method)()
options = Sampling(samples=64, temperature=1.0, top_k=0, max_new_tokens=16, shard_questions=2, shard_samples=4)
request = Request("benchmark_samples", "c0de", {"sampling": {"samples": 64}}, grows="sampling.samples")
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()  # its lock is shared by all forks, and dies with its owner
load_engine("transformers", policy)
reader_of(scorer)

def make(draft):
    drawing = Drawing(policy, LADDER, options, "pool", method, search, scorer)
    sample_pool(drawing, questions, Work(draft.out / "data", draft.work, 0))

def work(home):
    ArtifactStore(home).obtain(request, make)
    found = ArtifactStore(home).open(request.asset, request.key)
    return found.data_version, sorted(found.manifest.files)

def shards():
    return len(list(home.glob("killed/work/*/*/part-*.parquet")))

chance, left, died = random.Random(20), [0], 0
for _ in range(int(sys.argv[6])):
    child = os.fork()
    if not child:
        work(home / "killed")
        os._exit(0)
    while shards() == left[-1]:  # by what was done, not by the clock: the machine may be busy
        time.sleep(0.001)
    time.sleep(chance.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    died += os.waitpid(child, 0)[1] == signal.SIGKILL
    left.append(shards())
print(json.dumps([died, left, work(home / "killed"), work(home / "whole")]))
"""


@pytest.mark.parametrize(("method", "kills"), [("independent", 20), ("beam", 3)])
def test_kills_at_random_moments_lose_nothing(
    ladder_policy: Path,
    ladder_evaluator: Path,
    ladder_tables: Path,
    tmp_path: Path,
    method: str,
    kills: int,
) -> None:
    questions = ladder_tables / "benchmark_questions" / "data.parquet"
    arguments = [ladder_policy, questions, tmp_path, ladder_evaluator, method, str(kills)]
    done = forked.run(KILLED, arguments, os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    died, left, killed, whole = json.loads(done.stdout)
    assert died == kills
    # No finished shard was lost, and each child made progress.
    assert left == sorted(left) and len(set(left)) == kills + 1
    assert killed == whole
    assert [path.name for path in (tmp_path / "killed" / "store" / ".making").iterdir()] == []


def test_answers_are_a_greedy_and_a_sampled_pool(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    questions = read_table(ladder_tables / "benchmark_questions" / "data.parquet")
    work = Work(tmp_path / "out", tmp_path / "work", 0)
    summary = answers_pool(_drawing(ladder_policy, stage="sft_answers"), questions, 2, work)
    greedy, sampled = (read_table(tmp_path / "out" / name).to_pylist() for name in ("greedy", "sampled"))
    assert (len(greedy), len(sampled)) == (20, 40)
    assert (summary["greedy"]["samples"], summary["sampled"]["samples"]) == (20, 40)
    greedy_options = OPTIONS.model_copy(update={"samples": 1, "temperature": 0.0})
    again = sample_pool(
        _drawing(ladder_policy, greedy_options, "another"),
        questions,
        Work(tmp_path / "again", tmp_path / "again-work", 9),
    )
    assert again["samples"] == 20
    assert [r["token_ids"] for r in read_table(tmp_path / "again").to_pylist()] == [
        r["token_ids"] for r in greedy
    ]
