"""The pages for people: links have a target, and the README stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README_LINES = 150
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in _anchors(target), f"{page.name}: {link}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    linked = set(_LINK.findall(text))
    assert {str(page.relative_to(ROOT)) for page in PAGES[1:]} <= linked


def test_files_that_pages_name_are_there() -> None:
    """File names such as `e2h_pipeline/...py` in the text of a page."""
    for page in PAGES:
        if page.name in ("log.md", "results.md"):  # dated records: files as they were then
            continue
        for name in re.findall(
            r"`((?:e2h_pipeline|assets|resources|tests|deploy|scripts)/[\w./-]+\.\w+)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
