"""A real browser at the guard's pages: on the two screens that they are made for, with real images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import Connection, insert, update
from tests.guard.web import seed

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.store.tables import reviews, verdicts

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
DESKTOP, TABLET = {"width": 1366, "height": 768}, {"width": 768, "height": 1024}
SHOTS = os.environ.get("TITER_SCREENSHOTS")
"""Folder that screenshots are kept in, for the documentation."""
PALE = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => v <= 10.3148 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const lum = (c) => { const [r, g, b] = c.map(linear); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (e) => { for (let at = e; at; at = at.parentElement) {
    const c = rgb(getComputedStyle(at).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c.slice(0, 3); } return [255, 255, 255]; };
  const said = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll('body *')].filter((e) => said(e) && e.getClientRects().length).map((e) => {
    const style = getComputedStyle(e);
    const color = rgb(e.namespaceURI.endsWith('svg') ? style.fill : style.color).slice(0, 3);
    const [low, high] = [lum(color), lum(ground(e))].sort((a, b) => a - b);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    return [(high + .05) / (low + .05), large ? 3 : 4.5, e.textContent.trim().slice(0, 40)];
  }).filter(([found, wanted]) => found < wanted); }"""
"""Finds the words of a page whose contrast, as painted, is below WCAG 2.2 AA (1.4.3)."""
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Chromium is not installed"),
    pytest.mark.filterwarnings("ignore:There is no current event loop"),
]


class Judge:
    """Decides as the judge does for the rows that the pages show; heat maps are of a pattern for each method."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mapped: list[tuple[str, int]] = []
        """Method and slice of each heat map that was asked for."""
        self.trouble = ""

    def decide(self, context: Context, number: int, account: str, _role: str, action: str, comment: str, label: Any):
        def write(connection: Connection) -> None:
            row = connection.execute(verdicts.select().where(verdicts.c.id == number)).one()
            before = connection.execute(reviews.select().where(reviews.c.verdict_id == number)).all()
            if any(one.account == account for one in before) and action != "comment":
                raise SpecError(f"{account} said so already: what was blocked needs a second person")
            given = {"account": account, "action": action, "comment": comment, "label": label, "at": context.clock()}
            connection.execute(insert(reviews).values(verdict_id=number, **given))
            if action != "comment" and (row.outcome != "BLOCK" or before):
                connection.execute(update(verdicts).where(verdicts.c.id == number).values(state=f"{action}ed"))

        context.journal.write(write)

    def heatmap(self, _context: Context, _number: int, index: int, method: str = "gradcam") -> Path:
        from PIL import Image

        self.mapped.append((method, index))
        if self.trouble:
            raise SpecError(self.trouble)
        y, x = np.mgrid[-1:1:96j, -1:1:96j]
        heat = np.exp(-(((x - 0.2) ** 2) + (y + 0.15) ** 2) / 0.06)
        heat = np.kron(heat[::14, ::14], np.ones((14, 14)))[:96, :96] if method == "shap" else heat
        color = np.stack([255 * heat, 140 * heat**2, 30 * (1 - heat), 230 * heat], axis=-1)
        path = self.folder / f"heat-{method}-{index}.png"
        Image.fromarray(color.astype(np.uint8), "RGBA").save(path)
        return path


def seed_pixels(data: Path) -> np.ndarray:
    import io

    import pydicom

    return pydicom.dcmread(io.BytesIO(seed.mr_files(data, 2)[0])).pixel_array.astype(np.int16)


def login(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}/login")
    page.fill("#name", name)
    page.fill("#password", seed.PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/queue" if name != "ada" else "**/dashboard")


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"guard-{name}.png"))


def shown(page: Page, after: str | None = None) -> str:
    """Wait until the viewer has drawn something else than `after`, and return what it says it drew."""
    page.wait_for_function("(after) => { const now = document.getElementById('viewer').dataset.shown;"
                           " return now && now !== after; }", arg=after)  # fmt: skip
    return str(page.evaluate("document.getElementById('viewer').dataset.shown"))


def pixels(page: Page, pane: str) -> list[int]:
    return list(page.evaluate(
        "(id) => { const c = document.getElementById(id);"
        " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 97 === 0); }",
        pane,
    ))  # fmt: skip


def fits(page: Page) -> None:
    """Nothing runs out of the screen at its side."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def opened(browser: Browser, size: dict[str, int]) -> tuple[Page, list[str]]:
    """Return a page and the list of what its scripts complain about."""
    page, wrong = browser.new_context(viewport=size, reduced_motion="reduce").new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
    return page, wrong
