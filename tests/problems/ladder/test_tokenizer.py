from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from e2h_pipeline.problems.ladder.corpus import corpus_document
from e2h_pipeline.recipe import Base, LadderWorld


def test_a_document_by_hand(ladder_tok: PreTrainedTokenizerFast) -> None:
    tokens = ladder_tok.tokenize("# Question\n\n3*6\n\n# Solution\n\n3*6=4\n\n✓# Answer\n\n4")
    assert tokens == [
        *("# Question", "\n\n", "3", "*", "6", "\n\n", "# Solution", "\n\n"),
        *("3", "*", "6", "=", "4", "\n\n", "✓", "# Answer", "\n\n", "4"),
    ]


def test_the_corpus_is_spelled_and_read_back_without_loss(ladder_tok: PreTrainedTokenizerFast) -> None:
    for i in range(100):
        text = "".join(piece for piece, _ in corpus_document(Base(), LadderWorld(), str(i)))
        ids = ladder_tok(text)["input_ids"]
        assert ladder_tok.unk_token_id not in ids
        assert ladder_tok.decode(ids) == text


def test_foreign_text_becomes_unknown_tokens_one_per_character(ladder_tok: PreTrainedTokenizerFast) -> None:
    assert ladder_tok("ab\n1")["input_ids"][:3] == [ladder_tok.unk_token_id] * 3


@given(st.text(max_size=20))
def test_no_text_begins_or_ends_with_a_token_of_its_own(text: str) -> None:
    """Prompt and completion are tokenized separately and joined, so no token may be added between
    them."""
    from e2h_pipeline.problems.ladder.tokenizer import ladder_tokenizer

    assert len(ladder_tokenizer()(text)["input_ids"]) <= len(text)


def test_a_saved_tokenizer_is_an_ordinary_one(ladder_tok: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    ladder_tok.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "# Homework\n\n3-5*2\n\n# Solution\n\n3-5=6\n\n✗"
    assert loaded(text)["input_ids"] == ladder_tok(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.eos_token_id, loaded.pad_token_id) == (ladder_tok.eos_token_id, ladder_tok.pad_token_id)
    assert loaded.eos_token_id != loaded.pad_token_id
