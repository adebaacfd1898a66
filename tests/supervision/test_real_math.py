"""Real input: MATH text and PRM800K labels through every stage of the method, with no special case."""

from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.generation.sample_pool import sample_pool
from e2h_pipeline.problems.math.prm800k import read_prm800k
from e2h_pipeline.problems.records import ProblemSplit, easy_table, question_table
from e2h_pipeline.problems.source import load_split
from e2h_pipeline.recipe import Base, Labels, Problems, RewardTraining, Sampling, Scoring, Sft, Solutions
from e2h_pipeline.rewards.scoring import score_pool
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.solutions import parse_completion
from e2h_pipeline.supervision.easy_solutions import write_easy_solutions
from e2h_pipeline.supervision.step_labels import label_easy_samples
from e2h_pipeline.training.from_nothing import make_base_model
from e2h_pipeline.training.sft import train_sft

MATH = Problems(source="math", validation=500)
REPORTER = Reporter()


@pytest.fixture(scope="module")
def tables(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few dozen easy problems that PRM800K has labels of, and a dozen of MATH500."""
    folder = tmp_path_factory.mktemp("math")
    split = load_split(MATH)
    labelled = {s.unique_id for s in read_prm800k(data_dir / "steps").solutions}
    train = tuple(p for p in split.easy_train if p.problem_id in labelled)[:36]
    validation = tuple(p for p in split.easy_validation if p.problem_id in labelled)
    few = ProblemSplit(train, validation, (), split.benchmark[:12])
    write_table(folder / "easy_problems" / "data.parquet", easy_table(few))
    write_table(folder / "benchmark_questions" / "data.parquet", question_table(few.benchmark))
    assert len(train) == 36
    assert len(validation) >= 4
    return folder


def test_math_goes_through_all_stages(data_dir: Path, tables: Path, bpe_policy: Path, tmp_path: Path) -> None:
    easy, questions = tables / "easy_problems", tables / "benchmark_questions"
    base, sft, labels, prm, pool, scores = (
        tmp_path / name for name in ("base", "sft", "labels", "prm", "pool", "scores")
    )

    def work(name: str) -> Path:
        return tmp_path / "work" / name

    make_base_model(Base(model=str(bpe_policy)), MATH, base, work("base"), REPORTER)
    rated = Solutions(source="prm800k", path=str(data_dir / "steps"))
    taught = write_easy_solutions(easy, [questions], tmp_path / "solutions", rated, 0)
    assert taught["problems"] >= 30
    tuned = train_sft(
        base,
        tmp_path / "solutions",
        sft,
        work("sft"),
        Sft(epochs=2, batch_size=8, micro_batch_size=4, learning_rate=3e-3),
        0,
        REPORTER,
    )
    assert tuned["solutions"] + tuned["dropped_for_length"] == taught["solutions"]
    assert tuned["problems"] >= 25

    labelled = label_easy_samples(
        tmp_path / "no-samples",
        easy,
        labels,
        Labels(source="prm800k", path=str(data_dir / "steps")),
        MATH,
        0,
        REPORTER,
    )
    assert labelled["problems"] >= 36
    assert labelled["right_steps"] > labelled["wrong_steps"] > 20

    judged = train_reward_model(
        "prm",
        base,
        labels,
        None,
        prm,
        work("prm"),
        RewardTraining(epochs=2, batch_size=16, micro_batch_size=8, learning_rate=3e-3),
        0,
        REPORTER,
    )
    assert judged["final_loss"] < 0.69
    assert judged["validation_steps"] > 10

    options = Sampling(samples=2, max_new_tokens=24, shard_questions=5)
    drawn = sample_pool(
        sft, read_table(questions / "data.parquet"), pool, work("pool"), options, 0, "pool", REPORTER
    )
    assert drawn["samples"] == 24
    score_pool(prm, pool, questions, scores, work("scores"), Scoring(), REPORTER)
    rows: list[dict[str, Any]] = read_table(scores).to_pylist()
    for sample, score in zip(read_table(pool).to_pylist(), rows, strict=True):
        assert len(score["step_logits"]) == len(parse_completion(sample["completion"]).spans)
    assert sum(len(row["step_logits"]) for row in rows) >= 24
