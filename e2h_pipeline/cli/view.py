"""Output of the command line: tables, trees, and the progress of a run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from e2h_pipeline.report.levels import NUMBERED, LevelNames, levels_in, pooled_in
from e2h_pipeline.statistics.multiple import CLEAR

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.lineage import Node
    from e2h_pipeline.operations.runner import StageEvent

_PIPE_WIDTH = 150  # columns if the output is not a terminal
_VERSION_LENGTH = 12
_COLUMNS_A_LINE = 4
_SEEDS_A_LINE = 4
STOPPED = "*"  # behind a policy whose training a guard stopped

Row = dict[str, Any]


def console(stream: TextIO | None = None) -> Console:
    """A console. Output into a pipe gets lines wide enough for our tables."""
    found = Console(file=stream, highlight=False)
    return found if found.is_terminal else Console(file=stream, highlight=False, width=_PIPE_WIDTH)


@contextmanager
def own_terminal() -> Iterator[Console]:
    """A console on its own descriptor, because Dagster captures descriptor 1 while stages run."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as stream:
        yield console(stream)


class StageLines:
    """Prints a line for each finished stage, and below them messages of the running stage."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._status = out.status("starting")
        self._counts = {"computed": 0, "reused": 0, "check_passed": 0, "check_warned": 0, "check_failed": 0}

    def __enter__(self) -> StageLines:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        counts = self._counts
        warned = f"{counts['check_warned']} warned, " if counts["check_warned"] else ""
        self._out.print(
            f"{counts['computed']} stages computed, {counts['reused']} reused; "
            f"{counts['check_passed']} checks passed, {warned}{counts['check_failed']} failed"
        )

    def watch(self, event: StageEvent) -> None:
        """Show one event."""
        if event.kind in self._counts:
            self._counts[event.kind] += 1
        name = f"  {event.stage:<26}"
        if event.kind in ("computed", "reused"):
            style = "green" if event.kind == "computed" else "dim"
            self._out.print(f"{name}[{style}]{event.kind:<9}[/{style}]{event.seconds:8.1f} s")
        elif event.kind == "check_warned":
            self._out.print(f"{name} [yellow]check {event.text} warns[/yellow]")
        elif event.kind == "check_failed":
            self._out.print(f"{name} [red]check {event.text} failed[/red]")
        elif event.kind in ("started", "message"):
            self._status.update(f"{event.stage} {escape(event.text)}")
            if event.kind == "message" and not self._out.is_terminal:
                self._out.print(f"{name}{escape(event.text)}")


def print_results(rows: Sequence[Row]) -> None:
    """A table for each benchmark, level groups side by side."""
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        chosen = [row for row in rows if row["benchmark"] == benchmark]
        print_titled(*_results_table(benchmark, chosen))
        graders = ", ".join(sorted({row["grader"] for row in chosen if row["grader"]}))
        console().print(f"graded by {escape(graders)}" if graders else "", soft_wrap=True)
        for recipe, why in dict.fromkeys(
            (r.get("recipe", ""), r["stopped"]) for r in chosen if r.get("stopped")
        ):
            console().print(f"[yellow]{STOPPED} {escape(recipe)}: rl {escape(why)}[/yellow]", soft_wrap=True)
    for recipe, row in {row.get("recipe", ""): row for row in rows}.items():
        print_notes(recipe, row)


def print_steps(rows: Sequence[Row], every_level: bool) -> None:
    """A table for each source of labelled steps, level groups side by side."""
    from e2h_pipeline.report.human_steps_view import human_steps_tables

    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == recipe]
        seeds = f", {own[0]['seeds']} seeds" if "seeds" in own[0] else ""
        shown = own if every_level else [row for row in own if row["levels"] in pooled_in(_levels(own))]
        for part in human_steps_tables(shown):
            table = Table(box=SIMPLE)
            table.add_column("", no_wrap=True)
            for column in part.columns:
                table.add_column(column, justify="right", no_wrap=True)
            below = (
                "\n" if len(part.columns) > _COLUMNS_A_LINE else " "
            )  # the interval, where there is no room
            for line in part.rows:
                cells = (
                    f"{cell.value}{below}{escape('[' + cell.interval + ']')}" if cell else ""
                    for cell in line.cells
                )
                note = f"{below}[dim]({escape(line.note)})[/dim]" if line.note else ""
                table.add_row(escape(line.label) + note, *cells)
            print_titled(escape(f"{marked(recipe, own[0])}: {part.caption}{seeds}"), table)
        print_notes(recipe, own[0])


def _levels(rows: Sequence[Row]) -> set[str]:
    return {row["levels"] for row in rows}


def print_notes(experiment: str, standing: Mapping[str, Any]) -> None:
    """A line for the labels bought, one for each finding of the supervision firewall, and one for a
    recipe edited since."""
    if bought := standing.get("labels_bought"):
        parts = (
            f"{asset} {round(count):,} ({source})"
            for asset, sources in bought.items()
            for source, count in sources.items()
        )
        console().print(escape(f"{experiment}: labels bought: {', '.join(parts)}"), soft_wrap=True)
    for leak in standing.get("leaks", ()):
        console().print(f"[red]LEAK[/red] {escape(experiment)}: {escape(leak)}", soft_wrap=True)
    if edited := standing.get("outdated"):
        console().print(f"[yellow]OUTDATED[/yellow] {escape(experiment)}: {escape(edited)}", soft_wrap=True)


def marked(name: str, standing: Mapping[str, Any]) -> str:
    """An experiment's name, with what a reader must know of its numbers: a leak, or not strict."""
    notes = ["LEAK"] if standing.get("leaks") else []
    notes += [] if standing.get("strict", True) else ["not strict"]
    return f"{name} ({', '.join(notes)})" if notes else name


def print_pooled(rows: Sequence[Row], differences: Sequence[Row]) -> None:
    """Results over seeds, and the differences that may be told."""
    from e2h_pipeline.evaluation.pooling import untold

    print_results(rows)
    out = console()
    for why in dict.fromkeys(untold(row["seeds"]) for row in rows if untold(row["seeds"])):
        out.print(why, soft_wrap=True)
    if not differences:
        return
    table = Table(box=SIMPLE)
    for name in ("comparison", "N"):
        table.add_column(name, no_wrap=True)
    groups = pooled_in({row["levels"] for row in differences})
    for name in groups:
        table.add_column(name, justify="right", no_wrap=True)
    for (benchmark, first, second, n), cells in _by_comparison(differences).items():
        told = [_difference(cells.get(group)) for group in groups]
        table.add_row(escape(f"{benchmark}: {first} - {second}"), str(n), *told)
    print_titled(
        "differences in points \\[95% interval over seeds and problems] p after Holm; below, each seed", table
    )
    out.print(
        f"Bold: p below 0.05 among all {len(differences)} comparisons of this table (Holm). Looks at these numbers "
        "before the last seed was added are not counted.",
        soft_wrap=True,
    )


def _by_comparison(rows: Iterable[Row]) -> dict[tuple[str, str, str, int], dict[str, Row]]:
    found: dict[tuple[str, str, str, int], dict[str, Row]] = {}
    for row in rows:
        name = (row["benchmark"], row["first"], row["second"], row["n"])
        found.setdefault(name, {})[row["levels"]] = row
    return found


def _difference(row: Row | None) -> str:
    if row is None:
        return ""
    value, low, high = (f"{100 * row[name]:+.1f}" for name in ("difference", "ci_low", "ci_high"))
    told = f"{value} \\[{low}, {high}] p {row['holm']:.3f}"
    told = f"[bold]{told}[/bold]" if row["holm"] < CLEAR else told
    return "\n".join([told, *_by_seed(row["by_seed"], "+.1f")])


def print_titled(title: str, table: Table) -> None:
    """Print a table below its title; rich breaks a table's own title at the table's width."""
    out = console()
    out.print(title, soft_wrap=True)
    out.print(table)


def _results_table(benchmark: str, rows: Sequence[Row]) -> tuple[str, Table]:
    there = {row["levels"] for row in rows}
    levels, pooled = levels_in(there), pooled_in(there)
    heads = (_level_names(rows) if levels else NUMBERED).columns(levels + pooled)
    recovered = any(row.get("pgr") is not None for row in rows)
    searched = any(row.get("tokens") is not None for row in rows)
    recipes = {marked(_recipe(row), row) for row in rows}
    one = len(recipes) == 1  # a single recipe moves into the title, which saves its column
    about = f" · {escape(recipes.pop())}" if one and any(recipes) else ""
    over = " over seeds and problems; below, each seed" if any(row.get("by_seed") for row in rows) else ""
    title = f"{escape(benchmark)}{about}: accuracy in % \\[95% interval{over}]"
    table = Table(box=SIMPLE)
    for name in ("policy", "method") if one else ("recipe", "policy", "method"):
        table.add_column(name, no_wrap=True)
    costs = ["tokens"] if searched else []
    for name in ("N", *map(escape, heads), *costs, *(["PGR on hard"] if recovered else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for (recipe, policy, method, n), cells in _by_method(rows).items():
        values = [_accuracy(cells.get(group)) for group in levels + pooled]
        policy += STOPPED * any(row.get("stopped") for row in cells.values())
        names = [policy, method] if one else [marked(recipe, next(iter(cells.values()))), policy, method]
        values += [_tokens(cells.get("all"))] if searched else []
        table.add_row(*names, str(n), *values, *([_pgr(cells.get("hard"))] if recovered else []))
    return title, table


def _level_names(rows: Sequence[Row]) -> LevelNames:
    """The domain's names of levels; none if the recipe of the rows cannot be read."""
    from e2h_pipeline.artifacts.home import home, recipe_folders
    from e2h_pipeline.recipe import Recipe, RecipeError

    try:
        recipe = Recipe.from_key(rows[0].get("recipe", ""), recipe_folders(home()))
    except RecipeError:  # samples from elsewhere, a mean over seeds, or a recipe file that is gone
        return NUMBERED
    return LevelNames(recipe.problems.level_names)


def _by_method(rows: Iterable[Row]) -> dict[tuple[str, str, str, int], dict[str, Row]]:
    """(recipe, policy, method, n) -> level group -> row."""
    found: dict[tuple[str, str, str, int], dict[str, Row]] = {}
    for row in rows:
        name = (_recipe(row), row["policy"], method_name(row), row["n"])
        found.setdefault(name, {})[row["levels"]] = row
    return found


def _recipe(row: Row) -> str:
    """The recipe, and of rows over seeds their number."""
    count = f" ({row['seeds']} seed{'s' if row['seeds'] > 1 else ''})" if "seeds" in row else ""
    return f"{row.get('recipe', '')}{count}"


def method_name(row: Mapping[str, Any]) -> str:
    """Method and aggregation, as `weighted-vote product`."""
    return f"{row['method']} {row['aggregation']}".strip()


def _accuracy(row: Row | None) -> str:
    if row is None:
        return ""
    estimate = f"{100 * row['accuracy']:.1f} \\[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
    return "\n".join([estimate, *_by_seed(row.get("by_seed", {}), ".1f")])


def _by_seed(values: Mapping[str, float], spec: str) -> list[str]:
    """The seeds' own values in percent, some to a line."""
    if len(values) < 2:
        return []
    told = [format(100 * value, spec) for value in values.values()]
    return [
        f"[dim]{' '.join(told[start : start + _SEEDS_A_LINE])}[/dim]"
        for start in range(0, len(told), _SEEDS_A_LINE)
    ]


def _tokens(row: Row | None) -> str:
    """Tokens drawn and read for an answer; told of searches and what they are compared with."""
    value = row.get("tokens") if row else None
    return "" if value is None else f"{value:,.0f}"


def _pgr(row: Row | None) -> str:
    value = row.get("pgr") if row else None
    return "" if value is None else f"{value:.2f}"


def print_lineage(found: Mapping[str, Any], node: Node) -> None:
    """Print the tree of artifacts, the paths back to the easy data, and the numbers."""
    out = console()
    if found["leaks"] or not found["strict"]:
        out.print(f"[bold]{escape(marked(found['experiment'], found))}[/bold]", soft_wrap=True)
    out.print(_tree(node))
    out.print()
    for stage, source in found["sources"].items():
        out.print(f"{stage}: {escape(_way(source))}", soft_wrap=True)
    out.print(_made_table(found["artifacts"]))
    out.print(_numbers_table(found["numbers"]))
    print_notes(found["experiment"], found)


def _tree(node: Node) -> Tree:
    """The tree of artifacts; each is expanded where it appears first."""
    top, seen = Tree(_label(node)), {node.artifact.key}
    waiting = [(top, node)]
    while waiting:
        branch, parent = waiting.pop(0)
        for child in parent.inputs:
            known = child.artifact.key in seen
            twig = branch.add(_label(child) + (" [dim]...[/dim]" if known and child.inputs else ""))
            if not known:
                seen.add(child.artifact.key)
                waiting.append((twig, child))
    return top


def _label(node: Node) -> str:
    return f"{node.asset} [cyan]{node.artifact.data_version[:_VERSION_LENGTH]}[/cyan]"


def _way(source: Mapping[str, Any]) -> str:
    """The shortest path, and the number of others."""
    if not source["paths"]:
        return "no easy data"
    shortest, *others = source["paths"]
    steps = " < ".join(f"{step['asset']}@{step['data_version'][:_VERSION_LENGTH]}" for step in shortest)
    return steps + (f" (and {len(others)} longer paths; --json lists them)" if others else "")


def _made_table(artifacts: Sequence[Row]) -> Table:
    """Code, Dagster run and MLflow run (the last part of its address) of each artifact."""
    table = Table("artifact", "data version", "code", "made at", "Dagster run", "MLflow run", box=SIMPLE)
    for row in artifacts:
        table.add_row(
            row["asset"],
            row["data_version"][:_VERSION_LENGTH],
            row["code_version"],
            row["created"][:16],
            (row["dagster_run"] or "none known")[:8],
            escape(_mlflow_run(row["mlflow"])),
        )
    return table


def _mlflow_run(address: str | None) -> str:
    return address.rstrip("/").rpartition("/")[2][:8] if address else "none"


def _numbers_table(numbers: Sequence[Row]) -> Table:
    """Accuracy of each method on pooled level groups, and the easy data behind it."""
    table = Table(
        "benchmark", "policy", "method", "N", "easy", "hard", "all", "easy data", "source", box=SIMPLE
    )
    for (_, policy, method, n), cells in _by_method(numbers).items():
        row = next(iter(cells.values()))
        accuracies = [
            f"{100 * cells[g]['accuracy']:.1f}" if g in cells else "" for g in ("easy", "hard", "all")
        ]
        easy = ", ".join(version[:_VERSION_LENGTH] for version in row["easy_data_version"]) or "none"
        table.add_row(row["benchmark"], policy, method, str(n), *accuracies, easy, row["source"])
    return table


def print_manifest(manifest: Mapping[str, Any]) -> None:
    """Field by field; nested values as JSON."""
    table = Table(box=None, show_header=False)
    for name, value in manifest.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True)
        table.add_row(f"[bold]{name}[/bold]", escape(text))
    console().print(table)


def print_recipes(descriptions: Mapping[str, str]) -> None:
    """Recipes and their descriptions."""
    table = Table("recipe", "what it is", box=SIMPLE)
    for name, description in descriptions.items():
        table.add_row(name, escape(description))
    console().print(table)
