r"""Does training on human step labels generalize to other problems?

    E2H_DATA_DIR=... python benchmarks/real_labels.py [--seeds 0] [--folds 4]

`rewards.train` trains a small random Llama (two layers of width 64, tokenizer learnt from the
training texts) on the PRM800K ratings of `steps/prm800k_human_1818` (216 problems, none in
MATH500). The split is by problem: 20 easy problems (levels 1-3) choose the threshold, the rest is
cut into folds, and each fold is judged by an evaluator trained on the other folds. Measured on all
held-out steps: AUROC, with scores ranked within their fold, and balanced accuracy at the threshold
that is best on easy validation (a majority class has one half), with intervals over problems. Two
baselines that do not read the step: its number and its length in characters (early and short count
as right), with the paired difference of the evaluator's AUROC to theirs.

A rated solution is cut after its first wrong step. Two leaks had to be closed; each alone gives an
AUROC above 0.98. The cut step must end in a blank line like every other step
(`supervision.ratings`), and the tokenizer must spell this blank line the same at the end of a text
as before more text (`solutions.encode_completion`).

Result with seed 0: AUROC .565 [.541, .590], balanced accuracy .533 [.514, .553]. This beats chance
and the majority class, but not the length of the step, .580 [.554, .603]: a model of this size
learns little more than length.

A table for people, then one JSON line. About a minute of processor time per fold.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.transfer import measured_auroc
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.problems.math.prm800k import read_prm800k
from e2h_pipeline.recipe import Prm800kLabels, PrmReward, RewardTraining, Sampling
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.solutions import SEPARATOR
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.ranking import ranking_quality
from e2h_pipeline.supervision.step_labels import label_easy_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EASY = (1, 2, 3)
VALIDATION_PROBLEMS = 20
VOCABULARY = 1024
TRAINING = RewardTraining(epochs=4, batch_size=32, micro_batch_size=16, learning_rate=3e-3, max_tokens=1024)
BOOTSTRAP = Bootstrap(1000)

Estimate = tuple[float, float, float]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Steps:
    """Labelled steps, (steps,) each; `position` from 0, `length` in characters."""

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    problem: NDArray[np.str_]
    level: NDArray[np.int64]
    position: NDArray[np.int64]
    length: NDArray[np.int64]

    def of(self, mask: NDArray[np.bool_]) -> Steps:
        """The steps where the mask is true."""
        return Steps(*(getattr(self, field.name)[mask] for field in fields(self)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    runs = [one_seed(seed, options.folds) for seed in options.seeds]
    print(json.dumps({"benchmark": "real_labels", "folds": options.folds, "runs": runs}))


def one_seed(seed: int, folds: int) -> dict[str, Any]:
    """Train and judge every fold, then measure all held-out steps together."""
    start = time.process_time()
    held_out, called = [], []
    for fold in range(folds):
        with tempfile.TemporaryDirectory() as folder:
            validation, test = one_fold(Path(folder), seed, fold, folds)
        called.append(test.scores > best_threshold(validation))
        ranks = np.searchsorted(np.sort(test.scores), test.scores) / len(test.scores)
        held_out.append(replace(test, scores=ranks))
    steps = Steps(*(np.concatenate([getattr(s, f.name) for s in held_out]) for f in fields(Steps)))
    hit = np.concatenate(called) == steps.right
    found = {
        "seed": seed,
        "processor_seconds": time.process_time() - start,
        "held_out_problems": len(np.unique(steps.problem)),
        "held_out_steps": len(steps.right),
        "share_right": float(steps.right.mean()),
        "auroc": auroc_of(steps, steps.scores),
        "auroc_easy": auroc_of(easy := steps.of(np.isin(steps.level, EASY)), easy.scores),
        "auroc_hard": auroc_of(hard := steps.of(~np.isin(steps.level, EASY)), hard.scores),
        "balanced_accuracy": balanced_accuracy(steps, hit),
        "auroc_of_position": auroc_of(steps, -steps.position),
        "auroc_of_length": auroc_of(steps, -steps.length),
        "auroc_over_position": over(steps, -steps.position),
        "auroc_over_length": over(steps, -steps.length),
    }
    show(found)
    return found


def one_fold(folder: Path, seed: int, fold: int, folds: int) -> tuple[Steps, Steps]:
    """Train on the other folds; the steps of easy validation and of this fold."""
    rows = labelled(folder, seed, fold, folds)
    texts = [row["question"] + SEPARATOR + row["completion"] for row in rows if row["split"] == "train"]
    make_base(folder / "base", texts, seed)
    work = Work(folder / "prm", folder / "work", seed)
    options = PrmReward(training=TRAINING)
    train_reward_model(folder / "base", {"steps": folder / "labels"}, options, MATH.text, work)
    return judged(folder / "prm", rows, "validation"), judged(folder / "prm", rows, "test")


def labelled(folder: Path, seed: int, fold: int, folds: int) -> Rows:
    """Write rows of step labels, split by problem, where training reads them."""
    import pyarrow as pa

    problems = {s.unique_id: s for s in read_prm800k().solutions}
    order = sorted(name for name in problems if name is not None)
    random.Random(f"real labels/{seed}").shuffle(order)
    validation = [name for name in order if problems[name].level in EASY][:VALIDATION_PROBLEMS]
    rest = [name for name in order if name not in validation]
    split = dict.fromkeys(order, "train") | dict.fromkeys(validation, "validation")
    split |= dict.fromkeys(rest[fold::folds], "test")
    table = [
        {"problem_id": n, "level": problems[n].level, "question": problems[n].question, "split": split[n]}
        for n in order
    ]
    write_table(folder / "problems" / "data.parquet", pa.Table.from_pylist(table))
    label_easy_steps(
        inputs={"easy_problems": folder / "problems"},
        labels=[Prm800kLabels()],
        domain=MATH,
        sampling=Sampling(),
        grader="exact",
        work=Work(folder / "labels", folder / "label-work", seed),
    )
    file = folder / "labels" / "data.parquet"
    return read_table(file).to_pylist()


def make_base(folder: Path, texts: list[str], seed: int) -> None:
    """A random two-layer Llama and a tokenizer learnt from the training texts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(texts)
    torch.manual_seed(seed)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over words, single digits and symbols; runs of newlines are words of their
    own."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    words = Regex(r"\n+| ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+| +")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<pad>", "</s>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", model_max_length=2048
    )


def judged(evaluator: Path, rows: Rows, split: str) -> Steps:
    """Scores of the labelled steps of a split."""
    own = [row for row in rows if row["split"] == split]
    model, tokenizer = load_evaluator(evaluator)
    scored = score_solutions(
        model, tokenizer, [(r["question"], r["completion"], r["finished"]) for r in own], 8192
    )
    items = []
    for row, logits in zip(own, scored, strict=True):
        blocks = row["completion"].split(SEPARATOR)
        for position, (logit, label) in enumerate(zip(logits, row["labels"], strict=True)):
            if label >= 0:
                item = (logit, label == 1, row["problem_id"], row["level"], position, len(blocks[position]))
                items.append(item)
    return Steps(*(np.array(column) for column in zip(*items, strict=True)))


def best_threshold(steps: Steps) -> float:
    """The logit above which calling a step right has the best balanced accuracy."""
    candidates = np.unique(steps.scores)
    above = steps.scores[:, None] > candidates
    quality = (above[steps.right].mean(axis=0) + (~above[~steps.right]).mean(axis=0)) / 2
    return float(candidates[quality.argmax()])


def numbered(steps: Steps) -> NDArray[np.int64]:
    """Number the problems."""
    return np.unique(steps.problem, return_inverse=True)[1]


def auroc_of(steps: Steps, scores: NDArray[Any]) -> Estimate:
    """AUROC of scores of the steps."""
    found = ranking_quality(scores, steps.right, numbered(steps), BOOTSTRAP).overall
    if found is None:
        raise SystemExit("the held-out steps are all right or all wrong; take another seed")
    return found


def balanced_accuracy(steps: Steps, hit: NDArray[np.bool_]) -> Estimate:
    """Mean of the accuracies on right and on wrong steps, with its interval."""
    problem = numbered(steps)
    size = int(problem.max()) + 1
    drawn = BOOTSTRAP.counts(size)
    value, resampled = 0.0, np.zeros(len(drawn))
    for side in (steps.right, ~steps.right):
        hits = np.bincount(problem, (hit & side).astype(float), size)
        items = np.bincount(problem, side.astype(float), size)
        value += hits.sum() / items.sum() / 2
        resampled += drawn @ hits / (drawn @ items) / 2
    low, high = BOOTSTRAP.bounds(resampled[:, None])
    return value, float(low[0]), float(high[0])


def over(steps: Steps, baseline: NDArray[np.integer]) -> Estimate:
    """AUROC of the evaluator minus that of a baseline, on the same resampled problems."""
    problem = numbered(steps)
    everything = np.ones(int(problem.max()) + 1, dtype=bool)
    drawn = BOOTSTRAP.counts(len(everything))
    ours, theirs = (
        measured_auroc(scores, steps.right, problem, everything, drawn)
        for scores in (steps.scores, baseline.astype(float))
    )
    if ours is None or theirs is None:
        raise SystemExit("the held-out steps are all right or all wrong; take another seed")
    low, high = BOOTSTRAP.bounds((ours.resampled - theirs.resampled)[:, None])
    return ours.value - theirs.value, float(low[0]), float(high[0])


_BARS = {"auroc": 0.5, "balanced_accuracy": 0.5, "auroc_over_position": 0.0, "auroc_over_length": 0.0}


def show(run: dict[str, Any]) -> None:
    """Print one seed for people."""
    print(
        f"seed {run['seed']}: {run['held_out_steps']:,} held-out steps of {run['held_out_problems']} problems, "
        f"{run['share_right']:.1%} right; {run['processor_seconds']:.0f} s"
    )
    for name, estimate in run.items():
        if isinstance(estimate, tuple):
            value, low, high = estimate
            bar = _BARS.get(name)
            verdict = "" if bar is None else f"  above {bar:g}: {'yes' if low > bar else 'NOT SHOWN'}"
            print(f"  {name:20}{value:7.3f}  [{low:6.3f}, {high:6.3f}]{verdict}")


if __name__ == "__main__":
    main()
