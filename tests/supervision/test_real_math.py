"""Real input: MATH text and PRM800K labels through every stage of the method, with no special
case."""

from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.problems.math.prm800k import read_prm800k
from e2h_pipeline.problems.records import ProblemSplit, easy_table, question_table
from e2h_pipeline.recipe import (
    Base,
    MathProblems,
    Prm800kLabels,
    Prm800kSolutions,
    PrmReward,
    RewardTraining,
    Sampling,
    Scoring,
    Sft,
)
from e2h_pipeline.rewards.pool import score_pool
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.supervision.easy_solutions import write_easy_solutions
from e2h_pipeline.supervision.step_labels import label_easy_steps
from e2h_pipeline.training.from_nothing import make_base_model
from e2h_pipeline.training.sft import train_sft

PROBLEMS = MathProblems(validation=500)


@pytest.fixture(scope="module")
def tables(data_dir: Path, math_split: ProblemSplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few dozen easy problems with labels in PRM800K, and a dozen of MATH500."""
    folder = tmp_path_factory.mktemp("math")
    labelled = {s.unique_id for s in read_prm800k(data_dir / "steps").solutions}
    train = tuple(p for p in math_split.easy_train if p.problem_id in labelled)[:36]
    validation = tuple(p for p in math_split.easy_validation if p.problem_id in labelled)
    few = ProblemSplit(train, validation, (), math_split.benchmark[:12])
    write_table(folder / "easy_problems" / "data.parquet", easy_table(few))
    write_table(folder / "benchmark_questions" / "data.parquet", question_table(few.benchmark))
    assert len(train) == 36
    assert len(validation) >= 4
    return folder


def test_math_goes_through_all_stages(data_dir: Path, tables: Path, bpe_policy: Path, tmp_path: Path) -> None:
    easy, questions = tables / "easy_problems", tables / "benchmark_questions"
    steps = str(data_dir / "steps")

    def work(name: str) -> Work:
        return Work(tmp_path / name, tmp_path / "work" / name, 0)

    make_base_model(Base(model=str(bpe_policy)), PROBLEMS, work("base"))
    rated = Prm800kSolutions(path=steps)
    taught = write_easy_solutions(easy, [questions], rated, MATH, 0, work("solutions"))
    assert taught["problems"] >= 30
    fitting = {"epochs": 2, "learning_rate": 3e-3}
    sft = Sft(batch_size=8, micro_batch_size=4, **fitting)
    tuned = train_sft(tmp_path / "base", tmp_path / "solutions", sft, MATH.text, work("sft"))
    assert tuned["solutions"] + tuned["dropped_for_length"] == taught["solutions"]
    assert tuned["problems"] >= 25

    sources = [Prm800kLabels(path=steps)]
    inputs = {"easy_problems": easy}
    labelled = label_easy_steps(inputs, sources, MATH, Sampling(), "exact", work("easy_step_labels"))
    assert labelled["problems"] >= 36
    assert labelled["right_steps"] > labelled["wrong_steps"] > 20

    reward = PrmReward(training=RewardTraining(batch_size=16, micro_batch_size=8, **fitting))
    labels = {"steps": tmp_path / "easy_step_labels"}
    judged = train_reward_model(tmp_path / "base", labels, reward, MATH.text, work("prm"))
    assert judged["final_loss"] < 0.69
    assert judged["validation_steps"] > 10

    options = Sampling(samples=2, max_new_tokens=24, shard_questions=5)
    drawing = Drawing(tmp_path / "sft", MATH, options, "pool", Independent())
    drawn = sample_pool(drawing, read_table(questions / "data.parquet"), work("pool"))
    assert drawn["samples"] == 24
    pool = tmp_path / "pool"
    score_pool(tmp_path / "prm", pool, questions, Scoring(), MATH.text, work("scores"))
    rows: list[dict[str, Any]] = read_table(tmp_path / "scores").to_pylist()
    for sample, score in zip(read_table(pool).to_pylist(), rows, strict=True):
        assert len(score["step_logits"]) == len(MATH.text.parse(sample["completion"]).spans)
    assert sum(len(row["step_logits"]) for row in rows) >= 24
