"""`e2h sweep` at the terminal: messages about unusable files and failed members."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_experiment import e2h, new_home


def _home(tmp_path: Path, **sweeps: str) -> Path:
    home = new_home(tmp_path / "e2h")
    (home / "sweeps").mkdir()
    for name, text in sweeps.items():
        (home / "sweeps" / f"{name}.yaml").write_text(text)
    return home


def test_a_file_that_cannot_be_used_hides_no_other(tmp_path: Path) -> None:
    home = _home(
        tmp_path,
        good="recipe: tiny\naxes: {seed: [1, 2]}\ndescription: 'seeds [/b]'\n",
        broken="recipe: [",
        odd="recipe: 'no[b]such'\naxes: {seed: [1]}\n",
    )
    done = e2h(home, "sweep")
    assert done.returncode == 0, done.stderr
    assert "good (2 members)  seeds [/b]" in done.stdout
    assert "evaluators (12 members)" in done.stdout
    assert f"broken  cannot be used  {home / 'sweeps' / 'broken.yaml'}: not valid YAML" in done.stdout
    assert "odd  cannot be used  sweep odd: 'no[b]such' is not a recipe name" in done.stdout
    rows = json.loads(e2h(home, "sweep", "--json").stdout)
    assert rows.keys() == {"good", "broken", "odd", "evaluators"}
    assert rows["good"]["axes"] == {"seed": [1, 2]}
    assert "not valid YAML" in rows["broken"]["error"]


def test_the_selection_must_name_a_stage(tmp_path: Path) -> None:
    home = _home(tmp_path, typo="recipe: tiny\naxes: {seed: [1]}\nselect: +easy_pm\n")
    done = e2h(home, "sweep", "typo", "--status")
    assert done.returncode == 1
    assert done.stderr.startswith("e2h: select: '+easy_pm' names no stage")


def test_an_error_is_shown_as_it_is(tmp_path: Path) -> None:
    """Brackets are not markup and a script tag does not run; the page exists although nothing was
    made."""
    home = _home(
        tmp_path,
        odd="recipe: odd\naxes: {seed: [1]}\nselect: +problem_source\ndescription: <script>alert(1)</script>\n",
    )
    (home / "recipes" / "odd.yaml").write_text(
        "problems: {source: math, path: '/nothing/[/data/x]<script>alert(2)</script>'}\n"
    )
    done = e2h(home, "sweep", "odd")
    assert done.returncode == 1
    assert "failed problem_source failed: " in done.stdout
    assert "/nothing/[/data/x]<script>alert(2)</script>: no math_train.jsonl" in done.stdout
    assert "1 of 1 members failed" in done.stderr
    page = (home / "reports" / "sweep-odd.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "[/data/x]&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert "<script" not in page
