"""Base models as Hugging Face folders: shipped with the package, local, or from the Hub.

The ladder's base model was trained once on its flawed corpus (`training/from_nothing.py`). It is
shipped as other people ship theirs, with a record of the knobs, versions and hashes behind it
(`origin.json`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.chat import ChatError, set_up_chat
from e2h_pipeline.models.classifier import classifier
from e2h_pipeline.models.gguf import check_reading, full_name, gguf_of, load_gguf
from e2h_pipeline.models.probes import TOKENS, reads_ahead
from e2h_pipeline.models.strict import WeightsError, load_strictly
from e2h_pipeline.registry import CORPORA

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.problems.domain import Corpus
    from e2h_pipeline.recipe import Base, Problems

SHIPPED = Path(__file__).parent / "shipped"
ORIGIN = "origin.json"
SAFE_WEIGHTS, SAFE_WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"  # transformers' names
_FORMATS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # safetensors' names


class ModelError(ValueError):
    """A model that cannot be used; the message names it and the mend."""


def local_source(options: Base) -> Path | None:
    """The folder or GGUF file of a shipped or local model; None where it comes from the Hub, is
    trained here, or is not there."""
    if options.train:
        return None
    if place := gguf_of(options):
        file = Path(*place)
        return file if file.is_file() else None
    folders = [SHIPPED / options.model, Path(options.model)]
    return next((folder for folder in folders if folder.is_dir()), None)


def corpus_of(problems: Problems) -> Corpus | None:
    """What the domain has to train a base model from nothing; None where it has nothing."""
    corpus = CORPORA.load(problems.source)
    return None if corpus is None else corpus()


def get_base_model(options: Base, problems: Problems, out: Path) -> dict[str, Any]:
    """Write the recipe's ready-made base model to `out`.

    Raises:
        ModelError: the model cannot be found, or the shipped model was made by other knobs.
    """
    shipped = SHIPPED / options.model
    ours = shipped.parent == SHIPPED and shipped.is_dir()  # a local folder, given as a path, is not
    if ours and options.file is None:
        if options.chat:
            raise ModelError(
                f"base.chat: the shipped model '{options.model}' has no chat template: set base.chat=false"
            )
        corpus = corpus_of(problems)
        if corpus is not None and corpus.shipped == options.model:
            _check_shipped(shipped, options, corpus.knobs(options, problems))
        shutil.copytree(shipped, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        return {"origin": f"shipped with the package: {options.model}", **folder_size(out)}
    return _fetch(options, out)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save weights (safetensors), config and tokenizer as a Hugging Face folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def stored_weights(options: Base) -> list[Path]:
    """Files of a local model that hold its weights as the recipe wants them; none where they have
    to be converted.

    They are copied byte for byte, which takes seconds where writing them anew takes minutes. They
    are not linked: an edit of the user's file in place would change the artifact too.
    """
    folder = local_source(options)
    if folder is None or folder.is_file():
        return []
    if options.trust_remote_code:  # code is saved with the model that it made
        return []
    files = _weight_files(folder)
    weights = [file for file in files if file.name != SAFE_WEIGHTS_INDEX]
    as_wanted = all(_formats(file) == {_FORMATS[options.dtype]} for file in weights)
    return files if as_wanted and all(file.parent == folder for file in files) else []


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder that transformers reads, with their index."""
    index = folder / SAFE_WEIGHTS_INDEX
    if (folder / SAFE_WEIGHTS).is_file():  # transformers looks for it first
        return [folder / SAFE_WEIGHTS]
    if not index.is_file():
        return []
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [index, *(folder / name for name in sorted(set(names)))]


def _formats(file: Path) -> set[str]:
    """Number formats in a file of weights, as safetensors calls them. Only its header is read."""
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        return {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 (not a mapping)


def _save_settings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """All that `save_model` writes, but for the weights."""
    model.config.dtype, model.config.architectures = str(model.dtype).split(".")[1], [type(model).__name__]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def folder_size(folder: Path) -> dict[str, int]:
    """{"bytes": of all files}."""
    return {"bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())}


def _check_shipped(shipped: Path, options: Base, knobs: Mapping[str, Mapping[str, Any]]) -> None:
    """A shipped model stands for the knobs it was trained with; other knobs need another model."""
    origin = json.loads((shipped / ORIGIN).read_text(encoding="utf-8"))
    for section, values in knobs.items():
        for field, value in values.items():
            if origin[section].get(field) != value:
                raise ModelError(
                    f"the shipped model '{options.model}' was trained with {section}.{field}="
                    f"{origin[section].get(field)}, the recipe says {value}: set base.train=true to train another"
                )


def _fetch(options: Base, out: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer

    model, tokenizer, origin = _load(options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if options.chat:
        try:
            set_up_chat(tokenizer, options)
        except ChatError as error:
            raise ModelError(f"base.model '{options.model}': {error}") from None
        model.config.eos_token_id = tokenizer.eos_token_id
    tokenizer.clean_up_tokenization_spaces = False  # else decoding drops the space in "1 , 2"
    files = stored_weights(options)
    if files:
        _save_settings(model, tokenizer, out)
    else:
        save_model(model, tokenizer, out)
    if gguf_of(options):
        with _named(options):
            origin["reading"] = asdict(check_reading(model, AutoTokenizer.from_pretrained(out)))
    _require_evaluator(model, options.model)
    for file in files:
        shutil.copyfile(file, out / file.name)
    return {"origin": full_name(options), "revision": options.revision, **origin, **folder_size(out)}


def _load(options: Base) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Model and tokenizer, and what to tell of a GGUF file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import cached_file

    with _named(options):
        if place := gguf_of(options):
            file = cached_file(*place, revision=options.revision)
            return load_gguf(Path(file), options.dtype)
        name, revision = options.model, options.revision
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=options.trust_remote_code
        )
        model = load_strictly(
            AutoModelForCausalLM,
            name,
            revision=revision,
            dtype=options.dtype,
            trust_remote_code=options.trust_remote_code,
        )
        return model, tokenizer, {}


@contextmanager
def _named(options: Base) -> Iterator[None]:
    """Within it, errors of loading name the model.

    Raises:
        ModelError: instead of these errors.
    """
    try:
        yield
    except WeightsError as error:
        raise ModelError(f"base.model {error}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"base.model '{full_name(options)}' cannot be loaded: {error}") from error


def _require_evaluator(model: PreTrainedModel, name: str) -> None:
    """Refuse a model that no evaluator can be made of. It uses the model up.

    Raises:
        ModelError: attention is not causal, or there is no body to put a head on.
    """
    import torch

    if reads_ahead(model.eval()):
        raise ModelError(
            f"base.model '{name}': {type(model).__name__} reads later tokens too; take a causal language model"
        )
    width = model.config.get_text_config().hidden_size
    try:
        evaluator = classifier(model, torch.zeros(1, width), torch.zeros(1))
        with torch.inference_mode():
            evaluator(input_ids=torch.tensor([TOKENS], device=model.device))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"base.model '{name}': no evaluator can be made of it: {error}") from None
