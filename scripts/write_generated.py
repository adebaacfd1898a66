"""Write the files that are generated from the code and kept under version control: `make generated`.

    docs/recipes.md   every field of a recipe
    docs/extending.md its template, with the examples that the tests run put in
    tests/graph.yaml  the asset graph: what each asset reads, always and for some recipes, and which methods it uses
    e2h_pipeline/stages/names.py  the names of all stages, for commands that need not load them

Tests fail when one is stale. Read the difference in review: it says what a change does to users and to keys.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def recipes_page() -> str:
    """docs/recipes.md."""
    from e2h_pipeline.recipe.describe import recipes_page

    return recipes_page()


def extending_page() -> str:
    """docs/extending.md: `<!-- FILE -->` in the template stands for the content of the file."""

    def content(match: re.Match[str]) -> str:
        return (ROOT / match[1]).read_text(encoding="utf-8").rstrip()

    template = (ROOT / "docs" / "templates" / "extending.md").read_text(encoding="utf-8")
    return re.sub(r"<!-- (tests/\S+) -->", content, template)


def asset_graph() -> str:
    """tests/graph.yaml."""
    import yaml

    from e2h_pipeline.definitions import build
    from e2h_pipeline.stages.spec import STAGES, never

    graph = build().resolve_asset_graph()
    assets: dict[str, Any] = {}
    for key in sorted(graph.get_all_asset_keys()):
        name, node = key.to_user_string(), graph.get(key)
        found: dict[str, Any] = {"group": node.group_name}
        if name in STAGES:
            stage = STAGES[name]
            found["reads"] = sorted(stage.reads)
            found["reads of some recipes"] = sorted(stage.reads_if)
            found["watches"] = sorted(stage.watches)
            found["recipe"] = "all" if name == "recipe" else sorted(map(str, stage.sections))
            found["methods"] = sorted(map(str, stage.methods))
            found["marks"] = [
                mark
                for mark in ("audit", "gpu", "distributed", "grows")
                if getattr(stage, mark) not in (False, "", never)
            ]
        assets[name] = {field: value for field, value in found.items() if value}
    return str(yaml.safe_dump(assets, sort_keys=False, width=120, default_flow_style=None))


def stage_names() -> str:
    """e2h_pipeline/stages/names.py."""
    from assets.checks import FIREWALL
    from e2h_pipeline.orchestration.planning import stage_order

    checks = "".join(f'    ("{key.asset_key.to_user_string()}", "{key.name}"),\n' for key in FIREWALL)
    listed = "".join(f'    "{name}",\n' for name in stage_order())
    return (
        '"""Names of all stages, upstream first, and the checks of the supervision firewall (asset, check), for\n'
        'commands that need not load them; `make generated` writes this file."""\n\n'
        f"NAMES = (\n{listed})\n\nFIREWALL_CHECKS = (\n{checks})\n"
    )


GENERATED = {
    "docs/recipes.md": recipes_page,
    "docs/extending.md": extending_page,
    "tests/graph.yaml": asset_graph,
    "e2h_pipeline/stages/names.py": stage_names,
}


def main() -> None:
    """Write them."""
    for name, content in GENERATED.items():
        (ROOT / name).write_text(content(), encoding="utf-8")


if __name__ == "__main__":
    main()
