from collections.abc import Callable
from pathlib import Path

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.generation.pool import answers_pool, sample_pool
from e2h_pipeline.recipe import Evaluation, Sampling
from e2h_pipeline.reporter import Reporter

OPTIONS = Sampling(samples=3, temperature=1.0, top_k=0, max_new_tokens=12, shard_questions=4)


def _draw(policy: Path, tables: Path, folder: Path, options: Sampling = OPTIONS, seed: int = 0) -> dict:
    questions = read_table(tables / "benchmark_questions" / "data.parquet")
    return sample_pool(
        policy, questions, folder / "out", folder / "work", options, seed, "benchmark_samples", Reporter()
    )


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
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"part-0000{i}.parquet" for i in range(5)]
    assert summary["questions"] == 20
    assert summary["samples"] == 60
    assert summary["tokens"] == sum(r["tokens"] for r in rows)
    assert summary["unfinished"] == sum(r["finish_reason"] == "length" for r in rows)
    assert 0 < summary["unfinished"] < 60


def test_shards_and_number_of_samples_leave_samples_alone(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    def completions(name: str, **changed: int) -> dict[tuple[str, int], list[int]]:
        _draw(ladder_policy, ladder_tables, tmp_path / name, OPTIONS.model_copy(update=changed))
        rows = read_table(tmp_path / name / "out").to_pylist()
        return {(r["problem_id"], r["sample"]): r["token_ids"] for r in rows}

    usual = completions("usual")
    assert completions("shards", shard_questions=7) == usual
    more = completions("more", samples=5)
    assert len(more) == 100
    assert {name: more[name] for name in usual} == usual


def test_seed_and_stage_name_the_randomness(ladder_policy: Path, ladder_tables: Path, tmp_path: Path) -> None:
    _draw(ladder_policy, ladder_tables, tmp_path / "a", seed=0)
    _draw(ladder_policy, ladder_tables, tmp_path / "b", seed=1)
    a, b = (read_table(tmp_path / name / "out", ["token_ids"]).to_pylist() for name in "ab")
    assert a != b


def test_a_killed_pool_goes_on_and_is_the_same(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path, kill_midway: Callable[[str], None]
) -> None:
    kill_midway(
        "from e2h_pipeline.artifacts.tables import read_table\n"
        "from e2h_pipeline.generation.pool import sample_pool\n"
        "from e2h_pipeline.recipe import Sampling\n"
        f"questions = read_table(Path({str(ladder_tables)!r}) / 'benchmark_questions' / 'data.parquet')\n"
        f"folder = Path({str(tmp_path / 'killed')!r})\n"
        f"sample_pool(Path({str(ladder_policy)!r}), questions, folder / 'out', folder / 'work',\n"
        f"    Sampling(**{OPTIONS.model_dump()!r}), 0, 'benchmark_samples', SuicidalReporter(1))\n"
    )
    work = tmp_path / "killed" / "work"
    assert sorted(p.name for p in work.iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    assert not (tmp_path / "killed" / "out").exists()
    survived = {p: p.stat().st_mtime_ns for p in work.iterdir()}
    _draw(ladder_policy, ladder_tables, tmp_path / "killed")
    assert {p: p.stat().st_mtime_ns for p in survived} == survived  # not drawn again
    _draw(ladder_policy, ladder_tables, tmp_path / "whole")
    killed, whole = (sorted((tmp_path / name / "out").iterdir()) for name in ("killed", "whole"))
    assert [p.name for p in killed] == [p.name for p in whole]
    assert [p.read_bytes() for p in killed] == [p.read_bytes() for p in whole]


def test_half_a_shard_is_no_shard(ladder_policy: Path, ladder_tables: Path, tmp_path: Path) -> None:
    """What a kill during a write leaves: a temporary file under another name."""
    work = tmp_path / "work"
    work.mkdir()
    (work / ".part-00000.parquet.1.tmp").write_bytes(b"PAR1 torn")
    _draw(ladder_policy, ladder_tables, tmp_path)
    assert len(read_table(tmp_path / "out")) == 60


def test_answers_are_a_greedy_and_a_sampled_pool(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    questions = read_table(ladder_tables / "benchmark_questions" / "data.parquet")
    summary = answers_pool(
        ladder_policy,
        questions,
        tmp_path / "out",
        tmp_path / "work",
        OPTIONS,
        Evaluation(samples=2),
        0,
        "sft_answers",
        Reporter(),
    )
    greedy, sampled = (read_table(tmp_path / "out" / name).to_pylist() for name in ("greedy", "sampled"))
    assert (len(greedy), len(sampled)) == (20, 40)
    assert (summary["greedy"]["samples"], summary["sampled"]["samples"]) == (20, 40)
    again = sample_pool(
        ladder_policy,
        questions,
        tmp_path / "again",
        tmp_path / "again-work",
        OPTIONS.model_copy(update={"samples": 1, "temperature": 0.0}),
        9,
        "another",
        Reporter(),
    )
    assert again["samples"] == 20
    assert [r["token_ids"] for r in read_table(tmp_path / "again").to_pylist()] == [
        r["token_ids"] for r in greedy
    ]
