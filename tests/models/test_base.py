import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from architectures import save_tiny
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models import base as base_module
from e2h_pipeline.models.base import ModelError
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.problems.ladder.corpus import corpus_document
from e2h_pipeline.problems.ladder.pretraining import LadderCorpus
from e2h_pipeline.recipe import Base, LadderProblems, LadderWorld, MathProblems
from e2h_pipeline.training.from_nothing import CorpusRows, compare_with_shipped, make_base_model
from e2h_pipeline.training.next_token import IGNORED

TINY = Base(train=True, hidden=16, layers=1, heads=2, updates=12, batch_size=4, row_tokens=48, seed=3)
LADDER = LadderProblems()


class Interrupted(Exception):
    """Raised in the middle of a run."""


class Interrupter(Reporter):
    """Stops a run after some updates."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def progress(self, done: int, total: int, unit: str) -> None:
        if done >= self.after:
            raise Interrupted


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_base_model(TINY, LADDER, Work(folder / "ladder-base", folder / "work"))
    return folder / "ladder-base"


def test_rows_are_documents_end_to_end_and_learn_what_can_be_predicted(
    ladder_tok: PreTrainedTokenizerFast,
) -> None:
    rows = CorpusRows(LadderCorpus(), TINY, LADDER, ladder_tok)
    assert len(rows) == 12 * 4
    for index in range(20):
        row = rows[index]
        assert len(row["input_ids"]) == len(row["labels"]) == 48
        text, told = "", ""
        for document in range(8):
            for piece, counts in corpus_document(TINY, LadderWorld(), f"{index}/{document}"):
                text += piece
                told += piece if counts else ""
            text, told = text + ladder_tok.eos_token, told + ladder_tok.eos_token
        assert text.startswith(ladder_tok.decode(row["input_ids"]))
        learned = [label for label in row["labels"] if label != IGNORED]
        assert 0 < len(learned) < 48
        assert told.startswith(ladder_tok.decode(learned))
        assert all(
            label in (IGNORED, token) for token, label in zip(row["input_ids"], row["labels"], strict=True)
        )
    assert rows[5] == rows[5]
    assert rows[5] != rows[6]


def test_a_base_model_is_an_ordinary_folder(trained: Path) -> None:
    model, tokenizer = load_policy(trained)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (16, 1)
    origin = json.loads((trained / "origin.json").read_text())
    assert origin["base"]["updates"] == 12
    assert origin["world"] == LADDER.world.model_dump(mode="json")


def test_training_again_or_after_an_interruption_makes_the_same_files(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        make_base_model(TINY, LADDER, Work(tmp_path / "out", tmp_path / "work", reporter=Interrupter(7)))
    assert not (tmp_path / "out").exists()
    make_base_model(TINY, LADDER, Work(tmp_path / "out", tmp_path / "work"))
    names = sorted(p.name for p in trained.iterdir())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (trained / name).read_bytes(), name


def test_a_shipped_model_stands_for_its_knobs(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "SHIPPED", trained.parent)
    asked = TINY.model_copy(update={"train": False, "model": "ladder-base"})
    summary = make_base_model(asked, LADDER, Work(tmp_path / "out", tmp_path / "work"))
    assert "shipped" in summary["origin"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        trained / "model.safetensors"
    ).read_bytes()
    for options, problems, field in [
        (asked.model_copy(update={"updates": 13}), LADDER, r"base\.updates=12, the recipe says 13"),
        (asked, LadderProblems(world=LadderWorld(belief=0.9)), r"world\.belief=0\.65, the recipe says 0\.9"),
    ]:
        with pytest.raises(ModelError, match=field + ".*set base.train=true"):
            make_base_model(options, problems, Work(tmp_path / "no", tmp_path / "work"))
    assert not (tmp_path / "no").exists()


def test_the_model_that_is_shipped_is_the_one_that_the_default_recipe_asks_for(tmp_path: Path) -> None:
    summary = make_base_model(Base(), LADDER, Work(tmp_path / "out", tmp_path / "work"))
    assert summary["bytes"] < 4_000_000
    model, tokenizer = load_policy(tmp_path / "out")
    with torch.no_grad():
        assert model(input_ids=torch.tensor([tokenizer("3+5")["input_ids"]])).logits.isfinite().all()


def test_a_local_folder_gets_what_training_needs(bpe_policy: Path, tmp_path: Path) -> None:
    """Not a shipped model; its tokenizer has no padding token, like Llama's."""
    folder = tmp_path / "mine"
    AutoModelForCausalLM.from_pretrained(bpe_policy).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(bpe_policy)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    options = Base(model=str(folder))
    summary = make_base_model(options, LADDER, Work(tmp_path / "out", tmp_path / "work"))
    assert summary["origin"] == str(folder)
    _, loaded = load_policy(tmp_path / "out")
    assert loaded.pad_token_id is not None


def test_a_model_that_is_nowhere_is_named(tmp_path: Path) -> None:
    options = Base(model=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"base\.model '.*nowhere' cannot be loaded"):
        make_base_model(options, LADDER, Work(tmp_path / "out", tmp_path / "work"))


def test_the_shipped_model_is_what_its_manifest_says_and_small() -> None:
    folder = base_module.SHIPPED / "ladder-base"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["recipe"]["base"]["train"] is True
    for name, facts in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == facts["sha256"], name
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 4 * 1024 * 1024


def test_a_model_trained_by_the_shipped_knobs_is_compared_and_another_is_not(trained: Path) -> None:
    shipped = base_module.SHIPPED / "ladder-base"
    alike = compare_with_shipped(shipped, Base(), LADDER)
    assert alike is not None
    assert alike["identical"]
    assert alike["loss"] == alike["shipped_loss"]
    worse = compare_with_shipped(trained, Base(), LADDER)  # the recipe sets the knobs, not the weights
    assert worse is not None
    assert not worse["alike"]
    assert compare_with_shipped(shipped, Base(updates=7), LADDER) is None


def test_a_domain_without_a_corpus_trains_no_base_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the domain math has none: set base\.train=false"):
        make_base_model(Base(train=True), MathProblems(), Work(tmp_path / "out", tmp_path / "work"))
    assert compare_with_shipped(tmp_path, Base(), MathProblems()) is None


def test_another_domain_may_start_from_the_shipped_model_whatever_the_knobs(tmp_path: Path) -> None:
    work = Work(tmp_path / "out", tmp_path / "work")
    assert "shipped" in make_base_model(Base(updates=13), MathProblems(), work)["origin"]


# Local models: weights are copied as they are, or converted


def _source(folder: Path, policy: Path, dtype: torch.dtype = torch.float32, **saving: object) -> Path:
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=dtype)
    model.save_pretrained(folder, **saving)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


def _made(source: Path, out: Path, **options: object) -> dict[str, bytes]:
    make_base_model(Base(model=str(source), **options), LADDER, Work(out, out.with_name("work")))
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("saving", [{}, {"max_shard_size": "20KB"}])
def test_weights_of_a_local_model_are_copied(
    bpe_policy: Path, tmp_path: Path, saving: dict[str, object]
) -> None:
    source = _source(tmp_path / "mine", bpe_policy, **saving)
    for file in source.glob("*.safetensors"):
        save_file(load_file(file), file, metadata={"format": "pt", "author": "me"})  # lost when written anew
    made = _made(source, tmp_path / "out")
    weights = {path.name: path for path in source.glob("model*")}
    assert {name: made[name] for name in weights} == {name: p.read_bytes() for name, p in weights.items()}
    tensors, expected = (load_policy(folder)[0].state_dict() for folder in (tmp_path / "out", source))
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_an_edit_in_place_leaves_the_copy_alone(bpe_policy: Path, tmp_path: Path) -> None:
    source = _source(tmp_path / "mine", bpe_policy)
    before = _made(source, tmp_path / "out")
    with (source / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"edit")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before["model.safetensors"]


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3_moe", "gemma2", "opt"])
def test_a_copy_has_the_files_of_a_model_written_anew(
    name: str, bpe_tok: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So data versions stay where the source was written by the same transformers."""
    source = save_tiny(name, bpe_tok, tmp_path / "mine")
    copied = _made(source, tmp_path / "copied")
    monkeypatch.setattr(base_module, "stored_weights", lambda options: [])
    assert copied == _made(source, tmp_path / "written")


def test_weights_in_other_formats_are_converted(bpe_policy: Path, tmp_path: Path) -> None:
    half = _source(tmp_path / "half", bpe_policy, torch.bfloat16)
    as_it_was = half.joinpath("model.safetensors").read_bytes()
    assert _made(half, tmp_path / "same", dtype="bfloat16")["model.safetensors"] == as_it_was
    assert _made(half, tmp_path / "wide")["model.safetensors"] != as_it_was
    assert {p.dtype for p in load_policy(tmp_path / "wide")[0].parameters()} == {torch.float32}
    pickled = _source(tmp_path / "pickled", bpe_policy)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    expected = load_policy(bpe_policy)[0].state_dict()
    (pickled / "model.safetensors").unlink()
    made = _made(pickled, tmp_path / "read")
    assert "pytorch_model.bin" not in made
    found = load_policy(tmp_path / "read")[0].state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_file_outside_of_the_folder_is_not_copied(bpe_policy: Path, tmp_path: Path) -> None:
    source = _source(tmp_path / "mine", bpe_policy)
    (source / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    names = load_file(tmp_path / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../elsewhere.safetensors")}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    assert base_module.stored_weights(Base(model=str(source))) == []
