"""Train the ladder's small base model from nothing on its flawed corpus.

The result is shipped with the package; `base.train=true` makes it again, and a check compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.base import ORIGIN, SHIPPED, folder_size, get_base_model, origin_of, save_model
from e2h_pipeline.training.next_token import IGNORED, next_token_loss

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.recipe import Base, LadderWorld, Problems

_COMPARED_DOCUMENTS = 200
_LOSS_TOLERANCE = 0.02  # nats per token; another processor rounds otherwise, and training amplifies it


def make_base_model(
    options: Base, problems: Problems, out: Path, work: Path, reporter: Reporter
) -> dict[str, Any]:
    """Write the recipe's base model, a Hugging Face folder, to `out`: ready-made, or trained from nothing."""
    if options.train:
        return train_ladder_base(options, problems, out, work, reporter)
    return get_base_model(options, problems, out)


def train_ladder_base(
    options: Base, problems: Problems, out: Path, work: Path, reporter: Reporter
) -> dict[str, Any]:
    """Train the small Llama on the ladder's corpus, from nothing, and save it to `out`."""
    from transformers import set_seed

    from e2h_pipeline.problems.ladder.tokenizer import ladder_tokenizer
    from e2h_pipeline.training.trainer import CURVES, Settings, train

    tokenizer = ladder_tokenizer()
    set_seed(options.seed)
    model = _small_llama(options, tokenizer)
    settings = Settings(
        epochs=1,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup=0.05,
        seed=options.seed,
        order="sequential",  # rows are independent draws of one length
    )
    summary = train(
        model,
        CorpusRows(options, problems.world, tokenizer),
        lambda model, batch, total: next_token_loss(
            model(input_ids=batch["input_ids"], use_cache=False).logits, batch["labels"], total
        ),
        settings,
        pad_id=tokenizer.pad_token_id,
        work=work,
        reporter=reporter,
        curves=out / CURVES,
    )
    save_model(model, tokenizer, out)
    origin = json.dumps(origin_of(options, problems), indent=1, sort_keys=True)
    (out / ORIGIN).write_text(origin + "\n", encoding="utf-8")
    return {"origin": "trained from nothing on the ladder's corpus", **folder_size(out), **summary}


def compare_with_shipped(folder: Path, options: Base, problems: Problems) -> dict[str, Any] | None:
    """How a base model trained from nothing compares with the shipped one; None where their knobs differ.

    Returns {"identical": same weights to the bit, "loss", "shipped_loss": nats per predictable token on
    corpus documents that neither was trained on, "alike": identical or of like loss}.
    """
    shipped = SHIPPED / options.model
    if not shipped.is_dir() or json.loads((shipped / ORIGIN).read_text(encoding="utf-8")) != origin_of(
        options, problems
    ):
        return None
    identical = (folder / "model.safetensors").read_bytes() == (shipped / "model.safetensors").read_bytes()
    unseen = options.model_copy(
        update={"seed": options.seed + 1, "updates": 1, "batch_size": _COMPARED_DOCUMENTS}
    )
    loss, shipped_loss = (_corpus_loss(path, unseen, problems.world) for path in (folder, shipped))
    alike = identical or abs(loss - shipped_loss) <= _LOSS_TOLERANCE
    return {"identical": identical, "loss": loss, "shipped_loss": shipped_loss, "alike": alike}


def _corpus_loss(folder: Path, options: Base, world: LadderWorld) -> float:
    import torch

    from e2h_pipeline.models.load import load_policy

    model, tokenizer = load_policy(folder)
    rows = CorpusRows(options, world, tokenizer)
    batch = [rows[i] for i in range(len(rows))]
    ids, labels = (
        torch.tensor([row[name] for row in batch], device=model.device) for name in ("input_ids", "labels")
    )
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits
        return float(next_token_loss(logits, labels, (labels[:, 1:] != IGNORED).sum()))


class CorpusRows:
    """The corpus as rows of equal length: documents end to end, cut where the row is full.

    Packing wastes no padding, and a document starts at any position, so that what the model learns
    about position does not end at the longest solution it saw from position 0.
    """

    def __init__(self, options: Base, world: LadderWorld, tokenizer: PreTrainedTokenizerBase) -> None:
        self._options, self._world, self._tokenizer = options, world, tokenizer

    def __len__(self) -> int:
        return self._options.updates * self._options.batch_size

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        from e2h_pipeline.problems.ladder.corpus import corpus_document

        ids: list[int] = []
        labels: list[int] = []
        document = 0
        while len(ids) < self._options.row_tokens:
            for text, counts in corpus_document(self._options, self._world, f"{index}/{document}"):
                tokens = self._tokenizer(text)["input_ids"]
                ids += tokens
                labels += tokens if counts else [IGNORED] * len(tokens)
            ids.append(self._tokenizer.eos_token_id)
            labels.append(self._tokenizer.eos_token_id)
            document += 1
        return {"input_ids": ids[: self._options.row_tokens], "labels": labels[: self._options.row_tokens]}


def _small_llama(options: Base, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=options.hidden,
            intermediate_size=options.hidden * 8 // 3,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            initializer_range=options.hidden**-0.5,  # the usual 0.02 is made for widths in the thousands
            max_position_embeddings=tokenizer.model_max_length,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
