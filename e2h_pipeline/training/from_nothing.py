"""Train a small base model from nothing on the corpus of its domain (`base.train: true`).

The ladder's base model is shipped with the package. `base.train=true` makes it again, and a check
compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.base import (
    ORIGIN,
    SHIPPED,
    ModelError,
    corpus_of,
    folder_size,
    get_base_model,
    save_model,
)
from e2h_pipeline.training.next_token import IGNORED, next_token_loss

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.problems.domain import Corpus
    from e2h_pipeline.recipe import Base, Problems

_COMPARED_DOCUMENTS = 200
_LOSS_TOLERANCE = 0.02  # nats per token; other processors round differently, and training amplifies it


def make_base_model(options: Base, problems: Problems, work: Work) -> dict[str, Any]:
    """Write the recipe's base model, a Hugging Face folder, to `work.out`: ready-made, or trained
    from nothing.

    Raises:
        ModelError: the model cannot be found, the shipped model was made with other settings, or
            the domain has no corpus to train one on.
    """
    if not options.train:
        return get_base_model(options, problems, work.out)
    corpus = corpus_of(problems)
    if corpus is None:
        raise ModelError(
            f"base.train=true needs a corpus, and the domain {problems.source} has none: set base.train=false and "
            "base.model to a model of the Hub or a folder"
        )
    return _train(corpus, options, problems, work)


def _train(corpus: Corpus, options: Base, problems: Problems, work: Work) -> dict[str, Any]:
    """Train a small Llama on a corpus and save it to `work.out`."""
    from transformers import set_seed

    from e2h_pipeline.training.trainer import Settings, train

    tokenizer = corpus.tokenizer()
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
        CorpusRows(corpus, options, problems, tokenizer),
        lambda model, batch, step: next_token_loss(
            model(input_ids=batch["input_ids"], use_cache=False).logits, batch["labels"], step.total
        ),
        settings,
        tokenizer.pad_token_id,
        work,
    )
    save_model(model, tokenizer, work.out)
    origin = json.dumps(corpus.knobs(options, problems), indent=1, sort_keys=True)
    (work.out / ORIGIN).write_text(origin + "\n", encoding="utf-8")
    described = {"origin": f"trained from nothing on the corpus of {problems.source}"}
    return {**described, **folder_size(work.out), **summary}


def compare_with_shipped(folder: Path, options: Base, problems: Problems) -> dict[str, Any] | None:
    """How a base model trained from nothing compares with the domain's shipped one.

    Returns {"identical": same weights to the bit, "loss", "shipped_loss": nats per predictable
    token on corpus documents that neither was trained on, "alike": identical, or losses within a
    tolerance}. None where the domain ships no model, or one that was trained with other settings.
    """
    corpus = corpus_of(problems)
    if corpus is None or corpus.shipped is None:
        return None
    shipped = SHIPPED / corpus.shipped
    if json.loads((shipped / ORIGIN).read_text(encoding="utf-8")) != corpus.knobs(options, problems):
        return None
    identical = (folder / "model.safetensors").read_bytes() == (shipped / "model.safetensors").read_bytes()
    unseen = options.model_copy(
        update={"seed": options.seed + 1, "updates": 1, "batch_size": _COMPARED_DOCUMENTS}
    )
    loss, shipped_loss = (_corpus_loss(path, corpus, unseen, problems) for path in (folder, shipped))
    alike = identical or abs(loss - shipped_loss) <= _LOSS_TOLERANCE
    return {"identical": identical, "loss": loss, "shipped_loss": shipped_loss, "alike": alike}


def _corpus_loss(folder: Path, corpus: Corpus, options: Base, problems: Problems) -> float:
    """Mean loss of a model on the rows of a corpus, in nats per token that counts."""
    import torch

    from e2h_pipeline.models.load import load_policy

    model, tokenizer = load_policy(folder)
    rows = CorpusRows(corpus, options, problems, tokenizer)
    batch = [rows[i] for i in range(len(rows))]
    ids, labels = (
        torch.tensor([row[name] for row in batch], device=model.device) for name in ("input_ids", "labels")
    )
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits
        return float(next_token_loss(logits, labels, (labels[:, 1:] != IGNORED).sum()))


class CorpusRows:
    """A corpus as rows of equal length: documents end to end, cut where the row is full.

    No padding is wasted. A document starts at any position, so the model learns all positions, and
    not only those up to the longest document.
    """

    def __init__(
        self, corpus: Corpus, options: Base, problems: Problems, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._corpus, self._options, self._problems = corpus, options, problems
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return self._options.updates * self._options.batch_size

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        ids: list[int] = []
        labels: list[int] = []
        document = 0
        while len(ids) < self._options.row_tokens:
            name = f"{index}/{document}"
            texts, counted = zip(*self._corpus.document(self._options, self._problems, name), strict=True)
            pieces = self._tokenizer(list(texts))["input_ids"]  # a call for each takes three times as long
            for tokens, counts in zip(pieces, counted, strict=True):
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
