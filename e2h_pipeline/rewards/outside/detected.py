"""The layout that a folder can only have, by its config.json; `auto` in recipes.

The layouts are imported here by name, so that their code is in the key of what they score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from e2h_pipeline.rewards.outside.layout import Layout
from e2h_pipeline.rewards.outside.qwen_prm import QwenPrm
from e2h_pipeline.rewards.outside.skywork import Skywork

_TOLD: Mapping[str, type[Layout]] = {"qwen-prm": QwenPrm, "skywork": Skywork}


def told_layout(folder: Path) -> str | None:
    """The word of a folder's layout; None where config.json does not tell."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return next((word for word, kind in _TOLD.items() if kind.fits(config)), None)
