from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.solutions import (
    MARKED,
    encode,
    segment_ends,
    token_offsets,
)

LADDER = "1+2=3\n\n3*2=6\n\n# Answer\n\n6"
MATH = (
    "First, $\\frac{3}{4} \\cdot 8 = 6$.\n\nThen we add $2$:\n$6 + 2 = 8$.\n\n"
    "So ✓ $\\boxed{8}$.\n\n# Answer\n\n8"
)
TEXTS = st.text(alphabet="ab 1\n#✓$", max_size=40)
PROSE = st.text(alphabet="ab 1✓$=\n", min_size=1).filter(str.strip)


def test_the_format_by_hand() -> None:
    assert MARKED.prompt(" 3+5 ") == "# Question\n\n3+5\n\n# Solution\n\n"
    assert MARKED.completion(["1+2=3", " 3*2=6\n"], "6") == LADDER


def test_a_blank_line_inside_a_step_does_not_make_two_steps() -> None:
    completion = MARKED.completion(["a\n\n \n b", "  ", "c"], "1")
    assert completion == "a\n b\n\nc\n\n# Answer\n\n1"
    assert MARKED.parse(completion).steps == ("a\n b", "c")


def test_parsing_by_hand() -> None:
    solution = MARKED.parse(LADDER)
    assert solution.steps == ("1+2=3", "3*2=6")
    assert solution.answer == "6"
    assert [LADDER[a:b] for a, b in solution.spans] == ["1+2=3\n\n", "3*2=6\n\n", "# Answer\n\n6"]


@pytest.mark.parametrize(
    ("completion", "steps", "answer", "segments"),
    [
        ("", 0, None, 0),
        ("\n\n", 0, None, 0),
        ("1+2=3", 1, None, 1),
        ("1+2=3\n\n3*", 2, None, 2),  # cut off
        ("1+2=3\n\n# Answer", 1, None, 2),  # cut off in the answer block: a segment without an answer
        ("1+2=3\n\n# Answer\n\n", 1, None, 2),
        ("1+2=3\n\n# Answer\n\n  \n", 1, None, 2),
        ("# Answer\n\n8", 0, "8", 1),
        ("1+2=3\n\n# Answer\n8", 2, None, 2),  # the marker must be a block of its own
        ("1+2=3\n\n# Answer \n\n8", 1, "8", 2),
        ("1+2=3\n\nThe # Answer\n\n8", 3, None, 3),
        ("a\n\n# Answer\n\n1\n\n# Answer\n\n2", 3, "2", 4),  # the last marker counts
        ("a\n\n\n\nb\n\n# Answer\n\n2", 2, "2", 3),  # an empty block is not a step
    ],
)
def test_answer_and_segment_rules(completion: str, steps: int, answer: str | None, segments: int) -> None:
    solution = MARKED.parse(completion)
    assert (len(solution.steps), solution.answer, len(solution.spans)) == (steps, answer, segments)


@given(st.lists(PROSE, max_size=5), PROSE)
def test_what_is_formatted_parses_back(steps: list[str], answer: str) -> None:
    solution = MARKED.parse(MARKED.completion(steps, answer))
    assert solution.answer == answer.strip()
    assert len(solution.steps) == len(steps)
    again = MARKED.completion(solution.steps, solution.answer)
    assert again == MARKED.completion(steps, answer)


@given(TEXTS)
@example("\n\na\n\n\n\nb\n\n")
def test_spans_tile_the_text_but_for_empty_blocks(text: str) -> None:
    solution = MARKED.parse(text)
    at = 0
    for start, stop in solution.spans:
        assert start < stop
        assert text[at:start].strip() == ""  # only an empty block may lie between
        assert text[start:stop].strip()
        at = stop
    assert text[at:].strip() == ""
    assert len(solution.spans) - len(solution.steps) in (0, 1)
    for step, (start, stop) in zip(solution.steps, solution.spans, strict=False):
        assert text[start:stop].strip() == step


def test_segment_ends_by_hand() -> None:
    # tokens:    ab      c\n     \n      d       e
    offsets = [(0, 2), (2, 4), (4, 5), (5, 6), (6, 7)]
    assert segment_ends(offsets, [(0, 5), (5, 7)]) == [2, 4]
    assert segment_ends(offsets, [(0, 4), (4, 5), (5, 7)]) == [1, 2, 4]
    assert segment_ends([(0, 6), (6, 7)], [(0, 5), (5, 7)]) == [0, 1]  # a token that crosses the line break
    assert segment_ends(offsets, []) == []


def test_ladder_segment_ends_by_hand(ladder_tok: PreTrainedTokenizerFast) -> None:
    encoded = encode(ladder_tok, "1+2*2", LADDER)
    tokens = ladder_tok.convert_ids_to_tokens(list(encoded.input_ids))
    assert tokens[: encoded.prompt_tokens] == ["# Question", "\n\n", *"1+2*2", "\n\n", "# Solution", "\n\n"]
    # 1 + 2 = 3 | 3 * 2 = 6 | # Answer \n\n 6 <|end|>, a separator after each of the first two
    assert encoded.prompt_tokens == 10
    assert encoded.segment_ends == (15, 21, 24)
    assert [tokens[end] for end in encoded.segment_ends] == ["\n\n", "\n\n", "6"]
    assert tokens[-1] == ladder_tok.eos_token


def test_an_unfinished_solution_has_no_end_of_sequence(tok: PreTrainedTokenizerFast) -> None:
    finished = encode(tok, "1+1", "1+1=2\n\n# Answer\n\n2")
    cut = encode(tok, "1+1", "1+1=2\n\n# Answer\n\n2", finished=False)
    assert finished.input_ids == (*cut.input_ids, tok.eos_token_id)
    assert finished.segment_ends == cut.segment_ends
    assert tok.eos_token_id not in cut.input_ids


@pytest.mark.parametrize("completion", [LADDER, MATH, "1+2=3\n\n3*2", "a\n\n\n\nb\n\n# Answer\n\n5"])
def test_segment_ends_hold_the_last_character(tok: PreTrainedTokenizerFast, completion: str) -> None:
    encoded = encode(tok, "1+2*2", completion)
    offsets = tok(completion, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    spans = MARKED.parse(completion).spans
    assert len(encoded.segment_ends) == len(spans)
    for end, (_, stop) in zip(encoded.segment_ends, spans, strict=True):
        start_of_token, end_of_token = offsets[end - encoded.prompt_tokens]
        assert start_of_token < stop <= end_of_token


@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_a_causal_model_has_read_the_segment_at_its_end_and_not_before(
    bpe_tok: PreTrainedTokenizerFast, text: str
) -> None:
    encoded = encode(bpe_tok, "q", text)
    body = encoded.input_ids[encoded.prompt_tokens :]
    for end, (_, stop) in zip(encoded.segment_ends, MARKED.parse(text).spans, strict=True):
        at = end - encoded.prompt_tokens
        assert bpe_tok.decode(body[: at + 1]).startswith(text[:stop])
        assert not bpe_tok.decode(body[:at]).startswith(text[:stop])


def test_an_empty_completion_has_no_segments(tok: PreTrainedTokenizerFast) -> None:
    encoded = encode(tok, "1+1", "")
    assert encoded.segment_ends == ()
    assert encoded.input_ids[encoded.prompt_tokens :] == (tok.eos_token_id,)


def test_offsets_of_the_tokenizers_own_spelling(tok: PreTrainedTokenizerFast) -> None:
    body = tok(MATH if tok.unk_token is None else LADDER, return_offsets_mapping=True)
    text = MATH if tok.unk_token is None else LADDER
    assert token_offsets(tok, body["input_ids"], text) == [tuple(pair) for pair in body["offset_mapping"]]


def test_offsets_where_the_policy_spelled_the_text_with_other_tokens(
    bpe_tok: PreTrainedTokenizerFast,
) -> None:
    usual = bpe_tok(MATH)["input_ids"]
    spelled = bpe_tok.convert_tokens_to_ids(
        list("".join(bpe_tok.convert_ids_to_tokens(usual)))
    )  # byte by byte
    assert bpe_tok.decode(spelled) == MATH
    assert len(spelled) > len(usual)
    offsets = token_offsets(bpe_tok, spelled, MATH)
    assert (offsets[0][0], offsets[-1][1]) == (0, len(MATH))
    assert all(before[1] == after[0] for before, after in pairwise(offsets))
    spans = MARKED.parse(MATH).spans
    for end, (_, stop) in zip(segment_ends(offsets, spans), spans, strict=True):
        assert bpe_tok.decode(spelled[: end + 1]) == MATH[:stop]


def test_a_segment_that_ends_in_a_character_of_several_tokens(bpe_tok: PreTrainedTokenizerFast) -> None:
    text = "x = 1\n\n# Answer\n\n90✓"
    assert bpe_tok.decode(bpe_tok(text)["input_ids"][:-1]).endswith(
        "\ufffd"
    )  # the last token is one byte of ✓
    encoded = encode(bpe_tok, "q", text, finished=False)
    assert encoded.segment_ends[-1] == len(encoded.input_ids) - 1
    spelled = bpe_tok.convert_tokens_to_ids(list("".join(bpe_tok.tokenize(text))))
    offsets = token_offsets(bpe_tok, spelled, text)
    assert segment_ends(offsets, MARKED.parse(text).spans)[-1] == len(spelled) - 1


def test_a_special_token_inside_a_completion_has_no_width(ladder_tok: PreTrainedTokenizerFast) -> None:
    ids = ladder_tok(LADDER)["input_ids"]
    odd = [*ids[:3], ladder_tok.pad_token_id, *ids[3:]]
    offsets = token_offsets(ladder_tok, odd, ladder_tok.decode(odd, skip_special_tokens=True))
    assert offsets[3] == (3, 3)
    assert segment_ends(offsets, MARKED.parse(LADDER).spans) == [6, 12, 15]  # one later than without it


def test_a_cut_solution_is_spelled_like_the_beginning_of_a_longer_one() -> None:
    """GPT-2's rule makes a blank line one token at the end of a text, and two before more text."""
    tokenizer = gpt2_like()
    cut, longer = "one\n\ntwo\n\n", "one\n\ntwo\n\nthree\n\n# Answer\n\n3"
    plain = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (cut, longer)]
    assert plain[1][: len(plain[0])] != plain[0]
    short, whole = encode(tokenizer, "q", cut, finished=False), encode(tokenizer, "q", longer)
    assert whole.input_ids[: len(short.input_ids)] == short.input_ids
    assert whole.segment_ends[:2] == short.segment_ends


def gpt2_like() -> PreTrainedTokenizerFast:
    """Byte-level BPE by GPT-2's splitting rule, with a token for a blank line."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(["\n\n"] * 99, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
