"""The base model: the recipe's Hugging Face model, or the small Llama of the ladder.

The ladder's base model is trained once from its flawed corpus and shipped, as people download
theirs; `base.train=true` makes it again from nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

    from e2h_pipeline.recipe import Base, LadderWorld, Problems
    from e2h_pipeline.reporter import Reporter

SHIPPED = Path(__file__).parent / "shipped"


class ModelError(ValueError):
    """A model that cannot be used; the message names it and the mend."""


def make_base_model(
    options: Base, problems: Problems, out: Path, work: Path, reporter: Reporter
) -> dict[str, Any]:
    """Write the recipe's base model, a Hugging Face folder, to `out`.

    Raises:
        ModelError: the model cannot be found, or the shipped model was made by other knobs.
    """
    if options.train:
        return train_ladder_base(options, problems.world, out, work, reporter)
    shipped = SHIPPED / options.model
    if shipped.parent == SHIPPED and shipped.is_dir():  # a local folder, given as a path, is not ours
        _check_shipped(shipped, options, problems)
        shutil.copytree(shipped, out, dirs_exist_ok=True)
        return {"origin": f"shipped with the package: {options.model}", **_size(out)}
    return _fetch(options, out)


def train_ladder_base(
    options: Base, world: LadderWorld, out: Path, work: Path, reporter: Reporter
) -> dict[str, Any]:
    """Train the small Llama on the ladder's corpus, from nothing, and save it to `out`."""
    from transformers import set_seed

    from e2h_pipeline.models.tokenizer import ladder_tokenizer
    from e2h_pipeline.training.objectives import next_token_loss
    from e2h_pipeline.training.trainer import Settings, train

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
        CorpusRows(options, world, tokenizer),
        lambda model, batch, total: next_token_loss(
            model(input_ids=batch["input_ids"], use_cache=False).logits, batch["labels"], total
        ),
        settings,
        pad_id=tokenizer.pad_token_id,
        work=work,
        reporter=reporter,
    )
    save_model(model, tokenizer, out)
    origin = {"base": options.model_dump(mode="json"), "world": world.model_dump(mode="json")}
    (out / "origin.json").write_text(json.dumps(origin, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {"origin": "trained from nothing on the ladder's corpus", **_size(out), **summary}


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
        from e2h_pipeline.problems.ladder import corpus_document
        from e2h_pipeline.training.objectives import IGNORED

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


def save_model(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save weights (safetensors), config and tokenizer as a Hugging Face folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _size(folder: Path) -> dict[str, int]:
    return {"bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())}


def _check_shipped(shipped: Path, options: Base, problems: Problems) -> None:
    """A shipped model stands for the knobs it was trained with; other knobs need another model."""
    if problems.source != "ladder":
        return
    origin = json.loads((shipped / "origin.json").read_text(encoding="utf-8"))
    free = {"train", "model", "revision", "dtype", "trust_remote_code"}
    asked = {"base": options.model_dump(mode="json"), "world": problems.world.model_dump(mode="json")}
    for section, values in asked.items():
        for field, value in values.items():
            if field not in free and origin[section].get(field) != value:
                raise ModelError(
                    f"the shipped model '{options.model}' was trained with {section}.{field}={origin[section].get(field)}, "
                    f"the recipe says {value}: set base.train=true to train another"
                )


def _fetch(options: Base, out: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            options.model, revision=options.revision, trust_remote_code=options.trust_remote_code
        )
        model = AutoModelForCausalLM.from_pretrained(
            options.model,
            revision=options.revision,
            dtype=options.dtype,
            trust_remote_code=options.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"base.model '{options.model}' cannot be loaded: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    save_model(model, tokenizer, out)
    return {"origin": options.model, "revision": options.revision, **_size(out)}
