"""The base model, supervised fine-tuning, and how completions are drawn."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from e2h_pipeline.recipe.section import Section
from e2h_pipeline.recipe.sections.fitting import FineTuning


class Base(Section):
    """The pretrained model that all training starts from."""

    model: str = Field(
        "ladder-base",
        description="A model shipped with the package, a Hub name, a local folder, or a local GGUF file.",
    )
    file: str | None = Field(
        None,
        description="A GGUF file in the Hub model or folder, to be converted; else its own weights are taken.",
    )
    revision: str | None = Field(
        None,
        description="Commit of the Hub model. Set it: without it the newest is fetched, and a newer one is not noticed and "
        "changes no key.",
    )
    train: bool = Field(
        False, description="ladder: train the base model from nothing instead of using the shipped one."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format the model is loaded in."
    )
    trust_remote_code: bool = Field(
        False, description="Run the Python a Hub model ships. Leave off unless you have read it."
    )
    chat: bool = Field(
        False,
        description="Ask by the model's own chat template, in every stage; steps and answer stay as the domain writes "
        "them, and end with the template's end of turn.",
    )
    system_prompt: str | None = Field(
        None,
        description="chat: the system prompt. It stands before the question where the template has no system role. "
        "Unset: the template's own, if it has one.",
    )
    thinking: bool | None = Field(
        None, description="chat: `enable_thinking` of the template, on or off. Unset: the template's default."
    )
    seed: int = Field(0, description="Seed of the corpus and of the training of the base model.")
    hidden: int = Field(64, ge=8, description="Width of the model trained from nothing.")
    layers: int = Field(
        4, ge=1, description="Layers of the model trained from nothing; fewer than 3 cannot check a step."
    )
    heads: int = Field(4, ge=1, description="Attention heads of the model trained from nothing.")
    updates: int = Field(1800, ge=1, description="Optimizer updates of base training.")
    batch_size: int = Field(64, ge=1, description="Rows per update of base training.")
    row_tokens: int = Field(
        160, ge=16, description="Tokens per row: documents end to end, cut where the row is full."
    )
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of base training.")
    slips: float = Field(0.02, ge=0, le=1, description="Share of corpus steps with a random slip.")
    homework_slips: float = Field(
        0.25, ge=0, le=1, description="Share of steps with a slip in marked homework."
    )
    marked: float = Field(0.7, ge=0, le=1, description="Share of corpus documents that are marked homework.")
    mark_noise: float = Field(0.05, ge=0, le=1, description="Share of marks that are flipped at random.")

    @model_validator(mode="after")
    def _fields_fit(self) -> Base:
        if self.train and self.chat:
            raise ValueError(
                "chat: a model trained from nothing has no chat template; set train or chat to false"
            )
        if self.file is not None and not self.file.endswith(".gguf"):
            raise ValueError(f"file: {self.file} is no GGUF file; leave it out to take a model's own weights")
        if self.file is not None and self.train:
            raise ValueError(
                "file: a model trained from nothing is read from no file; leave out file or train"
            )
        for field in ("system_prompt", "thinking"):
            if getattr(self, field) is not None and not self.chat:
                raise ValueError(f"{field} is read by a chat template only: set chat=true, or leave it out")
        return self


class Sft(FineTuning):
    """Supervised fine-tuning on easy solutions (paper section 3.2, appendix C.1)."""

    problems: int | None = Field(
        None,
        ge=1,
        description="Use the solutions of only this many problems (drawn by seed); all where unset.",
    )


class Sampling(Section):
    """How completions are drawn."""

    samples: int = Field(32, ge=1, description="Completions per question (N).")
    temperature: float = Field(0.7, ge=0, description="0 is greedy.")
    top_k: int = Field(20, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Keep the smallest set of tokens with this probability."
    )
    max_new_tokens: int = Field(
        768, ge=1, description="A completion that reaches this is unfinished and has no answer."
    )
    batch_tokens: int = Field(
        65536,
        ge=64,
        description="Tokens that a batch has room for: prompts, which their samples share, and samples.",
    )
    stop: tuple[str, ...] = Field(
        (), description="Texts that end a completion and are left out of it; recorded as its stop reason."
    )
    shard_questions: int = Field(32, ge=1, description="Questions per shard: the unit that survives a kill.")
    shard_samples: int = Field(
        64,
        ge=1,
        description="Samples of each question per shard. Raising N keeps all whole shards: let it divide the N you "
        "start from.",
    )

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(texts):
            raise ValueError("an empty text would end every completion before its first token")
        return texts


class EasySamples(Sampling):
    """Solutions of easy problems that get step labels; hotter, so that there are mistakes to learn
    from."""

    samples: int = Field(
        16,
        ge=0,
        description="Completions per easy problem; 0 to sample none, where labels are human.",
    )
    temperature: float = Field(1.4, ge=0, description="Hotter than evaluation: an evaluator needs negatives.")
    top_k: int = Field(0, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
