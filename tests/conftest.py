"""Small real things for tests: tokenizers, tiny random models, a tiny ladder on disk."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forked
import pytest
from math_texts import MATH_TEXTS

# Must come before any import of torch: results are equal to the bit only on one CPU thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from e2h_pipeline.problems.records import ProblemSplit

LONGEST_FIRST = (
    "tests/e2e",
    "tests/resources/test_ray.py",
    "tests/deploy/test_postgres.py",
    "tests/deploy/test_production.py",
    "tests/grading/test_hostile.py",
    "tests/resources/test_accelerate.py",
    "tests/rl/test_kill.py",
    "tests/extending/test_toy.py",
    "tests/orchestration/test_source_watch.py",
    "tests/generation/test_sample_pool.py",
)
"""Files that take longest, as measured. They begin first, so that no worker waits for another at the end."""
SLOW = (
    *LONGEST_FIRST,
    "tests/cli/test_judging.py",
    "tests/cli/test_sweep.py",
    "tests/deploy",
    "tests/generation",
    "tests/grading/published",
    "tests/grading/test_fuzz.py",
    "tests/grading/test_graders.py",
    "tests/grading/test_real",
    "tests/grading/test_sharded.py",
    "tests/grading/test_worker_pool.py",
    "tests/operations",
    "tests/orchestration",
    "tests/recipe/test_recipe_files.py",
    "tests/report/test_browser.py",
    "tests/report/test_html.py",
    "tests/resources",
    "tests/rewards",
    "tests/rl/online",
    "tests/rl/rounds",
    "tests/rl/test_guards.py",
    "tests/supervision/test_monte_carlo.py",
    "tests/supervision/test_real_math.py",
    "tests/sweeps/test_sensors.py",
    "tests/training/test_trainer.py",
    "tests/training/test_sft.py",
)
"""Places whose tests take seconds: as if each had the mark `slow`. `make check` leaves them out."""


@pytest.hookimpl(tryfirst=True)  # before marks deselect
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow places, and sort the longest files to the front; within a file the order stays."""

    def place(item: pytest.Item) -> int:
        found = (i for i, name in enumerate(LONGEST_FIRST) if item.nodeid.startswith(name))
        return next(found, len(LONGEST_FIRST))

    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=place)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker for each file, and one for all files of e2e that share a home."""
    from xdist.scheduler import LoadScopeScheduling

    class ByHome(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            alone = not file.startswith("tests/e2e/") or file.endswith("test_sweeps.py")
            return file if alone else "e2e"

    return ByHome(config, log)


@pytest.fixture(scope="session")
def ladder_tok() -> "PreTrainedTokenizerFast":
    """The ladder's tokenizer: a token per character or marker."""
    from e2h_pipeline.problems.ladder.tokenizer import ladder_tokenizer

    return ladder_tokenizer()


@pytest.fixture(scope="session")
def bpe_tok() -> "PreTrainedTokenizerFast":
    """A byte-level BPE like those of published models, trained here on a few MATH-like texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    core = ByteLevelBPETokenizer()
    core.train_from_iterator(MATH_TEXTS * 3, vocab_size=420, special_tokens=["<pad>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=core._tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=1024
    )


@pytest.fixture(scope="session", params=["ladder", "bpe"])
def tok(
    request: pytest.FixtureRequest, ladder_tok: "PreTrainedTokenizerFast", bpe_tok: "PreTrainedTokenizerFast"
) -> "PreTrainedTokenizerFast":
    """Both tokenizers, one after the other."""
    return ladder_tok if request.param == "ladder" else bpe_tok


def save_tiny_llama(folder: Path, tokenizer: "PreTrainedTokenizerFast", width: int = 32) -> Path:
    """Two random layers. Weights are larger than usual, so that next tokens are far from
    uniform."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ladder_policy(tmp_path_factory: pytest.TempPathFactory, ladder_tok: "PreTrainedTokenizerFast") -> Path:
    """A tiny random policy over the ladder's tokenizer, as a Hugging Face folder."""
    return save_tiny_llama(tmp_path_factory.mktemp("ladder-policy"), ladder_tok)


@pytest.fixture(scope="session")
def bpe_policy(tmp_path_factory: pytest.TempPathFactory, bpe_tok: "PreTrainedTokenizerFast") -> Path:
    """A tiny random policy over the byte-level BPE, as a Hugging Face folder."""
    return save_tiny_llama(tmp_path_factory.mktemp("bpe-policy"), bpe_tok)


@pytest.fixture(scope="session")
def ladder_evaluator(tmp_path_factory: pytest.TempPathFactory, ladder_policy: Path) -> Path:
    """A tiny evaluator over the ladder's tokenizer whose random head tells steps apart."""
    import torch

    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.classifier import score_head
    from e2h_pipeline.models.load import new_evaluator

    model, tokenizer = new_evaluator(ladder_policy)
    torch.manual_seed(3)
    torch.nn.init.normal_(score_head(model).weight)
    folder = tmp_path_factory.mktemp("ladder-evaluator")
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def ladder_split() -> "ProblemSplit":
    """A small ladder, split by supervision."""
    from e2h_pipeline.problems.source import load_split
    from e2h_pipeline.recipe import LadderProblems

    return load_split(LadderProblems(train_per_level=16, validation=8, hard_limit=12, benchmark_limit=20))


@pytest.fixture(scope="session")
def ladder_tables(tmp_path_factory: pytest.TempPathFactory, ladder_split: "ProblemSplit") -> Path:
    """`easy_problems`, `easy_solutions`, `hard_questions` and `benchmark_questions` of the small
    ladder, as on disk."""
    from e2h_pipeline.artifacts.tables import write_table
    from e2h_pipeline.problems.records import easy_table, question_table
    from e2h_pipeline.solutions import MARKED
    from e2h_pipeline.supervision.easy_solutions import solution_table
    from e2h_pipeline.supervision.solutions.reference import reference_solutions

    folder = tmp_path_factory.mktemp("ladder-tables")
    easy = easy_table(ladder_split)
    write_table(folder / "easy_problems" / "data.parquet", easy)
    train = [row for row in easy.to_pylist() if row["split"] == "train"]
    solutions = solution_table(reference_solutions(train, MARKED))
    write_table(folder / "easy_solutions" / "data.parquet", solutions)
    write_table(folder / "hard_questions" / "data.parquet", question_table(ladder_split.hard))
    write_table(folder / "benchmark_questions" / "data.parquet", question_table(ladder_split.benchmark))
    return folder


@pytest.fixture
def kill_midway() -> Callable[[str], None]:
    """Run a script in its own process and see it die of SIGKILL.

    The script may use `SuicidalReporter(after)`: a reporter that sends SIGKILL to its own process
    at the call of `progress` that follows `after` others, so that the moment of death is known.
    """
    preamble = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from e2h_pipeline.artifacts.reporter import Reporter\n"
        "class SuicidalReporter(Reporter):\n"
        "    def __init__(self, after):\n"
        "        super().__init__()\n"
        "        self.left = after\n"
        "    def progress(self, done, total, unit):\n"
        "        if self.left == 0:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        self.left -= 1\n"
    )

    def run(script: str) -> None:
        done = forked.run(preamble + script, [], os.environ, seconds=300)
        assert done.returncode == -9, f"not killed: {done.returncode}\n{done.stderr[-3000:]}"

    return run


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; without it the tests that need it are skipped."""
    folder = os.environ.get("E2H_DATA_DIR")
    if not folder:
        pytest.skip("E2H_DATA_DIR is not set: no real data here")
    return Path(folder)
