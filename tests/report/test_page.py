"""The page as a whole: self-contained, well-formed, accessible, harmless, repeatable."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.report.reading import change_json, read_data, read_page
from titer.report.build import build

EVIL = "<script>alert(1)</script>"


def test_nothing_is_loaded_from_elsewhere(master: Path) -> None:
    page = read_page(master)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed")
        assert not (tag == "script" and "src" in attributes)
        source = attributes.get("src") or attributes.get("srcset") or ""
        assert source == "" or source.startswith("data:image/png;base64,")
        assert tag != "a" or str(attributes["href"]).startswith("#")
    style = re.search(r"<style>(.*?)</style>", (master / "report.html").read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_the_page_is_well_formed_and_small(master: Path) -> None:
    page = read_page(master)
    assert page.unclosed == []
    assert (master / "report.html").stat().st_size < 5_000_000
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [str(a["href"])[1:] for tag, a in page.tags if tag == "a"]
    assert set(targets) <= set(ids)


def test_figures_tables_and_headings_are_accessible(master: Path) -> None:
    page = read_page(master)
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    assert all(a.get("aria-label") or a.get("aria-hidden") for tag, a in page.tags if tag == "svg")
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")
    names = [tag for tag, _ in page.tags]
    assert names.count("caption") == names.count("table")
    assert names.count("h1") == 1
    assert ("html", {"lang": "en"}) in page.tags


def test_what_users_write_is_escaped(copy: Any) -> None:
    folder = copy("single")

    def poison(manifest: dict[str, Any]) -> None:
        manifest["title"] = EVIL
        manifest["data"]["classes"][1] = EVIL
        manifest["defenses"][1]["title"] = f'{EVIL}" onload="alert(1)'
        manifest["attacks"][0]["title"] = EVIL

    change_json(folder / "manifest.json", poison)
    change_json(
        folder / "sanity.json", lambda c: [one.update(message=EVIL, result="fail") for one in c["checks"]] and None
    )
    (folder / "plan.toml").write_text(f"</pre>{EVIL}")
    build(folder)
    page = read_page(folder)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert EVIL in page.sections["summary"]
    assert not any("onload" in attributes for _, attributes in page.tags)


def test_two_builds_are_the_same_bytes(copy: Any) -> None:
    folder = copy("image")
    before = [(folder / name).read_bytes() for name in ("report.html", "report.json")]
    assert build(folder) == folder / "report.html"
    assert [(folder / name).read_bytes() for name in ("report.html", "report.json")] == before
    assert not list(folder.glob(".*.tmp"))


def test_torch_is_never_imported_and_matplotlib_only_to_draw(masters: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from titer.report.build import build;"
        "heavy = ('torch', 'titer.stats', 'titer.assess', 'matplotlib.pyplot', 'matplotlib');"
        "print([name for name in heavy if name in sys.modules]);"
        "build(Path(sys.argv[1])); print([name for name in heavy if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(masters["image"])], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines() == ["[]", "['matplotlib']"]


@pytest.mark.parametrize("name", ["image", "table", "single", "brain", "age", "findings"])
def test_every_number_may_be_missing(copy: Any, name: str) -> None:
    folder = copy(name)

    def empty(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: empty(item) for key, item in value.items()}
        if isinstance(value, list):
            return [empty(item) for item in value]
        return None if isinstance(value, (int, float)) else value

    for table in ("statistics", "costs"):
        change_json(folder / f"{table}.json", lambda content: empty(content) | {"format_version": 1})
    build(folder)
    data, page = read_data(folder), read_page(folder)
    assert not any(row["mark"] for row in data["defenses"])
    assert "no result" in page.sections["summary"]
    text = " ".join(page.sections.values())
    assert "nan" not in re.findall(r"[a-z]+", text.lower())
    assert "None" not in re.findall(r"\w+", text)


def test_panels_show_images_or_features(masters: dict[str, Path]) -> None:
    image, table = read_page(masters["image"]), read_page(masters["table"])
    assert sum(tag == "img" for tag, _ in image.tags) % 3 == 0
    assert "of the colour channels the one that changes most" in image.sections["examples"]
    assert "magnified" not in table.sections["examples"]
    assert "change (SD)" in table.sections["examples"]
    assert "TSH, mIU/L" in table.sections["examples"]
