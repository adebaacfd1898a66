"""What the Dagster page shows beside a materialization."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from xml.etree import ElementTree

from assets._metadata import _curves, _headline


def test_training_curves_are_pictures_that_stand_alone(tmp_path: Path) -> None:
    points = [{"update": u, "reward": 0.1 * u, "kl": 0.01, "entropy": 0.2} for u in (1, 2, 3)]
    (tmp_path / "curves.jsonl").write_text("\n".join(map(json.dumps, points)))
    text = str(_curves(tmp_path)["curves"].value)
    pictures = re.findall(r"base64,([^)]+)\)", text)
    assert len(pictures) == 3
    for picture in pictures:  # a browser draws an <img> of XML that is whole and has its namespaces
        root = ElementTree.fromstring(base64.b64decode(picture))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_what_has_no_curves_shows_none(tmp_path: Path) -> None:
    assert _curves(tmp_path) == {}


def test_accuracies_are_numbers_that_the_page_can_plot() -> None:
    summary = {
        "problems": 25,
        "grader": "math",
        "strict": True,
        "hard_accuracy": {"majority": 0.5, "name": "x"},
    }
    assert _headline(summary) == {"summary/problems": 25, "summary/hard_accuracy/majority": 0.5}
