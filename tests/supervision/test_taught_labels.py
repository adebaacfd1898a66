"""Label sources that train an evaluator of their own: what they buy, what they teach, what they must not see."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelling import Rows, label_steps

from e2h_pipeline.artifacts.hashing import data_version, fingerprint
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.sample_pool import pool_table
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.problems.ladder import checker
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.ladder.world import parse_question
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.problems.records import ProblemError, ProblemSplit, easy_table
from e2h_pipeline.recipe import (
    Prm800kLabels,
    Recipe,
    RecipeError,
    RewardTraining,
    Sampling,
)
from e2h_pipeline.registry import LABEL_SOURCES
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.active import mixed
from e2h_pipeline.supervision.buying import Buyer, interleaved, key, labels_in, shuffled
from e2h_pipeline.supervision.exact_checker import ExactChecker
from e2h_pipeline.supervision.non_causal import made_labels, with_answers
from e2h_pipeline.supervision.once import step_keys
from e2h_pipeline.supervision.rows import UNLABELLED
from e2h_pipeline.supervision.source import LabelJob
from e2h_pipeline.supervision.teacher import Lesson, teach
from e2h_pipeline.supervision.weak_to_strong import halves, with_errors

TRAINING = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3}
SAMPLES = 6


def solutions_of(question: str, rng: random.Random) -> Iterator[str]:
    """Solutions of a question of the ladder; in half of them one result has slipped, and later steps go on from
    it."""
    for _ in range(SAMPLES):
        value, steps = parse_question(question).start, []
        operations = parse_question(question).operations
        slip = rng.randrange(2 * len(operations))
        for i, (operator, b) in enumerate(operations):
            result = (checker.parse_question(f"{value}{operator}{b}").true_steps()[0])[-1]
            result = str((int(result) + (i == slip)) % 7)
            steps.append(f"{value}{operator}{b}={result}")
            value = int(result)
        yield MARKED.completion(steps, str(value))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, ladder_tables: Path) -> Path:
    """Easy problems with samples, and hard questions."""
    folder = tmp_path_factory.mktemp("taught")
    shutil.copytree(ladder_tables / "easy_problems", folder / "easy")
    shutil.copytree(ladder_tables / "hard_questions", folder / "hard")
    rows = read_table(folder / "easy" / "data.parquet").to_pylist()
    pairs = [
        (row, Sample(i, text, (1, 2), "stop", -1.0))
        for row in rows
        for i, text in enumerate(solutions_of(row["question"], random.Random(row["problem_id"])))
    ]
    write_table(folder / "samples" / "data" / "part-00000.parquet", pool_table(pairs, LADDER))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the exact checker is asked about, in order."""
    found: list[tuple[str, str]] = []
    check = checker.step_labels

    def counted(question: str, completion: str) -> list[int]:
        found.append((question, completion))
        return check(question, completion)

    monkeypatch.setattr(checker, "step_labels", counted)
    return found


def label(
    world: Path, out: Path, policy: Path, source: str, *others: dict[str, Any], **options: Any
) -> tuple[Rows, dict[str, Any]]:
    """Labels of a source, and of others after it, in a folder of their own."""
    for name in ("easy", "samples", "hard"):
        (out / name).symlink_to(world / name)
    section = {"source": source, "validation_solutions": 12, "training": TRAINING, **options}
    sampling = Sampling(samples=2, max_new_tokens=24, shard_questions=50)
    return label_steps(out, section, *others, policy=policy, sampling=sampling)


def split_of(rows: Rows, split: str) -> Rows:
    return [row for row in rows if row["split"] == split]


def a_job(world: Path, folder: Path) -> LabelJob:
    easy = {row["problem_id"]: row for row in read_table(world / "easy" / "data.parquet").to_pylist()}
    options = Recipe.from_key("ladder/labels.source=active").labels[0]
    inputs = {"easy_samples": world / "samples"}
    return LabelJob(options, 0, easy, inputs, LADDER, Sampling(), "exact", Work(folder, folder / "work", 0))


def verdicts(rows: Rows) -> int:
    """Labelled steps, each after the same steps of its problem counted once."""
    return len(
        {
            step
            for row in rows
            for step, label in zip(step_keys(row, MARKED), row["labels"], strict=True)
            if label != UNLABELLED
        }
    )


# Buying


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(0, 5))
def test_a_budget_of_steps_is_spent_to_the_label(world: Path, budget: int, seed: int) -> None:
    buyer = Buyer.of(a_job(world, world / "none"))
    rows = shuffled(buyer.candidates("train"), str(seed))
    whole = ExactChecker().label(buyer.job, rows).rows
    bought = buyer.buy(rows, budget)
    assert verdicts(bought) == buyer.labels == min(budget, verdicts(whole))
    assert [key(row) for row in bought] == [key(row) for row in rows[: len(bought)]]
    assert buyer.solutions <= len(bought) + 1  # nobody was asked about more, but for one that cost too much
    for row, full in zip(bought, whole, strict=False):
        known = [label for label in row["labels"] if label != UNLABELLED]
        assert row["labels"][: len(known)] == full["labels"][: len(known)]


def test_a_source_that_cannot_be_asked_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"labels.of: active cannot label chosen solutions; use checker, prm800k"
    ):
        label(world, tmp_path, tmp_path, "active", of={"source": "active"})


def test_solutions_are_taken_problem_by_problem() -> None:
    rows = [{"problem_id": name, "sample": i} for name in "abc" for i in range(3)]
    order = interleaved(rows, [5, 1, 2, 9, 9, 9, 0, 3, 3])
    assert [row["problem_id"] for row in order[:3]] == ["c", "a", "b"]
    assert [key(row) for row in order[3:5]] == [("a", 2), ("c", 1)]
    assert sorted(map(key, order)) == sorted(map(key, rows))


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0, 1))
def test_a_share_holds_for_every_beginning(first: int, second: int, share: float) -> None:
    order = mixed(["x"] * first, ["y"] * second, share)
    assert Counter(order) == Counter({"x": first, "y": second})
    for n in range(1, len(order) + 1):
        taken = Counter(order[:n])
        if taken["x"] < first and taken["y"] < second:
            assert abs(taken["x"] - share * n) <= 1


# Active learning


def test_both_selections_buy_as_many_labels_and_ask_about_nothing_else(
    world: Path, tmp_path: Path, ladder_policy: Path, asked: list[tuple[str, str]]
) -> None:
    counts = {}
    for selection in ("active", "uniform"):
        asked.clear()
        folder = tmp_path / selection
        folder.mkdir()
        options = {"budget": 90, "selector_problems": 10, "selection": selection}
        rows, summary = label(world, folder, ladder_policy, "active", **options)
        assert verdicts(split_of(rows, "train")) == summary["training_labels_bought"] == 90
        assert verdicts(split_of(rows, "validation")) == summary["validation_labels_bought"] > 0
        assert summary["labels_bought"] == verdicts(rows)
        assert len(asked) == summary["solutions_asked"] <= len(rows) + 2
        assert {(row["question"], row["completion"]) for row in rows} <= set(asked)
        counts[selection] = summary
    assert counts["active"]["teachers"]["selector"]["validation_steps"] > 0
    assert counts["uniform"]["teachers"] == {}
    kept = tmp_path / "active" / "out" / "source-0" / "selector"
    load_evaluator(kept)  # what chose is in the artifact


def test_a_budget_that_the_first_lesson_takes_is_refused(
    world: Path, tmp_path: Path, ladder_policy: Path
) -> None:
    with pytest.raises(ValueError, match=r"labels.budget=20 is spent on the selector's first lesson"):
        label(world, tmp_path, ladder_policy, "active", budget=20)


def test_the_selector_buys_wrong_answers_by_their_share(
    world: Path, tmp_path: Path, ladder_policy: Path
) -> None:
    wrong = {}
    for share in (0.0, 0.8, 1.0):
        folder = tmp_path / str(share)
        folder.mkdir()
        options = {"budget": 40, "unit": "solutions", "selector_problems": 10, "convincing": share}
        rows, _ = label(world, folder, ladder_policy, "active", **options)
        taken = split_of(rows, "train")
        assert len(taken) == 40
        wrong[share] = sum(0 in row["labels"] for row in taken)
    first = wrong[1.0] - 30  # of the selector's own lesson
    assert 0 <= first <= 10
    assert wrong[0.8] - first == 24
    assert wrong[0.0] - first < 6  # as long as there are right ones


def test_more_rounds_train_more_selectors(world: Path, tmp_path: Path, ladder_policy: Path) -> None:
    rows, summary = label(
        world, tmp_path, ladder_policy, "active", budget=120, rounds=2, selector_problems=10
    )
    assert verdicts(split_of(rows, "train")) == 120
    first, second = (summary["teachers"][f"selector-{number}"] for number in (1, 2))
    assert first["solutions"] == 10 < second["solutions"]


# Weak to strong


def test_weak_labels_come_from_the_other_half_and_its_truth_is_never_asked(
    world: Path, tmp_path: Path, ladder_policy: Path, asked: list[tuple[str, str]]
) -> None:
    rows, summary = label(world, tmp_path, ladder_policy, "weak_to_strong", per_problem=3)
    weak = split_of(rows, "train")
    assert {row["problem_id"] for row in weak}.isdisjoint(
        {row["problem_id"] for row in weak if (row["question"], row["completion"]) in asked}
    )
    assert not {row["question"] for row in weak} & {question for question, _ in asked}
    assert len(asked) == summary["solutions_asked"]
    soft = [label for row in weak for label in row["labels"] if label != UNLABELLED]
    assert summary["labels_made"] == len(soft)
    assert all(0 < label < 1 for label in soft)
    assert max(Counter(row["problem_id"] for row in weak).values()) <= 3
    assert summary["teachers"]["weak"]["validation_steps"] > 0


@given(st.integers(2, 40), st.integers(1, 4), st.text(max_size=3))
def test_no_problem_is_in_both_halves(problems: int, each: int, stream: str) -> None:
    rows = [{"problem_id": str(i), "sample": j} for i in range(problems) for j in range(each)]
    first, second = halves(rows, stream)
    assert {row["problem_id"] for row in first}.isdisjoint(row["problem_id"] for row in second)
    assert sorted(map(key, first + second)) == sorted(map(key, rows))
    assert len(first) == each * (problems // 2)


def test_the_ceiling_has_the_truth_of_the_same_rows(world: Path, tmp_path: Path, ladder_policy: Path) -> None:
    names = {}
    for labeller in ("weak", "truth"):
        folder = tmp_path / labeller
        folder.mkdir()
        rows, _ = label(world, folder, ladder_policy, "weak_to_strong", labeller=labeller)
        names[labeller] = {
            (row["question"], row["completion"]): row["labels"] for row in split_of(rows, "train")
        }
    assert names["weak"].keys() == names["truth"].keys()
    for (question, completion), labels in names["truth"].items():
        assert labels == checker.step_labels(question, completion)


def test_a_chain_teaches_step_by_step(world: Path, tmp_path: Path, ladder_policy: Path) -> None:
    _, summary = label(
        world, tmp_path, ladder_policy, "weak_to_strong", training={**TRAINING, "layers": 1}, middle=[1, 2]
    )
    assert list(summary["teachers"]) == ["weak", "middle-1", "middle-2"]
    kept = tmp_path / "out" / "source-0"
    sizes = [load_evaluator(kept / name)[0].config.num_hidden_layers for name in summary["teachers"]]
    assert sizes == [1, 1, 2]


def test_the_weak_one_may_start_from_another_model(world: Path, tmp_path: Path, ladder_policy: Path) -> None:
    """Its files are in the key, and the recipe's base is not read."""
    rows, summary = label(world, tmp_path, tmp_path / "no model", "weak_to_strong", base=str(ladder_policy))
    assert summary["teachers"]["weak"]["solutions"] > 0 < len(rows)
    recipe = Recipe.model_validate(
        {"name": "x", "labels": {"source": "weak_to_strong", "base": str(ladder_policy)}}
    )
    source, options = LABEL_SOURCES.load("weak_to_strong")(), recipe.labels[0]
    assert source.reads(options) == ()
    assert {file.name for file in source.files(options)} >= {"config.json", "model.safetensors"}
    with pytest.raises(ProblemError, match=r"labels\.base: nowhere is no local folder"):
        source.files(options.model_copy(update={"base": "nowhere"}))


@settings(deadline=None)
@given(st.floats(0.05, 0.45), st.integers(0, 3))
def test_errors_by_rule_and_at_random_are_as_many(share: float, seed: int) -> None:
    rng = random.Random(seed)
    rows = [
        {
            "completion": "\n\n".join(f"1+1={rng.randrange(7)}" for _ in range(4)) + "\n\n",
            "labels": [1.0, 1.0, 0.0, -1.0],
        }
        for _ in range(40)
    ]
    ruled, wrong = with_errors(rows, share, "s", MARKED, by_rule=True)
    drawn, as_many = with_errors(rows, share, "s", MARKED, by_rule=False)
    assert wrong == as_many <= share * labels_in(rows)
    for made in (ruled, drawn):
        turned = [
            (old, new, row["completion"].split()[j][-1])
            for row, after in zip(rows, made, strict=True)
            for j, (old, new) in enumerate(zip(row["labels"], after["labels"], strict=True))
        ]
        assert all(new in (old, 1 - old) if old != UNLABELLED else new == old for old, new, _ in turned)
        assert sum(old != new for old, new, _ in turned) == wrong
        if made is ruled:  # all steps of an ending, or none
            ends = {
                end: {old != new for old, new, e in turned if e == end and old != UNLABELLED}
                for _, _, end in turned
            }
            assert all(len(found) <= 1 for found in ends.values())


def test_hard_questions_are_labelled_by_the_weak_evaluator_and_their_answers_not_read(
    world: Path, tmp_path: Path, ladder_policy: Path, asked: list[tuple[str, str]]
) -> None:
    hard = read_table(world / "hard" / "data.parquet")
    questions = set(hard["question"].to_pylist())
    found = []
    for shown in ("none", "answers"):
        folder = tmp_path / shown
        shutil.copytree(world, folder)
        if shown == "answers":  # as the control problems.hard_answers writes them
            import pyarrow as pa

            write_table(
                folder / "hard" / "data.parquet",
                hard.append_column("answer", pa.array([str(i) for i in range(hard.num_rows)])),
            )
        out = folder / "made"
        out.mkdir()
        rows, _ = label(folder, out, ladder_policy, "weak_to_strong", form="hard", per_problem=2)
        assert {row["question"] for row in split_of(rows, "train")} <= questions
        assert split_of(rows, "train")
        found.append(rows)
    assert found[0] == found[1]
    assert not questions & {question for question, _ in asked}


def test_rows_say_which_source_may_have_hard_questions(
    world: Path, tmp_path: Path, ladder_policy: Path
) -> None:
    """The check of the firewall (`stages.findings`) reads it."""
    rows, _ = label(
        world,
        tmp_path,
        ladder_policy,
        "weak_to_strong",
        {"source": "checker", "limit": 5},
        form="hard",
        per_problem=1,
    )
    easy = set(read_table(world / "easy" / "data.parquet")["problem_id"].to_pylist())
    assert {row["source"] for row in rows} == {0, 1}
    assert {row["source"] for row in rows if row["problem_id"] not in easy} == {0}


# The labeller that reads in both directions


def test_the_labeller_makes_many_labels_of_few(world: Path, tmp_path: Path, ladder_policy: Path) -> None:
    rows, summary = label(world, tmp_path, ladder_policy, "non_causal", budget=40, confident=0.5)
    assert summary["training_labels_bought"] == 40
    assert summary["labels_made"] > 40
    bought = labels_in(split_of(rows, "train")) - summary["labels_made"]
    assert 40 <= bought < 60  # labels that solutions share are paid once
    with pytest.raises(ValueError, match="reads later steps too"):
        load_evaluator(tmp_path / "out" / "source-0" / "labeller")


def test_a_labeller_that_is_sure_of_nothing_is_no_labeller(
    world: Path, tmp_path: Path, ladder_policy: Path
) -> None:
    """Otherwise its experiment would be that of the few labels alone, under another name."""
    with pytest.raises(
        ValueError, match=r"labels\.confident is 0\.999999, and the labeller is that sure of no step"
    ):
        label(world, tmp_path, ladder_policy, "non_causal", budget=40, confident=0.999999)


def test_the_causal_control_buys_the_same_labels(world: Path, tmp_path: Path, ladder_policy: Path) -> None:
    bought = []
    for causal in (True, False):
        folder = tmp_path / str(causal)
        folder.mkdir()
        rows, _ = label(world, folder, ladder_policy, "non_causal", budget=40, causal=causal, confident=0.5)
        whole = [row for row in split_of(rows, "train") if set(row["labels"]) <= {0.0, 1.0, UNLABELLED}]
        bought.append([(key(row), row["labels"]) for row in whole])
    assert bought[0] == bought[1]
    assert bought[0]


def test_only_easy_problems_have_an_answer_to_show() -> None:
    """A row of any other problem stays without one, whatever it carries."""
    easy = {"easy": {"answer": "4"}}
    rows = [
        {"problem_id": "easy", "question": "2+2"},
        {"problem_id": "hard", "question": "3*5", "answer": "1"},
    ]
    shown = with_answers(rows, easy, MARKED)
    assert shown[0]["question"] == "2+2\n\n# Answer\n\n4"
    assert shown[1] is rows[1]


@pytest.mark.parametrize(
    ("probabilities", "confident", "soft", "labels"),
    [
        ([0.95, 0.6, 0.97], 0.9, True, [0.95, -1, 0.97]),
        ([0.95, 0.05, 0.97], 0.9, True, [0.95, 0.05, -1]),  # none after an error
        ([0.95, 0.4, 0.97], 0.9, True, [0.95, -1, -1]),  # nor after one it is not sure of
        ([0.95, 0.4, 0.97], 0.5, False, [1, 0, -1]),
    ],
)
def test_made_labels_stop_at_the_first_error(
    probabilities: list[float], confident: float, soft: bool, labels: list[float]
) -> None:
    assert made_labels(probabilities, confident, soft=soft) == labels


# Teaching


def _lesson(base: Path, name: str = "one", **training: Any) -> Lesson:
    return Lesson(name, base, RewardTraining.model_validate({**TRAINING, **training}), MARKED)


def _rows(count: int) -> Rows:
    rng = random.Random(count)
    return [
        {
            "problem_id": str(i),
            "question": "1+1",
            "completion": f"1+1={(digit := rng.randrange(7))}\n\n",
            "labels": [float(digit % 2)],
            "finished": False,
        }
        for i in range(count)
    ]


def test_a_finished_teacher_is_taken_and_a_torn_one_is_made_again(
    tmp_path: Path, ladder_policy: Path
) -> None:
    work = Work(tmp_path / "out", tmp_path / "work", 0)
    first = teach(_lesson(ladder_policy), _rows(64), work)
    made = data_version(fingerprint(first.folder))
    again = teach(_lesson(tmp_path / "no model here"), [], work)
    assert (again.summary, again.folder) == (first.summary, first.folder)
    (tmp_path / "work" / "one" / "taught.json").unlink()
    (first.folder / "model.safetensors").write_bytes(b"torn")
    assert data_version(fingerprint(teach(_lesson(ladder_policy), _rows(64), work).folder)) == made


def test_a_killed_lesson_goes_on_to_the_same_weights(
    tmp_path: Path, ladder_policy: Path, kill_midway: Callable[[str], None]
) -> None:
    rows, training = tmp_path / "rows.json", {**TRAINING, "epochs": 3}
    rows.write_text(json.dumps(_rows(96)))
    kill_midway(
        "import json\n"
        "from e2h_pipeline.artifacts.reporter import Part\n"
        "from e2h_pipeline.artifacts.work import Work\n"
        "from e2h_pipeline.recipe import RewardTraining\n"
        "from e2h_pipeline.solutions import MARKED\n"
        "from e2h_pipeline.supervision.teacher import Lesson, teach\n"
        f"lesson = Lesson('one', Path({str(ladder_policy)!r}), RewardTraining.model_validate({training!r}), MARKED)\n"
        f"work = Work(Path({str(tmp_path / 'out')!r}), Path({str(tmp_path / 'work')!r}), 0)\n"
        "reporter = SuicidalReporter(5)\n"
        "Part.progress = lambda self, *told: reporter.progress(*told)\n"
        f"teach(lesson, json.loads(Path({str(rows)!r}).read_text()), work)\n"
    )
    assert list((tmp_path / "work" / "one" / "training").glob("checkpoint-*"))
    assert not (tmp_path / "work" / "one" / "taught.json").exists()
    lesson = _lesson(ladder_policy, epochs=3)
    resumed = teach(lesson, _rows(96), Work(tmp_path / "out", tmp_path / "work", 0))
    whole = teach(lesson, _rows(96), Work(tmp_path / "out", tmp_path / "other", 0))
    weights = [(t.folder / "model.safetensors").read_bytes() for t in (resumed, whole)]
    assert weights[0] == weights[1]


# Recipes


@pytest.mark.parametrize("source", ["active", "weak_to_strong", "non_causal"])
@pytest.mark.parametrize("of", ["checker", "prm800k", "monte_carlo"])
def test_a_composed_recipe_is_read_again_as_it_was_written(source: str, of: str) -> None:
    recipe = Recipe.from_key(f"ladder/labels.source={source}/labels.of={of}")
    assert Recipe.model_validate_json(recipe.canonical_json()) == recipe


def test_a_chain_of_one_needs_no_comma() -> None:
    for text, layers in (("3", (3,)), ("2,3", (2, 3))):
        key = f"ladder/labels.source=weak_to_strong/labels.middle={text}"
        assert Recipe.from_key(key).labels[0].middle == layers


def test_a_source_is_named_by_its_word_or_its_section() -> None:
    word = Recipe.from_key("ladder/labels.source=active/labels.of=monte_carlo").labels[0]
    section = Recipe.from_key("ladder/labels.source=active/labels.of.source=monte_carlo").labels[0]
    assert word == section


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (
            "labels.source=weak_to_strong/labels.form=hard/labels.labeller=truth",
            "ground truth of hard questions",
        ),
        (
            "labels.source=weak_to_strong/labels.labeller=flips/labels.middle=2,3",
            "no weak evaluator to go on from",
        ),
        ("labels.source=weak_to_strong/labels.middle=0", "at least one layer"),
        ("labels.source=non_causal/labels.training.packing=true", "attention in one direction"),
        ("labels.source=active/labels.training.folds=2", "trained once"),
        ("labels.source=active/labels.of.limit=5", "of.limit is not read where labels are bought"),
        ("labels.source=active/labels.of.balance=false", "of.balance is not read where labels are bought"),
        (
            "labels.source=active/labels.of.source=prm800k/labels.of.balance=true",
            "balance is a field of source=checker",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_mend(overrides: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        Recipe.from_key(f"ladder/{overrides}")


# Ratings of people that are bought again, as a replay


def _rated_job(folder: Path, *solutions: tuple[list[str], list[int]]) -> Buyer:
    """A buyer of the ratings of one problem."""
    name = "train/algebra/1"
    lines = [
        {"unique_id": name, "level": 2, "problem": "1+2*2", "steps": steps, "ratings": ratings}
        for steps, ratings in solutions
    ]
    (folder / "ratings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = Recipe.from_key("ladder/labels.source=active/labels.of=prm800k")
    options = recipe.labels[0].model_copy(
        update={"of": Prm800kLabels(path=str(folder / "ratings.jsonl"), neutral="positive")}
    )
    easy = {name: {"problem_id": name, "level": 2, "split": "train", "question": "1+2*2"}}
    return Buyer.of(LabelJob(options, 0, easy, {}, LADDER, Sampling(), "exact", Work(folder, folder, 0)))


STEPS = st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from([1, 0, -1])), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=6), st.integers(1, 20))
def test_ratings_come_to_light_as_they_are_bought(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[tuple[str, int]]], budget: int
) -> None:
    """Bought one after the other, they are those of the source itself; candidates show none of them."""
    solutions = [([step for step, _ in own], [rating for _, rating in own]) for own in drawn]
    folder = tmp_path_factory.mktemp("ratings")
    buyer = _rated_job(folder, *solutions)
    candidates = buyer.candidates("train")
    assert all(row["labels"] == [] for row in candidates)
    texts = [row["completion"] for row in candidates]
    assert len(set(texts)) == len(texts)
    whole = buyer.source.draw(buyer.job).rows
    bought = buyer.buy(candidates)
    assert Counter(labels_in([row]) for row in bought) == Counter(labels_in([row]) for row in whole)
    fresh = _rated_job(folder, *solutions)
    some = fresh.buy(candidates, budget)
    assert labels_in(some) == verdicts(some) == min(budget, labels_in(whole))


def test_real_ratings_are_bought_as_they_are_drawn(math_split: ProblemSplit, tmp_path: Path) -> None:
    easy = {row["problem_id"]: row for row in easy_table(math_split).to_pylist()}
    options = Recipe.from_key("real-evaluator/labels.source=active/labels.of=prm800k").labels[0]
    buyer = Buyer.of(LabelJob(options, 0, easy, {}, MATH, Sampling(), "math", Work(tmp_path, tmp_path, 0)))
    rows = buyer.candidates("train") + buyer.candidates("validation")
    whole = buyer.source.draw(buyer.job).rows
    assert labels_in(buyer.buy(rows)) == labels_in(whole) > 1000
