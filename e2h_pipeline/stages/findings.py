"""The asset checks as plain functions over tables and graphs.

Each returns a list of findings, empty if all is well. Questions are compared by content
(`e2h_pipeline/problems/same_problem.py`), never by id alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.lineage import Node, ancestors
from e2h_pipeline.artifacts.manifest import MANIFEST_NAME
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.problems.same_problem import KnownQuestions, Match, same_problem
from e2h_pipeline.stages.answer_columns import answer_columns
from e2h_pipeline.supervision.solutions.metamath import UNLEVELLED_ID
from e2h_pipeline.supervision.step_labels import SOURCE

if TYPE_CHECKING:
    from e2h_pipeline.stages.spec import Stage

GOLD, SOLUTIONS = "gold_answers", "easy_solutions"
BENCHMARK = "benchmark_questions"
QUESTION_TABLES = ("easy_problems", "hard_questions", BENCHMARK)
_ANSWER_COLUMNS = frozenset({"answer", "answers", "steps", "solution", "completion", "payload"})
_TOLERANCE = 1e-9
_LEAST_SPREAD = 1e-6  # standard deviation of step logits; below it, every step has the same score
_SHOWN = 3


def split_findings(parts: Mapping[str, Path], easy_levels: Collection[int]) -> list[str]:
    """Are the partitions of supervision disjoint, and does every hard and benchmark question have a
    gold answer?

    Args:
        parts: asset name -> folder, for the existing partition assets.
        easy_levels: levels that the recipe supervises.
    """
    rows = {name: read_table(path / "data.parquet").to_pylist() for name, path in parts.items()}
    ids = {name: [row["problem_id"] for row in found] for name, found in rows.items()}
    findings = [
        f"{name}: {_some(_repeated(found))} there twice" for name, found in ids.items() if _repeated(found)
    ]
    questions = [name for name in QUESTION_TABLES if name in rows]
    for first, second in combinations(questions, 2):
        shared = set(ids[first]) & set(ids[second])
        findings += [f"{first} and {second} share {_some(shared)}"] if shared else []
    for first, second in combinations(questions, 2):
        matches = _matches(rows[first], _known(rows[second]))
        findings += _match_findings(first, second, matches)
    findings += _level_findings(rows, easy_levels)
    return findings + _gold_findings(ids)


def stop_findings(summary: Mapping[str, Any]) -> list[str]:
    """Did a guard stop the training of a policy?

    Args:
        summary: of the policy's manifest.
    """
    if not summary.get("stopped"):
        return []
    return [
        f"stopped after {summary['updates']} updates: {summary['stopped']}; the policy is that of update "
        f"{summary['best_update']}"
    ]


def training_findings(
    asset: str,
    parts: Mapping[str, Path],
    unlevelled: Collection[str] = (),
    *,
    hard_sources: Collection[int] = (),
) -> list[str]:
    """Is every row that trains of an easy problem, by id and by text, and none of a hard or
    benchmark question, whatever id it carries?

    Args:
        asset: labels, whose questions are those of easy problems; or `easy_solutions`, whose
            questions may be rewritten, and of training problems only.
        parts: asset name -> folder, for `asset` and the existing question tables.
        unlevelled: sets of problems without levels that count as easy beside the domain's.
        hard_sources: sources of labels whose rows may be of hard questions too, because a model gave them
            (weak-to-strong): of a hard question by its own id and text, and of no benchmark question.
    """
    rows = {name: read_table(path / "data.parquet").to_pylist() for name, path in parts.items()}
    taught = _distinct(rows.pop(asset))
    rewritten = asset == SOLUTIONS
    easy = {r["problem_id"]: r for r in rows["easy_problems"] if not rewritten or r["split"] == "train"}
    own = {row["problem_id"]: row for row in rows.get("hard_questions", [])} if hard_sources else {}
    both = {**own, **easy}

    def known(row: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        """The problems that a row may be of."""
        return both if row.get(SOURCE, 0) in hard_sources else easy

    strangers = {row["problem_id"] for row in taught if row["problem_id"] not in known(row)}
    if rewritten and unlevelled:
        strangers = {name for name in strangers if not name.startswith(UNLEVELLED_ID)}
    kind = "training problem" if rewritten else "problem"
    findings = [f"{asset}: {_some(strangers)} is not an easy {kind}"] if strangers else []
    if not rewritten:
        other = {
            row["problem_id"]
            for row in taught
            if row["problem_id"] in known(row)
            and not same_problem(row["question"], known(row)[row["problem_id"]]["question"])
        }
        findings += [f"{asset}: {_some(other)} has the text of another problem"] if other else []
    of_easy = [row for row in taught if row["problem_id"] in easy or row["problem_id"] not in known(row)]
    for name, compared in (("hard_questions", of_easy), (BENCHMARK, taught)):
        findings += _match_findings(asset, name, _matches(compared, _known(rows.get(name, []))))
    return findings


def _distinct(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first row of each id, question and source."""
    named = {(row["problem_id"], row["question"], row.get(SOURCE)): row for row in reversed(list(rows))}
    return list(named.values())


def _known(rows: Iterable[Mapping[str, Any]]) -> KnownQuestions:
    return KnownQuestions((row["problem_id"], row["question"]) for row in rows)


def _matches(rows: Iterable[Mapping[str, Any]], known: KnownQuestions) -> list[tuple[str, Match]]:
    found = ((row["problem_id"], known.find(row["question"])) for row in rows)
    return [(name, match) for name, match in found if match is not None]


def _match_findings(first: str, second: str, matches: Sequence[tuple[str, Match]]) -> list[str]:
    """A finding for each kind of match between two tables."""
    findings = []
    for kind in ("same", "reworded"):
        pairs = [f"{name} as {match.name}" for name, match in matches if match.kind == kind]
        if pairs:
            findings.append(f"{first} has {len(pairs)} questions that are {kind} in {second}: {_some(pairs)}")
    return findings


def _level_findings(rows: Mapping[str, list[dict[str, Any]]], easy_levels: Collection[int]) -> list[str]:
    """Easy problems must have easy levels; hard ones must have other, known levels."""
    easy = {row["level"] for row in rows.get("easy_problems", [])} - set(easy_levels)
    hard = {row["level"] for row in rows.get("hard_questions", [])} & {*easy_levels, None}
    findings = [f"easy_problems has levels {sorted(easy, key=str)}, which are not easy"] if easy else []
    return findings + ([f"hard_questions has easy or unknown levels {sorted(hard, key=str)}"] if hard else [])


def _gold_findings(ids: Mapping[str, list[str]]) -> list[str]:
    if not {GOLD, "hard_questions", "benchmark_questions"} <= ids.keys():
        return []
    asked = {*ids["hard_questions"], *ids["benchmark_questions"]}
    findings = []
    if missing := asked - set(ids[GOLD]):
        findings.append(f"no gold answer for {_some(missing)}")
    if extra := set(ids[GOLD]) - asked:
        findings.append(f"gold answers without a question: {_some(extra)}")
    return findings


def reachable(upstream: Mapping[str, Collection[str]], start: str) -> set[str]:
    """All assets that `start` depends on, directly or through others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for parent in upstream.get(waiting.pop(), ()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def graph_findings(
    upstream: Mapping[str, Collection[str]], audit: Collection[str], split: Collection[str] = ()
) -> list[str]:
    """Stages that depend on gold answers or on an audit stage, without being audit stages.

    Args:
        split: stages that may read audit stages, because they leave the answers out.
    """
    kept = {name: set(parents) - set(audit if name in split else ()) for name, parents in upstream.items()}
    findings = []
    for asset in sorted(set(upstream) - set(audit)):
        seen = sorted(reachable(kept, asset) & {GOLD, *audit})
        findings += [f"{asset} depends on {', '.join(seen)}"] if seen else []
    return findings


def declared_leaks(stages: Mapping[str, Stage]) -> list[str]:
    """`graph_findings` by what stages declare, over all recipes; the culprits first."""
    audit, split = roles(stages)
    upstream = {name: stage.upstream for name, stage in stages.items()}
    free = sorted(upstream.keys() - audit - split)
    direct = {name: sorted({GOLD, *audit} & set(upstream[name])) for name in free}
    reading = [f"{name} reads {', '.join(seen)}" for name, seen in direct.items() if seen]
    return reading + graph_findings(upstream, audit, split)


def roles(stages: Mapping[str, Stage]) -> tuple[set[str], set[str]]:
    """Names of audit stages, and of the stages of the split, which leave answers out."""
    audit = {name for name, stage in stages.items() if stage.audit}
    return audit, {name for name, stage in stages.items() if stage.declassifies}


def manifest_findings(
    nodes: Iterable[Node], audit: Collection[str], split: Collection[str] = ()
) -> list[str]:
    """Artifacts of non-audit stages that were made from those of audit stages, by their manifests.

    Args:
        split: as for `graph_findings`.
    """
    findings = []
    for node in nodes:
        if node.asset not in audit and (told := sorted(_told_by(node, {GOLD, *audit}, split))):
            findings.append(f"{node.asset} {node.artifact.key[:16]} was made from {', '.join(told)}")
    return findings


def _told_by(node: Node, audit: Collection[str], split: Collection[str]) -> set[str]:
    """Audit stages behind an artifact, on ways that do not go through the split."""
    return {
        parent.asset
        for behind in ancestors(node)
        if behind.asset not in split and behind.asset not in audit
        for parent in behind.inputs
        if parent.asset in audit
    }


def column_findings(folders: Mapping[str, Path], gold: Path | None = None) -> list[str]:
    """Question tables with a column that could reveal an answer, by its name or by its content.

    Args:
        gold: folder of `gold_answers`, to compare contents with; None where it is not made yet.
    """
    findings = []
    answers = _gold(gold) if gold else {}
    for name, folder in folders.items():
        table = read_table(folder / "data.parquet")
        told = sorted(_ANSWER_COLUMNS & set(table.column_names))
        findings += [f"{name} has column {', '.join(told)}"] if told else []
        findings += [
            f"{name} has column {column}, which holds answers: {found.agree} of {found.rows} rows, "
            f"{found.expected:.1f} expected by chance"
            for column, found in answer_columns(table, answers).items()
            if column not in told
        ]
        extra = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
        extra = [file for file in extra if file not in ("data.parquet", MANIFEST_NAME)]
        findings += [f"{name} holds {_some(extra)} besides its table"] if extra else []
    return findings


def _gold(folder: Path) -> dict[str, str]:
    rows = read_table(folder / "data.parquet", ["problem_id", "answer"]).to_pylist()
    return {row["problem_id"]: row["answer"] for row in rows}


def pool_findings(pool: Path, questions: Collection[str], samples: int) -> list[str]:
    """Does a pool hold samples 0 .. samples-1 of every question, each once?

    Args:
        pool: folder of `part-*.parquet`.
        questions: ids of the questions of the pool.
    """
    table = read_table(pool, ["problem_id", "sample"])
    pairs = Counter(zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True))
    wanted = {(question, sample) for question in questions for sample in range(samples)}
    findings = []
    if missing := wanted - pairs.keys():
        findings.append(f"{len(missing):,} samples missing, as {_some(f'{q} #{s}' for q, s in missing)}")
    if extra := pairs.keys() - wanted:
        findings.append(f"{len(extra):,} samples not requested, as {_some(f'{q} #{s}' for q, s in extra)}")
    if double := [pair for pair, count in pairs.items() if count > 1]:
        findings.append(f"{len(double):,} samples there twice, as {_some(f'{q} #{s}' for q, s in double)}")
    return findings


def metric_findings(rows: Iterable[Mapping[str, Any]], draws: int) -> list[str]:
    """Impossible rows of metrics: outside [0, 1], intervals out of order, a choice better than
    pass@N, or methods that differ although there is only one sample.

    Votes below the largest N are means over `draws` random subsets, so they may exceed the exact
    pass@N by four of their standard errors.
    """
    rows = list(rows)
    findings = [
        f"{_name(row)}: accuracy {row['accuracy']} outside [0, 1]"
        for row in rows
        if not 0 <= row["accuracy"] <= 1
    ]
    findings += [f"{_name(row)}: interval out of order" for row in rows if not _ordered(row)]
    bounds = {_pool(row): row["accuracy"] for row in rows if row["method"] == "pass"}
    for row in rows:
        bound = bounds.get(_pool(row))
        if row["method"] in ("best-of-n", "weighted-vote", "majority") and bound is not None:
            drawn = row["method"] != "best-of-n" and row["n"] > 1
            slack = 4 * 0.5 / (draws * row["problems"]) ** 0.5 if drawn else _TOLERANCE
            if row["accuracy"] > bound + slack:
                findings.append(f"{_name(row)}: {row['accuracy']:.4f} is above pass@{row['n']} {bound:.4f}")
            if row["n"] == 1 and abs(row["accuracy"] - bound) > _TOLERANCE:
                findings.append(f"{_name(row)}: differs from pass@1, with nothing to choose from")
    return findings


def constant_findings(scores: Path) -> list[str]:
    """Does the evaluator give every step the same score? Then it has learned nothing."""
    import pyarrow.compute as pc

    logits = read_table(scores, ["step_logits"])["step_logits"].combine_chunks().flatten()
    if len(logits) and pc.stddev(logits).as_py() < _LEAST_SPREAD:
        return [f"all {len(logits):,} step scores are equal"]
    return []


def _ordered(row: Mapping[str, Any]) -> bool:
    return bool(row["ci_low"] - _TOLERANCE <= row["accuracy"] <= row["ci_high"] + _TOLERANCE)


def _pool(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in ("benchmark", "policy", "n", "levels"))


def _name(row: Mapping[str, Any]) -> str:
    method = f"{row['method']} {row['aggregation']}".strip()
    return f"{row['benchmark']} {row['policy']} {method} n={row['n']} levels {row['levels']}"


def _repeated(ids: Iterable[str]) -> set[str]:
    return {name for name, count in Counter(ids).items() if count > 1}


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + rest
