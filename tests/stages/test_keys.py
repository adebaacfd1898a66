"""A key changes only with its own parts: the methods that the recipe chooses, and no others.

The tests edit a copy of the sources and compute code versions there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2h_pipeline import registry
from e2h_pipeline.artifacts import code_version
from e2h_pipeline.definitions import build
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.stages.spec import STAGES, narrow

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "ppo": "ladder",
    "grpo": "ladder/rl.algorithm=grpo",
    "rest": "ladder/rl.algorithm=rest",
    "orm": "ladder/reward.kind=orm",
    "pairwise": "ladder/reward.kind=pairwise",
    "goal": "ladder/reward.kind=goal_conditioned",
    "generative": "ladder/reward.kind=generative",
    "outside": "ladder/strict=false/reward.kind=outside/reward.evaluator=prm",
    "monte_carlo": "ladder/labels.source=monte_carlo",
    "active": "ladder/labels.source=active",
    "weak_to_strong": "ladder/labels.source=weak_to_strong",
    "non_causal": "ladder/labels.source=non_causal/labels.of=monte_carlo",
    "mean": "ladder/rerank.aggregations=mean",
    "math": "llemma-7b",
}
Versions = dict[tuple[str, str, str], str]
Edit = Callable[[str, str, str], set[tuple[str, str, str]]]
JUDGED = (
    "easy_evaluator",
    "rerank_scores",
    "early_stop_metrics",
    "evaluator_generalization",
    "rl_policy",
)
INSIDE = "    EDITED = 1"  # after the first line of a class


def versions() -> Versions:
    """Code version of each stage, by recipe and engine."""
    found = {}
    for name, key in KEYS.items():
        recipe = Recipe.from_key(key)
        for stage, spec in STAGES.items():
            if spec.module.startswith("assets."):
                view = narrow(recipe, spec.sections)
                for engine in ("transformers", "vllm") if name in ("ppo", "rest") else ("transformers",):
                    found[name, stage, engine] = spec.version(view, engine)
    return found


def forget() -> None:
    """Forget all files, like a new process."""
    code_version._scan.cache_clear()
    code_version._version.cache_clear()
    code_version._state_of_files.cache_clear()
    code_version._seen.clear()


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Change a file of the copy; the (recipe, stage, engine) with a new version."""
    build()  # fills STAGES
    copy = tmp_path / "e2h_pipeline"
    shutil.copytree(ROOT / "e2h_pipeline", copy, ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    shutil.copytree(ROOT / "assets", tmp_path / "assets", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_version, "_ROOT", copy)
    monkeypatch.setattr(code_version, "_held", {})
    monkeypatch.setattr(code_version, "_loaded", lambda name: False)
    forget()
    before = versions()

    def change(file: str, old: str, new: str) -> set[tuple[str, str, str]]:
        path = copy / file
        text = path.read_text()
        if new == INSIDE:  # a class by its name, whatever its bases
            found = re.search(rf"^class {old}\b.*:$", text, re.MULTILINE)
            assert found, f"{file} has no class {old}"
            old, new = found[0], f"{found[0]}\n{INSIDE}"
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new, 1) + "\n")
        code_version._state_of_files.cache_clear()  # it looks at files once a second
        after = versions()
        return {place for place in before if before[place] != after[place]}

    yield change
    forget()


def stages(changed: set[tuple[str, str, str]], recipe: str = "") -> set[str]:
    """Names of the changed stages, of one recipe if it is named."""
    return {stage for name, stage, _ in changed if not recipe or name == recipe}


def test_an_edit_of_grpo_re_makes_no_ppo_run(edit: Edit) -> None:
    changed = edit("rl/online/grpo.py", "class Grpo", "EDITED = 1\n\n\nclass Grpo")
    assert changed == set()  # a new constant that nothing uses
    changed = edit(
        "rl/online/losses.py", "difference.exp() - difference - 1", "difference.exp() - difference - 2"
    )
    assert changed == {("grpo", "rl_policy", "transformers")}


def test_an_edit_of_ppo_re_makes_ppo_runs(edit: Edit) -> None:
    changed = edit("rl/online/ppo.py", "Ppo", INSIDE)
    assert stages(changed) == {"rl_policy"}
    assert {name for name, _, _ in changed} == KEYS.keys() - {"grpo", "rest"}


def test_an_edit_of_an_engine_re_makes_its_pools_alone(edit: Edit) -> None:
    changed = edit("generation/engines/vllm_engine.py", "def ", "def edited() -> None: ...\n\n\ndef ")
    assert changed == set()
    changed = edit("generation/engines/vllm_engine.py", "Vllm", INSIDE)
    assert changed and {engine for _, _, engine in changed} == {"vllm"}
    assert {"benchmark_samples", "easy_samples", "sft_answers"} <= stages(changed)
    assert "rl_policy" not in stages(changed, "ppo") and "rl_policy" in stages(changed, "rest")


@pytest.mark.parametrize(
    ("kind", "name", "recipes"),
    [("orm", "Orm", {"orm"}), ("pairwise", "Pairwise", {"pairwise"})],
)
def test_an_edit_of_a_kind_re_makes_neither_sft_nor_another_kind(
    edit: Edit, kind: str, name: str, recipes: set[str]
) -> None:
    changed = edit(f"rewards/kinds/{kind}.py", name, INSIDE)
    assert {recipe for recipe, _, _ in changed} == recipes
    assert "easy_evaluator" in stages(changed) and "sft_policy" not in stages(changed)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("supervision/people.py", "People"),
        ("supervision/sessions.py", "Session"),
        ("supervision/queue.py", "Queue"),
    ],
)
def test_people_re_make_nothing_of_recipes_without_them(edit: Edit, file: str, name: str) -> None:
    assert edit(file, name, INSIDE) == set()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (
            "evaluation/partial/dropping.py",
            "np.linspace(0, 1, _CANDIDATES)",
            "np.linspace(0, 1, _CANDIDATES + 1)",
        ),
        ("rewards/token_values.py", "batch_tokens: int = 65536", "batch_tokens: int = 65535"),
    ],
)
def test_what_judges_tokens_re_makes_audits_of_its_kind_alone(
    edit: Edit, file: str, old: str, new: str
) -> None:
    assert edit(file, old, new) == {("goal", "early_stop_metrics", "transformers")}


def test_an_edit_of_what_others_trained_re_makes_nothing_of_ours(edit: Edit) -> None:
    changed = edit("rewards/outside/taken.py", "if word == AUTO:", "if word in (AUTO,):")
    assert changed == {("outside", "easy_evaluator", "transformers")}
    changed = edit("rewards/outside/qwen_prm.py", "QwenPrm", INSIDE)  # config.json may tell it
    assert changed == {("outside", stage, "transformers") for stage in JUDGED}


def test_an_edit_of_how_verdicts_are_read_re_makes_nothing_of_other_kinds(edit: Edit) -> None:
    changed = edit("rewards/generative/trained.py", "Verdicts", INSIDE)
    assert changed == {("generative", "easy_evaluator", "transformers")}
    changed = edit("rewards/generative/reader.py", "GenerativeEvaluator", INSIDE)
    assert changed == {("generative", stage, "transformers") for stage in JUDGED}


def test_an_edit_of_what_commands_alone_read_re_makes_nothing(edit: Edit) -> None:
    for file, name in (
        ("rewards/outside/trl.py", "Trl"),
        ("evaluation/outside/judge.py", "Rule"),
        ("evaluation/outside/step_lines.py", "Asked"),
    ):
        assert edit(file, name, INSIDE) == set()


@pytest.mark.parametrize(
    ("file", "name"),
    [("active", "Active"), ("weak_to_strong", "WeakToStrong"), ("non_causal", "NonCausal")],
)
def test_an_edit_of_a_source_that_trains_re_makes_no_other_labels(edit: Edit, file: str, name: str) -> None:
    assert edit(f"supervision/{file}.py", name, INSIDE) == {(file, "easy_step_labels", "transformers")}


def test_an_edit_of_a_source_re_makes_what_is_bought_from_it(edit: Edit) -> None:
    changed = edit("supervision/monte_carlo.py", "MonteCarlo", INSIDE)
    assert changed == {(name, "easy_step_labels", "transformers") for name in ("monte_carlo", "non_causal")}


def test_an_edit_of_what_teaches_re_makes_taught_labels_alone(edit: Edit) -> None:
    changed = edit("supervision/teacher.py", "def teach(", "def teach(edited: int = 1, *, ")
    assert changed == {
        (name, "easy_step_labels", "transformers") for name in ("active", "weak_to_strong", "non_causal")
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "stage"),
    [
        ("supervision/cost.py", "if label == WRONG", "if label <= WRONG", "easy_step_labels"),
        ("statistics/agreement.py", "if chance < 1", "if chance <= 0.9", "easy_step_labels"),
        ("report/labels_view.py", 'f"{value:,}"', 'f"{value}"', "report"),
    ],
)
def test_figures_of_labels_re_make_nothing_but_what_tells_them(
    edit: Edit, file: str, old: str, new: str, stage: str
) -> None:
    assert stages(edit(file, old, new)) == {stage}


def test_a_new_aggregation_beside_the_others_re_makes_nothing(edit: Edit) -> None:
    new = "def median(scores: list[float]) -> float:\n    return sorted(scores)[len(scores) // 2]\n\n\ndef "
    assert edit("reranking/aggregate.py", "\ndef ", "\n" + new) == set()


def test_a_new_entry_changes_no_key_of_another(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions()
    for found in (registry.ALGORITHMS, registry.EVALUATOR_KINDS, registry.LABEL_SOURCES, registry.DOMAINS):
        some = next(iter(found.entries.values()))
        monkeypatch.setitem(found.entries, "new_word", some)  # type: ignore[arg-type]
    assert versions() == before


def test_an_edit_of_a_domains_reader_re_makes_what_reads_it(edit: Edit) -> None:
    changed = edit("problems/math/problems.py", "MathReader", INSIDE)
    assert {name for name, _, _ in changed} == {"math"}
    assert stages(changed) == {"problem_source"}  # the rest follows if what it reads differs


def test_an_edit_of_the_exact_checker_re_makes_labels_and_audits(edit: Edit) -> None:
    changed = edit("problems/ladder/checker.py", "labels.index(0)", "labels.index(0) + 0")
    assert {"easy_step_labels", "evaluator_generalization"} <= stages(changed, "ppo")
    assert "easy_step_labels" not in stages(changed, "monte_carlo")  # another source asks no checker
    assert not {"easy_samples", "rl_policy", "easy_evaluator", "sft_policy"} & stages(changed, "ppo")


@pytest.mark.parametrize(
    ("file", "old", "new", "among", "not_among"),
    [
        (
            "grading/worker.py",
            "def main() -> None:",
            "def main(edited: int = 1) -> None:",
            set(),
            {"sft_policy"},
        ),
        (
            "artifacts/tables.py",
            "def write_table(",
            "EDITED = 1\n\n\ndef write_table(",
            set(),
            {"sft_policy"},
        ),
    ],
)
def test_code_that_is_started_or_shared_is_covered(
    edit: Edit, file: str, old: str, new: str, among: set[str], not_among: set[str]
) -> None:
    changed = edit(file, old, new)
    assert among <= stages(changed) and not not_among & stages(changed)


def test_how_tables_are_written_is_in_every_key_that_writes_some(edit: Edit) -> None:
    changed = stages(edit("artifacts/tables.py", 'compression="zstd"', 'compression="gzip"'), "ppo")
    assert {"easy_problems", "easy_step_labels", "benchmark_samples", "rerank_metrics"} <= changed


def test_the_worker_of_a_grader_is_in_the_keys_of_what_it_grades(edit: Edit) -> None:
    changed = edit("grading/tasks/prm800k.py", "def compare(", "EDITED = 1\n\n\ndef compare(")
    assert changed == set()  # no recipe grades with it here
