import itertools
import os
import random
import signal
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.models.load import STEP_END_FIELD, load_evaluator
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Sampling, Scoring
from e2h_pipeline.rewards import evaluators, scoring
from e2h_pipeline.rewards import pool as pools
from e2h_pipeline.rewards.pool import score_pool
from e2h_pipeline.rewards.scoring import encode_for, score_solutions
from e2h_pipeline.rewards.shared_prompt import can_share
from e2h_pipeline.solutions import MARKED, encode

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
    """One solution at a time through the whole head, without batches and padding."""
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
    assert sum(rows for rows, _ in shapes) == len(SOLUTIONS) - 1  # the empty one has nothing to score
    assert all(rows * length <= 80 for rows, length in shapes)


def test_a_step_is_scored_before_what_follows_is_seen(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast],
) -> None:
    one = score_solutions(*evaluator, [("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6", True)])[0]
    other = score_solutions(*evaluator, [("1+2*2", "1+2=3\n\n5*5=1\n\n# Answer\n\n1", True)])[0]
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    assert abs(one[1] - other[1]) > 1e-4


CANDIDATES = [
    (question, "\n\n".join([*["1+2=3"] * n, "# Answer", str(n % 7)]), n % 2 == 0)
    for question in ("1+2*2" * 6, "4-1" * 9, "5*5")
    for n in (*range(1, 9), 20, 21)
]


def test_candidates_share_their_prompt(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scoring._PASS_TOKENS, "cpu", 32)
    monkeypatch.setattr(scoring, "_LAYER_WEIGHTS", 0)
    alone = score_solutions(*evaluator, CANDIDATES, share_prompts=False)
    behind: list[bool] = []
    handle = evaluator[0].base_model.register_forward_pre_hook(
        lambda module, args, kwargs: behind.append("past_key_values" in kwargs), with_kwargs=True
    )
    for batch_tokens in (100, 512, 100_000):
        shared = score_solutions(*evaluator, CANDIDATES, batch_tokens)
        assert [len(s) for s in shared] == [len(s) for s in alone]
        flat = list(itertools.chain(*shared))
        assert flat == pytest.approx(list(itertools.chain(*alone)), abs=1e-4)
        assert any(behind) and not all(behind)
        behind.clear()
    handle.remove()
    flat = list(itertools.chain(*alone))
    assert max(flat) - min(flat) > 0.5


def test_a_pass_too_small_to_be_worth_it_is_not_made(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scoring._PASS_TOKENS, "cpu", 256)
    shapes: list[torch.Size] = []
    handle = evaluator[0].base_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    score_solutions(*evaluator, SOLUTIONS)
    handle.remove()
    assert len(shapes) == 1


def test_a_pass_of_a_tiny_model_costs_its_calls(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fewest tokens of a pass cover the overhead of its calls, which depends on the weights per
    layer."""
    model, _ = evaluator
    layers, weights = model.config.num_hidden_layers, model.num_parameters()
    monkeypatch.setattr(scoring, "_LAYER_WEIGHTS", 50 * weights)
    assert scoring._floor(model) == 50 * layers
    monkeypatch.setattr(scoring, "_LAYER_WEIGHTS", weights // layers)
    assert scoring._floor(model) == scoring._PASS_TOKENS["cpu"]


def test_a_model_that_forgets_does_not_share(
    ladder_tok: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import MistralConfig, MistralForTokenClassification

    monkeypatch.setitem(scoring._PASS_TOKENS, "cpu", 1)
    monkeypatch.setattr(scoring, "_LAYER_WEIGHTS", 0)
    torch.manual_seed(0)
    shape = {
        "vocab_size": len(ladder_tok),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.2,
        "num_labels": 1,
    }
    for window, shares in ((16, False), (None, True)):
        model = MistralForTokenClassification(MistralConfig(sliding_window=window, **shape)).eval()
        assert can_share(model) == shares
        naive = [_naive(model, ladder_tok, *solution) for solution in CANDIDATES]
        flat = list(itertools.chain(*score_solutions(model, ladder_tok, CANDIDATES)))
        assert flat == pytest.approx(list(itertools.chain(*naive)), abs=1e-4)


def test_half_precision_scores_are_close(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    ladder_evaluator: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from e2h_pipeline.models.base import save_model

    monkeypatch.setitem(scoring._PASS_TOKENS, "cpu", 32)
    monkeypatch.setattr(scoring, "_LAYER_WEIGHTS", 0)
    model, tokenizer = load_evaluator(ladder_evaluator)
    save_model(model.to(torch.bfloat16), tokenizer, tmp_path)
    half = load_evaluator(tmp_path)
    assert half[0].dtype == torch.bfloat16
    found = list(itertools.chain(*score_solutions(*half, CANDIDATES)))
    exact = list(itertools.chain(*score_solutions(*evaluator, CANDIDATES)))
    spread = max(exact) - min(exact)
    assert found == pytest.approx(exact, abs=0.05 * spread)


def test_steps_scored_at_their_first_newline(
    evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast],
) -> None:
    model, tokenizer = evaluator
    solution = ("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6", True)
    last = encode_for(model, tokenizer, solution)
    setattr(model.config, STEP_END_FIELD, "first_newline")
    try:
        first = encode_for(model, tokenizer, solution)
    finally:
        delattr(model.config, STEP_END_FIELD)
    assert first.input_ids == last.input_ids
    text = tokenizer.convert_ids_to_tokens(list(last.input_ids))
    pair = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    step = 1 if len(pair) == 2 else 0  # one token for both newlines is the same position
    assert [a - b for a, b in zip(last.segment_ends, first.segment_ends, strict=True)] == [step, step, 0]
    assert text[first.segment_ends[0]] == tokenizer.convert_ids_to_tokens(pair)[0]


def test_nothing_to_score(evaluator: tuple[PreTrainedModel, PreTrainedTokenizerFast]) -> None:
    assert score_solutions(*evaluator, []) == []


@pytest.fixture(scope="module")
def pool(ladder_policy: Path, ladder_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    questions = read_table(ladder_tables / "benchmark_questions" / "data.parquet")
    options = Sampling(samples=3, temperature=3.0, top_k=0, max_new_tokens=20, shard_questions=5)
    drawing = Drawing(ladder_policy, LADDER, options, "pool", Independent())
    sample_pool(drawing, questions, Work(folder / "out", folder / "work", 0))
    return folder / "out"


def _score(evaluator: Path, pool: Path, tables: Path, folder: Path, batch_tokens: int = 4096) -> dict:
    return score_pool(
        evaluator,
        pool,
        tables / "benchmark_questions",
        Scoring(batch_tokens=batch_tokens),
        MARKED,
        Work(folder / "out", folder / "work"),
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
    assert summary["steps"] == sum(len(s["step_logits"]) for s in scores) > 60  # several in a row
    for sample, score in zip(samples, scores, strict=True):
        for column in ("problem_id", "level", "sample"):
            assert sample[column] == score[column]
        assert len(score["step_logits"]) == len(MARKED.parse(sample["completion"]).spans)
        finished = sample["finish_reason"] == "stop"
        naive = _naive(model, tokenizer, text[sample["problem_id"]], sample["completion"], finished)  # type: ignore[arg-type]
        assert score["step_logits"] == pytest.approx(naive, abs=1e-5)


def test_scoring_goes_on_where_it_stopped(
    ladder_evaluator: Path, ladder_tables: Path, pool: Path, tmp_path: Path
) -> None:
    _score(ladder_evaluator, pool, ladder_tables, tmp_path / "whole")
    _score(ladder_evaluator, pool, ladder_tables, tmp_path / "broken")
    work = tmp_path / "broken" / "work"
    for name in ("part-00001-000000.parquet", "part-00003-000000.parquet"):
        (work / name).unlink()
    for part in (tmp_path / "broken" / "out").iterdir():
        part.unlink()
    kept = (work / "part-00000-000000.parquet").stat().st_mtime_ns
    _score(ladder_evaluator, pool, ladder_tables, tmp_path / "broken")
    assert (work / "part-00000-000000.parquet").stat().st_mtime_ns == kept
    for part in (tmp_path / "whole" / "out").iterdir():
        assert (tmp_path / "broken" / "out" / part.name).read_bytes() == part.read_bytes()


def test_rows_are_read_a_few_at_a_time(
    ladder_evaluator: Path,
    ladder_tables: Path,
    pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = _score(ladder_evaluator, pool, ladder_tables, tmp_path / "whole")
    seen: list[int] = []
    real = scoring.score_solutions
    monkeypatch.setattr(pools, "_ROWS", 4)

    def watched(model: PreTrainedModel, tokenizer: Any, rows: Any, *given: Any, **named: Any) -> Any:
        seen.append(len(rows))
        return real(model, tokenizer, rows, *given, **named)

    monkeypatch.setattr(evaluators, "score_solutions", watched)
    assert _score(ladder_evaluator, pool, ladder_tables, tmp_path / "few") == whole
    assert max(seen) == 4 and sum(seen) == 60
    for part in (tmp_path / "whole" / "out").iterdir():
        rows = [
            read_table(folder / "out" / part.name).to_pylist()
            for folder in (tmp_path / "whole", tmp_path / "few")
        ]
        for a, b in zip(*rows, strict=True):
            assert a["sample"] == b["sample"]
            assert a["step_logits"] == pytest.approx(b["step_logits"], abs=1e-5)


_KILLED = """
import os, signal, sys
from pathlib import Path
from e2h_pipeline.recipe import Scoring
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.rewards import pool
from e2h_pipeline.solutions import MARKED

class Killer(Reporter):
    calls = 0
    def progress(self, done, total, unit, reused=0):
        self.calls += 1
        if self.calls == 3:  # the first says that nothing is done; two parts are on disk
            os.kill(os.getpid(), signal.SIGKILL)

evaluator, samples, questions, folder = map(Path, sys.argv[1:])
work = Work(folder / "out", folder / "work", reporter=Killer())
pool.score_pool(evaluator, samples, questions, Scoring(batch_tokens=4096), MARKED, work)
"""


def test_a_killed_run_goes_on(
    ladder_evaluator: Path, ladder_tables: Path, pool: Path, tmp_path: Path
) -> None:
    questions = ladder_tables / "benchmark_questions"
    arguments = [ladder_evaluator, pool, questions, tmp_path / "killed"]
    assert forked.run(_KILLED, arguments, os.environ).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "out").exists()
    finished = sorted((tmp_path / "killed" / "work").glob("part-*.parquet"))
    assert [part.name for part in finished] == ["part-00000-000000.parquet", "part-00001-000000.parquet"]
    kept = [part.stat().st_mtime_ns for part in finished]
    seen: list[tuple[int, int, int]] = []

    class Watching(Reporter):
        def progress(
            self, done: int, total: int, unit: str, reused: int = 0, tokens: int | None = None
        ) -> None:
            seen.append((done, total, reused))

    folder = tmp_path / "killed"
    score_pool(
        ladder_evaluator,
        pool,
        questions,
        Scoring(batch_tokens=4096),
        MARKED,
        Work(folder / "out", folder / "work", reporter=Watching()),
    )
    assert seen == [(0, 60, 0), (15, 60, 15), (30, 60, 30), (45, 60, 30), (60, 60, 30)]
    assert [part.stat().st_mtime_ns for part in finished] == kept
    _score(ladder_evaluator, pool, ladder_tables, tmp_path / "whole")
    for part in (tmp_path / "whole" / "out").iterdir():
        assert (folder / "out" / part.name).read_bytes() == part.read_bytes()
