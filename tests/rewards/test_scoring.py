import itertools
import random
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.generation.pool import sample_pool
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.recipe import Sampling, Scoring
from e2h_pipeline.reporter import Reporter
from e2h_pipeline.rewards.scoring import score_pool, score_solutions
from e2h_pipeline.solutions import encode, parse_completion

SOLUTIONS = [
    ("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6", True),
    ("1+2*2", "1+2=3\n\n3*2", False),
    ("1-2", "1-2=6\n\n# Answer\n\n6", True),
    ("1-2", "", True),
    ("4*4-1+2", "4*4=2\n\n2-1=1\n\n1+2=3\n\n3+0=3\n\n3+0=3\n\n# Answer\n\n3", True),
    ("4*4", "# Answer\n\n", True),
    ("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6", False),
]


@pytest.fixture(scope="module")
def evaluator(ladder_evaluator: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    return load_evaluator(ladder_evaluator)  # type: ignore[return-value]


def _naive(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, question: str, completion: str, finished: bool
) -> list[float]:
    """One solution at a time through the whole head, no batch, no padding."""
    encoded = encode(tokenizer, question, completion, finished=finished)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([encoded.input_ids])).logits[0, :, 0]
    return [logits[end].item() for end in encoded.segment_ends]


def _same(a: list[list[float]], b: list[list[float]]) -> None:
    assert [len(x) for x in a] == [len(x) for x in b]
    assert list(itertools.chain(*a)) == pytest.approx(list(itertools.chain(*b)), abs=1e-5)


def test_scores_are_those_of_one_solution_alone(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast],
) -> None:
    naive = [_naive(*evaluator, *solution) for solution in SOLUTIONS]
    scores = score_solutions(*evaluator, SOLUTIONS)
    _same(scores, naive)
    assert [len(s) for s in scores] == [3, 2, 2, 0, 6, 1, 3]
    flat = list(itertools.chain(*scores))
    assert max(flat) - min(flat) > 0.5  # the random head does tell them apart


@pytest.mark.parametrize("batch_tokens", [1, 40, 64, 10_000])
def test_batches_have_no_say(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast], batch_tokens: int
) -> None:
    _same(score_solutions(*evaluator, SOLUTIONS, batch_tokens), score_solutions(*evaluator, SOLUTIONS))


def test_order_and_repetition_have_no_say(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast],
) -> None:
    order = [i for i in range(len(SOLUTIONS)) for _ in range(1 + i % 3)]
    random.Random(0).shuffle(order)
    once = score_solutions(*evaluator, SOLUTIONS)
    _same(score_solutions(*evaluator, [SOLUTIONS[i] for i in order]), [once[i] for i in order])


def test_equal_solutions_are_computed_once_and_batches_keep_their_budget(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast],
) -> None:
    shapes: list[torch.Size] = []
    handle = evaluator[0].base_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    score_solutions(*evaluator, SOLUTIONS * 5, batch_tokens=80)
    handle.remove()
    assert sum(rows for rows, _ in shapes) == len(SOLUTIONS)
    assert all(rows * length <= 80 for rows, length in shapes)


def test_a_step_is_scored_before_what_follows_is_seen(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast],
) -> None:
    one = score_solutions(*evaluator, [("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6", True)])[0]
    other = score_solutions(*evaluator, [("1+2*2", "1+2=3\n\n5*5=1\n\n# Answer\n\n1", True)])[0]
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    assert abs(one[1] - other[1]) > 1e-4


def test_nothing_to_score(evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast]) -> None:
    assert score_solutions(*evaluator, []) == []


@pytest.fixture(scope="module")
def pool(ladder_policy: Path, ladder_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    questions = read_table(ladder_tables / "benchmark_questions" / "data.parquet")
    options = Sampling(samples=3, temperature=3.0, top_k=0, max_new_tokens=20, shard_questions=5)
    sample_pool(ladder_policy, questions, folder / "out", folder / "work", options, 0, "pool", Reporter())
    return folder / "out"


def _score(evaluator: Path, pool: Path, tables: Path, folder: Path, batch_tokens: int = 4096) -> dict:
    return score_pool(
        evaluator,
        pool,
        tables / "benchmark_questions",
        folder / "out",
        folder / "work",
        Scoring(batch_tokens=batch_tokens),
        Reporter(),
    )


def test_a_pool_is_scored_row_by_row(
    ladder_evaluator: Path, ladder_tables: Path, pool: Path, tmp_path: Path
) -> None:
    summary = _score(ladder_evaluator, pool, ladder_tables, tmp_path)
    samples, scores = read_table(pool).to_pylist(), read_table(tmp_path / "out").to_pylist()
    model, tokenizer = load_evaluator(ladder_evaluator)
    questions = read_table(ladder_tables / "benchmark_questions" / "data.parquet").to_pylist()
    text = {q["problem_id"]: q["question"] for q in questions}
    assert len(scores) == summary["solutions"] == 60
    assert summary["steps"] == sum(len(s["step_logits"]) for s in scores) > 60  # several a row
    for sample, score in zip(samples, scores, strict=True):
        for column in ("problem_id", "level", "sample"):
            assert sample[column] == score[column]
        assert len(score["step_logits"]) == len(parse_completion(sample["completion"]).spans)
        finished = sample["finish_reason"] == "stop"
        naive = _naive(model, tokenizer, text[sample["problem_id"]], sample["completion"], finished)  # type: ignore[arg-type]
        assert score["step_logits"] == pytest.approx(naive, abs=1e-5)


def test_scoring_goes_on_where_it_stopped(
    ladder_evaluator: Path, ladder_tables: Path, pool: Path, tmp_path: Path
) -> None:
    _score(ladder_evaluator, pool, ladder_tables, tmp_path / "whole")
    _score(ladder_evaluator, pool, ladder_tables, tmp_path / "broken")
    work = tmp_path / "broken" / "work"
    for name in ("part-00001.parquet", "part-00003.parquet"):
        (work / name).unlink()
    for part in (tmp_path / "broken" / "out").iterdir():
        part.unlink()
    kept = (work / "part-00000.parquet").stat().st_mtime_ns
    _score(ladder_evaluator, pool, ladder_tables, tmp_path / "broken")
    assert (work / "part-00000.parquet").stat().st_mtime_ns == kept
    for part in (tmp_path / "whole" / "out").iterdir():
        assert (tmp_path / "broken" / "out" / part.name).read_bytes() == part.read_bytes()
