"""Reads the documentation: pages, fenced blocks, sections, tables and links."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SAVED = re.compile(r"Save as `([\w.-]+)`:\s*\Z")
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """Return every page of the documentation."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


def page_name(page: Path) -> str:
    """Return how a page is called in test ids."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its line, and the file it is to be saved as."""

    language: str
    text: str
    line: int
    saved: str | None


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    content = page.read_text()
    found = []
    for match in _FENCE.finditer(content):
        saved = _SAVED.search(content[: match.start()])
        line = content.count("\n", 0, match.start()) + 1
        found.append(Block(match[1], match[2], line, saved[1] if saved else None))
    return found


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> Iterator[str]:
    """Yield every link of a page that leads to a file or a section."""
    for target in _LINK.findall(prose(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as a forge makes them."""
    headings = (title for _, title in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def section(page: Path, title: str) -> str:
    """Return what stands under a heading, up to the next heading of any level; empty where there is none."""
    parts = _HEADING.split(page.read_text())
    bodies = [body for name, body in zip(parts[2::3], parts[3::3], strict=True) if name.strip("`") == title]
    return "\n".join(bodies)


def rows(text: str) -> dict[str, list[str]]:
    """Return the table rows that begin with a name in backticks: the name to the other cells."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        name = re.fullmatch(r"\|? ?`([^`]+)`", cells[0])
        if line.startswith("| `") and name:
            found[name[1]] = cells[1:]
    return found


def default_text(value: Any) -> str:
    """Return a default as the tables show it: TOML in backticks, `required`, or a dash."""
    if value is ...:
        return "required"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def as_toml(text: str) -> dict[str, Any]:
    """Return a block's table."""
    return tomllib.loads(text)
