import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelling import label_steps

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.sample_pool import pool_table
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.ladder.world import Chain, parse_question
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.problems.math.prm800k import read_prm800k
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemSplit, easy_table
from e2h_pipeline.recipe import FAMILIES
from e2h_pipeline.registry import LABEL_SOURCES
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.once import LabelOnce
from e2h_pipeline.supervision.rows import UNLABELLED, labelled_row, until_first_error

RIGHT = "1+2=3\n\n3*2=6\n\n# Answer\n\n6"
WRONG = ["1+2=4", "1+2=3\n\n3*2=5\n\n# Answer\n\n5", "# Answer\n\n6"]


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ([], []),
        ([1, 1], [1, 1]),
        ([1, 0, 1, 0], [1, 0, -1, -1]),
        ([0, 1], [0, -1]),
        ([1, -1, 1, 0, 1], [1, -1, 1, 0, -1]),  # an unlabelled step is not an error
    ],
)
def test_labels_stop_at_the_first_error(labels: list[int], kept: list[int]) -> None:
    assert until_first_error(labels) == kept


@given(st.lists(st.sampled_from([1, 0, -1])))
def test_at_most_one_error_stays_and_stopping_twice_is_stopping_once(labels: list[int]) -> None:
    kept = until_first_error(labels)
    assert len(kept) == len(labels)
    assert kept.count(0) == min(1, labels.count(0))
    assert until_first_error(kept) == kept


def _problem(question: str, name: str) -> Problem:
    chain: Chain = parse_question(question)
    steps = chain.true_steps()
    return Problem(name, 2, "arithmetic", question, tuple(steps), steps[-1][-1])


def _write_samples(folder: Path, completions: dict[str, list[str]]) -> None:
    """Hand-written samples of 1+2*2, the question of all problems "a", "b", ..."""
    problems = {name: _problem("1+2*2", name) for name in completions}
    train, validation = list(problems.values())[:-1], list(problems.values())[-1:]
    split = ProblemSplit(tuple(train), tuple(validation), (), ())
    write_table(folder / "easy" / "data.parquet", easy_table(split))
    pairs = [
        ({"problem_id": name, "level": 2}, Sample(i, text, (1, 2), "stop" if text else "length", -1.0))
        for name, texts in completions.items()
        for i, text in enumerate(texts)
    ]
    write_table(folder / "samples" / "data" / "part-00000.parquet", pool_table(pairs, LADDER))


def _label(folder: Path, completions: dict[str, list[str]], **options: Any) -> tuple[list[dict], dict]:
    """Label hand-written samples by the exact checker."""
    _write_samples(folder, completions)
    return label_steps(folder, {"source": "checker", **options})


def test_samples_are_labelled_by_the_exact_checker_once_each(tmp_path: Path) -> None:
    rows, summary = _label(
        tmp_path, {"a": [RIGHT, WRONG[0], RIGHT, "", WRONG[1]], "b": [RIGHT]}, balance=False
    )
    assert [(r["problem_id"], r["sample"], r["labels"], r["split"]) for r in rows] == [
        ("a", 0, [1, 1, 1], "train"),  # sample 2 has the same text, sample 3 nothing to label
        ("a", 1, [0], "train"),
        ("a", 4, [1, 0, -1], "train"),
        ("b", 0, [1, 1, 1], "validation"),
    ]
    assert all(r["finished"] and r["question"] == "1+2*2" and r["level"] == 2 for r in rows)
    assert summary == {
        "solutions": 4,
        "problems": 2,
        "right_steps": 7,
        "wrong_steps": 2,
        "soft_steps": 0,
        "unlabelled_steps": 1,
        "labels_bought": 8,  # the first step of samples 0 and 4 is one
        "dropped": {},
    }


def _many(right: int, wrong: int) -> list[str]:
    """Given numbers of right and wrong solutions, distinct apart from white space."""
    return [
        *(RIGHT.replace("\n\n3", "\n\n" + " " * i + "3") for i in range(right)),
        *(MARKED.completion(["1+2=" + "012456"[i % 6], f"x{i}"], "1") for i in range(wrong)),
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "kept"),
    [(6, 1, (3, 1)), (1, 8, (1, 3)), (2, 3, (2, 3)), (2, 9, (2, 6)), (5, 0, (1, 0)), (0, 5, (0, 1))],
)
def test_the_rarer_kind_stays_whole_and_the_other_is_at_most_three_times_as_many(
    tmp_path: Path, right: int, wrong: int, kept: tuple[int, int]
) -> None:
    texts = _many(right, wrong)
    assert len(set(texts)) == right + wrong
    rows, _ = _label(tmp_path, {"a": texts, "b": [RIGHT]})
    found = Counter(0 in r["labels"] for r in rows if r["problem_id"] == "a")
    assert (found[False], found[True]) == kept


def test_balancing_one_problem_leaves_the_others_alone(tmp_path: Path) -> None:
    one, _ = _label(tmp_path / "1", {"a": _many(9, 2), "b": _many(8, 1)})
    two, _ = _label(tmp_path / "2", {"a": _many(3, 2), "b": _many(8, 1)})
    assert [r for r in one if r["problem_id"] == "b"] == [
        {**r, "split": "validation"} for r in two if r["problem_id"] == "b"
    ]


def test_a_limit_is_a_draw(tmp_path: Path) -> None:
    everything, _ = _label(tmp_path / "1", {"a": _many(9, 9), "b": _many(3, 3)}, balance=False)
    some, summary = _label(tmp_path / "2", {"a": _many(9, 9), "b": _many(3, 3)}, balance=False, limit=10)
    again, _ = _label(tmp_path / "3", {"a": _many(9, 9), "b": _many(3, 3)}, balance=False, limit=10)
    assert len(everything) == 24
    assert len(some) == summary["solutions"] == 10
    assert some == again
    assert all(row in everything for row in some)
    assert len(_label(tmp_path / "4", {"a": _many(2, 2), "b": [RIGHT]}, balance=False, limit=99)[0]) == 5


def test_the_checker_needs_a_domain_that_has_one(tmp_path: Path) -> None:
    write_table(tmp_path / "easy" / "data.parquet", easy_table(ProblemSplit((), (), (), ())))
    wanted = r"problems\.source=math has no exact checker of steps; use labels\.source=prm800k"
    with pytest.raises(ValueError, match=wanted):
        label_steps(tmp_path, {"source": "checker"}, domain=MATH)


def test_labels_agree_with_the_checker_on_sampled_text(tmp_path: Path) -> None:
    rows, _ = _label(tmp_path, {"a": [*WRONG, RIGHT], "b": _many(3, 3)}, balance=False)
    for row in rows:
        assert row["labels"] == step_labels(row["question"], row["completion"])


# Ratings from files

HUMAN = [
    # a neutral step, then an answer block after a rated sentence
    (["First.", "Look.\n\nAgain.", "So 6.\n\n# Answer\n\n6"], [1, 0, 1], "6"),
    (["Second.", "Hm.", "Wrong."], [1, 0, -1], None),
    (["Third.", "So 5.\n\n# Answer\n\n5"], [1, -1], "5"),
    (["Fourth.", "# Answer\n\n6"], [1, 1], "6"),
]


def _lines(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def _rated(
    folder: Path, records: list[Any], problems: tuple[Problem, ...] | None = None, **options: Any
) -> tuple[list[dict], dict]:
    """Label with a file of ratings; the one easy problem is train/algebra/1, `1+2*2`."""
    split = ProblemSplit(problems or (_problem("1+2*2", "train/algebra/1"),), (), (), ())
    write_table(folder / "easy" / "data.parquet", easy_table(split))
    path = _lines(folder / "labels.jsonl", records)
    return label_steps(folder, {"source": "prm800k", "path": str(path), **options}, domain=MATH)


def _record(
    steps: list[str], ratings: list[int], name: str = "train/algebra/1", **more: Any
) -> dict[str, Any]:
    return {"unique_id": name, "level": 2, "problem": "1+2*2", "steps": steps, "ratings": ratings, **more}


def _human(folder: Path, neutral: str) -> tuple[list[dict], dict]:
    records = [
        _record(s, r, name, final_answer=a)
        for name in ("train/algebra/1", "train/algebra/999")
        for s, r, a in HUMAN
    ]
    unknown = _record(["a"], [1], "train/geometry/377", level=None)
    return _rated(folder, [*records, records[0], unknown, {"steps": 3}], neutral=neutral)


@pytest.mark.parametrize(
    ("neutral", "labels"),
    [
        ("positive", [[1, 1, 1, 1], [1, 1, 0], [1, 0, -1], [1, 1]]),
        ("negative", [[1, 0, -1, -1], [1, 0, -1], [1, 0, -1], [1, 1]]),
        ("drop", [[1, -1, 1, 1], [1, -1, 0], [1, 0, -1], [1, 1]]),
        ("soft", [[1, 0.5, 1, 1], [1, 0.5, 0], [1, 0, -1], [1, 1]]),
    ],
)
def test_human_ratings_become_a_label_a_segment(
    tmp_path: Path, neutral: str, labels: list[list[float]]
) -> None:
    rows, summary = _human(tmp_path, neutral)
    assert [row["labels"] for row in rows] == labels
    assert [row["finished"] for row in rows] == [True, False, True, True]
    assert [len(MARKED.parse(row["completion"]).spans) for row in rows] == [len(each) for each in labels]
    assert rows[0]["completion"] == "First.\n\nLook.\nAgain.\n\nSo 6.\n\n# Answer\n\n6"
    assert rows[3]["completion"] == "Fourth.\n\n# Answer\n\n6"
    assert summary["dropped"] == {
        "no new label": 1,
        "not an easy problem of this split": 4,
        "level unknown": 1,
    }
    assert summary["soft_steps"] == (2 if neutral == "soft" else 0)
    assert summary["source_records"] == {"records": 10}
    assert summary["bad_lines"] == 1
    assert summary["first_bad_lines"] == ["labels.jsonl:11: 'steps' must be list, not int"]


def test_the_question_is_the_problems_own(tmp_path: Path) -> None:
    assert {row["question"] for row in _human(tmp_path, "drop")[0]} == {"1+2*2"}


@pytest.mark.parametrize("question", ["1+2*3", "Find the roots of $x^2-1$.", "2+1*2"])
def test_ratings_of_another_problem_under_an_easy_id_are_left_out(tmp_path: Path, question: str) -> None:
    """The id is an easy problem's, the text (and so the steps) is not."""
    other = {**_record(["The steps of a hard problem."], [1]), "problem": question}
    spelled = {**_record(["Its own, spelled otherwise."], [1]), "problem": " $1 + 2*2$."}
    rows, summary = _rated(tmp_path, [other, spelled])
    assert [row["completion"].strip() for row in rows] == ["Its own, spelled otherwise."]
    assert summary["dropped"] == {"its text is not that of the problem its id names": 1}


def test_rows_of_every_source_are_looked_at_by_id_and_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a source that is not ours, and brings rows of its own making."""
    from e2h_pipeline.supervision.exact_checker import ExactChecker
    from e2h_pipeline.supervision.source import LabelJob, LabelledRows

    def draw(self: ExactChecker, job: LabelJob) -> LabelledRows:
        row = labelled_row(job.easy["a"], 0, RIGHT, [1.0, 1.0, 1.0], True)
        hard = {**row, "sample": 1, "question": "3+4*5"}
        return LabelledRows([row, hard, {**row, "sample": 2, "problem_id": "hard"}], {"drawn": 3})

    monkeypatch.setattr(ExactChecker, "draw", draw)
    rows, summary = _label(tmp_path, {"a": [RIGHT], "b": [RIGHT]})
    assert [row["sample"] for row in rows] == [0]
    assert summary["drawn"] == 3
    assert summary["dropped"] == {
        "its text is not that of the problem its id names": 1,
        "not an easy problem of this split": 1,
    }


def test_at_most_twenty_bad_lines_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    _, summary = _rated(tmp_path, [_record(["a"], [1]), *([[]] * 25)])
    assert summary["bad_lines"] == 25
    assert len(summary["first_bad_lines"]) == 20


def test_a_step_behind_a_prefix_is_labelled_once(tmp_path: Path) -> None:
    """A repeat is the same step after the same prefix of the same problem; the paper's code ignores
    the problem."""
    records = [
        _record(["A", "B"], [1, 1]),
        _record(["A", "C"], [1, -1]),  # A is labelled already
        _record(["C"], [1]),  # the same step after another prefix
        _record(["A", "C", "D"], [1, 1, 1]),  # goes on after a step that was first called wrong
        _record(["A", "B"], [1, 0]),
        _record(["A"], [1], "train/algebra/2"),
    ]
    problems = tuple(_problem("1+2*2", f"train/algebra/{i}") for i in (1, 2))
    rows, summary = _rated(tmp_path, records, problems, neutral="soft")
    assert [(r["problem_id"][-1], r["completion"].replace("\n\n", ""), r["labels"]) for r in rows] == [
        ("1", "AB", [1, 1]),
        ("1", "AC", [-1, 0]),
        ("1", "C", [1]),
        ("2", "A", [1]),
    ]
    assert summary["repeated_steps"] == 5  # A, A, C, A, B
    assert summary["conflicting_steps"] == 2  # C is wrong and right, B right and neutral
    assert summary["dropped"] == {"no new label": 2}
    assert [r["sample"] for r in rows] == [0, 1, 2, 0]


TREES = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from([1, 0, -1])), max_size=4),
    )
)


@given(TREES)
def test_labels_once_are_the_first_of_each_prefix_and_none_is_behind_an_error(
    drawn: list[tuple[int, list[tuple[str, int]]]],
) -> None:
    once, given_labels, first = LabelOnce(), [], {}
    for problem, rated in drawn:
        steps, labels = [s for s, _ in rated], [float(x) for _, x in rated]
        new = once.new_labels(str(problem), steps, labels)
        given_labels += [
            ((problem, *steps[: k + 1]), label) for k, label in enumerate(new) if label != UNLABELLED
        ]
        for k, label in enumerate(labels):  # by definition: the first solution that has the prefix and counts
            prefixes = [(problem, *steps[: j + 1]) for j in range(k)]
            if label != UNLABELLED and not any(first.get(p) == 0 for p in prefixes):
                first.setdefault((problem, *steps[: k + 1]), label)
    assert dict(given_labels) == first
    assert len(given_labels) == len(first)


def _session(question: str) -> dict[str, Any]:
    shown = [{"text": text, "rating": rating} for text, rating in (("A", 1), ("A", 1), ("B", -1))]
    steps = [{"completions": shown, "chosen_completion": 0, "human_completion": None}]
    return {"question": {"problem": question}, "label": {"steps": steps, "finish_reason": "give_up"}}


def test_sessions_find_their_problem_by_text(tmp_path: Path) -> None:
    rows, summary = _rated(tmp_path, [_session(" 1 + 2*$2$ "), _session("1+2*3")])
    assert [(r["problem_id"], r["completion"].removesuffix("\n\n"), r["labels"]) for r in rows] == [
        ("train/algebra/1", "A", [1]),
        ("train/algebra/1", "B", [0]),
    ]
    assert summary["dropped"] == {"not an easy problem of this split": 2}
    assert summary["source_records"] == {"records": 2, "finish_give_up": 2}


def test_math_shepherd_lines_find_their_problem_by_text(tmp_path: Path) -> None:
    body = "Step 1: A {0}\nStep 2: B {1}\nStep 3: C. The answer is: 6 {2}"
    lines = [
        {
            "input": f"{question} " + body.format("ки", "ки", "ки"),
            "label": f"{question} " + body.format(*signs),
            "task": "MATH",
        }
        for question, signs in (("1 + 2*2", "+-+"), ("1+2*3", "+++"), ("1+2*2", "+++"))
    ]
    rows, summary = _rated(tmp_path, [*lines, {"input": "x"}], source="shepherd")
    assert [(r["completion"], r["labels"], r["finished"]) for r in rows] == [
        ("A\n\nB\n\nC.\n\n# Answer\n\n6", [1, 0, -1, -1], True)
    ]
    assert summary["dropped"] == {"not an easy problem of this split": 1, "no new label": 1}
    assert summary["bad_lines"] == 1
    assert summary["conflicting_steps"] == 1


@pytest.mark.parametrize("word", ["shepherd", "people", "prmbench"])
def test_a_source_of_one_file_finds_it_or_says_where_to_put_it(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, options = LABEL_SOURCES.load(word)(), FAMILIES["labels"].parse({"source": word})
    for data in ("", str(tmp_path)):
        monkeypatch.setenv("E2H_DATA_DIR", data)
        with pytest.raises(
            ProblemError, match=rf"labels\.source={word} needs a file: .* into steps/ of E2H_DATA_DIR"
        ):
            source.files(options)
    (tmp_path / "steps").mkdir()
    for name in reversed(source.names):  # the first name wins
        (tmp_path / "steps" / name).touch()
        assert source.files(options) == [tmp_path / "steps" / name]
    named = FAMILIES["labels"].parse({"source": word, "path": "elsewhere"})
    assert source.files(named) == [Path("elsewhere")]


def test_real_ratings_fit_the_segments(data_dir: Path, tmp_path: Path) -> None:
    """Every PRM800K solution, as if all problems were easy: a label per segment, none after an
    error."""
    human = read_prm800k(data_dir / "steps")
    questions = {solution.unique_id or "": solution.question for solution in human.solutions}
    problems = tuple(Problem(name, 1, "algebra", q, ("s",), "a") for name, q in sorted(questions.items()))
    write_table(tmp_path / "easy" / "data.parquet", easy_table(ProblemSplit(problems, (), (), ())))
    options = {"source": "prm800k", "neutral": "drop", "path": str(data_dir / "steps")}
    rows, summary = label_steps(tmp_path, options, domain=MATH)
    assert len(rows) == 1319
    prefixes = Counter()
    for row in rows:
        solution = MARKED.parse(row["completion"])
        assert len(solution.spans) == len(row["labels"])
        assert row["labels"] == until_first_error(row["labels"])
        assert (solution.answer is not None) == row["finished"]
        ends = [end for _, end in solution.spans]
        prefixes.update(
            (row["problem_id"], row["completion"][:end].strip())
            for end, label in zip(ends, row["labels"], strict=True)
            if label != UNLABELLED
        )
    assert set(prefixes.values()) == {1}
    assert summary["dropped"] == {"no new label": 499}
    assert (summary["right_steps"], summary["wrong_steps"]) == (7565, 1087)


@pytest.mark.parametrize(
    ("file", "source", "wanted"),
    [
        # 961 of the 1,818 records have easy problems; 432 of them have one quality-control problem
        ("prm800k_human_1818.jsonl.gz", "prm800k", {"solutions": 495, "problems": 114, "wrong_steps": 346}),
        # Four of the six problems are in MATH500 and one is not in MATH; train/prealgebra/476 is
        # left
        ("samples_prm800k.jsonl.gz", "prm800k", {"solutions": 5, "problems": 1, "right_steps": 13}),
        ("samples_math-shepherd.jsonl.gz", "shepherd", {"solutions": 0}),  # all of GSM8K
    ],
)
def test_real_ratings_of_the_easy_split(
    data_dir: Path,
    math_split: ProblemSplit,
    tmp_path: Path,
    file: str,
    source: str,
    wanted: dict[str, int],
) -> None:
    write_table(tmp_path / "easy" / "data.parquet", easy_table(math_split))
    options = {"source": source, "path": str(data_dir / "steps" / file)}
    _, summary = label_steps(tmp_path, options, domain=MATH)
    assert {name: summary[name] for name in wanted} == wanted
    assert summary["bad_lines"] == 0
    assert summary["dropped"]["not an easy problem of this split"] == (
        {"prm800k_human_1818.jsonl.gz": 857, "samples_prm800k.jsonl.gz": 28}.get(file, 7)
    )


def test_a_cut_solution_ends_like_every_other_step(tmp_path: Path) -> None:
    """Otherwise the last token before the cut would reveal that the step is wrong."""
    rows = [row for row in _rated(tmp_path, [_session(" 1 + 2*$2$ ")])[0] if not row["finished"]]
    assert rows
    assert all(row["completion"].endswith("\n\n") for row in rows)
