"""Read a report as its reader does: as text, and as a tree of tags."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Reader(HTMLParser):
    """Collects every tag with its attributes, every id, and the text of each section."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.unclosed: list[str] = []
        self._section = ""
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = str(dict(attrs)["id"])
        if tag not in ("meta", "br", "img"):
            self.unclosed.append(tag)
        self._silent += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed.pop() == tag
        self._silent -= tag in ("style", "script")
        self._section = "" if tag == "section" else self._section

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.sections[self._section] = self.sections.get(self._section, "") + data


def read_page(folder: Path) -> Reader:
    reader = Reader()
    reader.feed((folder / "report.html").read_text())
    reader.close()
    return reader


def read_data(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return data


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))
