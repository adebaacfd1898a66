"""Supervised fine-tuning of the policy on easy solutions (paper section 3.2, appendix C.1).

The loss is on the learned segments of the completion. The end-of-sequence token is one of them: a
policy that is not taught to stop never finishes an answer.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.solutions import MARKED, encode
from e2h_pipeline.training.adapters import prepare, whole
from e2h_pipeline.training.next_token import IGNORED
from e2h_pipeline.training.taught import TaughtTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.recipe import Sft
    from e2h_pipeline.solutions import TextFormat


def train_sft(base: Path, easy_solutions: Path, options: Sft, text: TextFormat, work: Work) -> dict[str, Any]:
    """Fine-tune the model in `base` on the solutions of `easy_solutions` and save it to `work.out`.

    Returns counts of problems and solutions used and of solutions dropped for length, and the
    training summary.
    """
    from transformers import set_seed

    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_policy
    from e2h_pipeline.training.trainer import Settings, is_main_process, train

    set_seed(work.seed)
    model, tokenizer = load_policy(base)
    stored_as = model.dtype
    rows = read_table(easy_solutions / "data.parquet").to_pylist()
    random.Random(f"sft/{work.seed}").shuffle(rows)
    wanted = set(list(dict.fromkeys(row["problem_id"] for row in rows))[: options.problems])
    rows = [row for row in rows if row["problem_id"] in wanted]
    encoded = [(row["problem_id"], sft_example(tokenizer, row, text)) for row in rows]
    kept = [(name, example) for name, example in encoded if len(example["input_ids"]) <= options.max_tokens]
    trained = prepare(model, options)
    summary = train(
        trained.train(),
        [example for _, example in kept],
        TaughtTokens(),
        Settings.of(options, work.seed),
        tokenizer.pad_token_id,
        work,
    )
    if is_main_process():
        save_model(whole(trained, work.folder, _load).to(stored_as), tokenizer, work.out)
    return {
        "problems": len({name for name, _ in kept}),
        "solutions": len(kept),
        "dropped_for_length": len(encoded) - len(kept),
        **summary,
    }


def _load(folder: Path) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    from e2h_pipeline.models.strict import load_strictly

    return load_strictly(AutoModelForCausalLM, folder)


def sft_example(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], text: TextFormat = MARKED
) -> dict[str, Sequence[int]]:
    """One solution as token ids and labels.

    Prompt and segments that are not to be learned carry no loss; the end-of-sequence token is
    learned with the last segment.

    Args:
        row: `question`, `completion`, `learned` (a flag per segment) and `finished` of
            `easy_solutions`.
        text: how the domain writes solutions.
    """
    encoded = encode(tokenizer, row["question"], row["completion"], finished=row["finished"], text=text)
    ids, labels = encoded.input_ids, [IGNORED] * len(encoded.input_ids)
    start = encoded.prompt_tokens
    for end, learned in zip(encoded.segment_ends, row["learned"], strict=True):
        if learned:
            labels[start : end + 1] = ids[start : end + 1]
        start = end + 1
    if row["finished"] and row["learned"][-1]:
        labels[start:] = ids[start:]
    # Arrays, not tuples of ints: MetaMathQA has some hundred million tokens.
    return {"input_ids": array("i", ids), "labels": array("i", labels)}
