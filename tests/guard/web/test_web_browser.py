"""The pages in a real browser: by keyboard, on the two screens that they are made for, with real images."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import Connection, insert, update
from tests.guard.web import seed

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.store.tables import reviews, verdicts
from titer.guard.web.app import make_app
from titer.guard.web.component import Web

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
DESKTOP, TABLET = {"width": 1366, "height": 768}, {"width": 820, "height": 1180}
SHOTS = os.environ.get("TITER_SCREENSHOTS")
"""Folder that screenshots are kept in, for the documentation."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Chromium is not installed"),
    pytest.mark.filterwarnings("ignore:There is no current event loop"),
]


class Judge:
    """Decides as the judge does for the rows that the pages show; heat maps are of the seed's pattern."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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

    def heatmap(self, _context: Context, _number: int, index: int) -> Path:
        from PIL import Image

        y, x = np.mgrid[-1:1:96j, -1:1:96j]
        heat = np.exp(-(((x - 0.2) ** 2) + (y + 0.15) ** 2) / 0.06)
        color = np.stack([255 * heat, 140 * heat**2, 30 * (1 - heat), 230 * heat], axis=-1)
        path = self.folder / f"heat-{index}.png"
        Image.fromarray(color.astype(np.uint8), "RGBA").save(path)
        return path


@pytest.fixture
def address(context: Context, tmp_path: Path) -> Iterator[str]:
    judge = Judge(tmp_path)
    listener = socket.create_server(("127.0.0.1", 0))
    app = make_app(context, decide=judge.decide, heatmap=judge.heatmap)
    web = Web(context, app=app, listener=listener)
    context.parts.append(web)
    web.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    web.stop()
    listener.close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def cases(context: Context, titer_data: Path) -> list[int]:
    """A head MR series that is flagged, one that is blocked, and chest X-rays."""
    for name, role in (("anna", "radiologist"), ("bert", "radiologist"), ("ada", "admin")):
        seed.person(context, name, role)
    now = context.clock()
    seed.history(context)
    drift = ("saliency-drift", "FLAG", "The model looks elsewhere than on clean images of this route.")
    squeezed = ("feature-squeezing", "FLAG", "The answer changes when the image is squeezed: 0.89 to 0.21.")
    moved = ("series-order", "BLOCK", "Slice positions are not evenly spaced: one slice was moved or taken out.")
    mr = seed.mr_files(titer_data, 24)
    first = seed.put(context, mr, urgency=9, at=now - 1900, found=[squeezed, drift])
    xray = {"result": {"classes": ["normal", "pneumonia"], "probabilities": [0.31, 0.69], "label": "pneumonia"}}
    rest = [
        seed.put(context, [seed.xray_file(titer_data, i)], urgency=5 - i, at=now - 400 * i, found=[drift], **xray)
        for i in range(1, 4)
    ]
    blocked = seed.image_file(seed_pixels(titer_data), "MR")
    rest.append(seed.put(context, [blocked], urgency=7, at=now - 90, outcome="BLOCK", found=[moved], scores={}))
    return [first, *rest]


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


def test_a_radiologist_works_by_keyboard_from_login_to_logout(address: str, browser: Browser, cases: list[int]) -> None:
    page, wrong = opened(browser, DESKTOP)
    login(page, address, "anna")
    fits(page)
    shot(page, "queue")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/cases/{cases[0]}")
    at = shown(page)
    fits(page)
    for pane in ("original", "sanitized", "heatmap", "difference"):
        assert len(set(pixels(page, pane))) > 20, f"{pane} shows nothing"
    before = pixels(page, "original")
    page.keyboard.press("End")
    at = shown(page, at)
    assert at.startswith("23/")
    assert pixels(page, "original") != before
    page.hover("#original")
    page.mouse.wheel(0, -100)
    at = shown(page, at)
    assert at.startswith("22/")
    before = pixels(page, "original")
    page.mouse.down()
    page.mouse.move(500, 400, steps=4)
    page.mouse.up()
    at = shown(page, at)
    assert pixels(page, "original") != before
    page.keyboard.press("0")
    page.keyboard.press("Home")
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    page.wait_for_function("() => document.getElementById('viewer').dataset.shown.startsWith('12/')")
    page.wait_for_timeout(300)
    shot(page, "viewer")
    page.keyboard.press("a")
    assert page.evaluate("document.activeElement.id") == "confirm"
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: f"/cases/{cases[0]}" not in url)
    page.goto(f"{address}/queue")
    assert page.locator(f'a[href="/cases/{cases[0]}"]').count() == 0
    page.click("text=Log out")
    page.wait_for_url("**/login")
    page.goto(f"{address}/queue")
    assert page.url.endswith("/login")
    assert wrong == []


def test_a_blocked_case_needs_a_second_person(address: str, browser: Browser, cases: list[int]) -> None:
    page, wrong = opened(browser, DESKTOP)
    login(page, address, "anna")
    where = f"{address}/cases/{cases[-1]}"
    page.goto(where)
    assert "two people have to agree" in page.inner_text("#second")
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    page.goto(where)
    assert "You were the first person" in page.inner_text("#second")
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    assert "needs a second person" in page.inner_text("[role=alert]")
    other, _ = opened(browser, DESKTOP)
    login(other, address, "bert")
    other.goto(where)
    assert "anna agreed first" in other.inner_text("#second")
    other.keyboard.press("a")
    other.keyboard.press("Enter")
    other.wait_for_timeout(300)
    other.goto(where)
    assert "accepted" in other.inner_text("h1")
    assert wrong == []


def test_the_pages_fit_a_tablet_and_are_touched(address: str, browser: Browser, cases: list[int]) -> None:
    page, wrong = opened(browser, TABLET)
    login(page, address, "anna")
    fits(page)
    shot(page, "queue-tablet")
    page.goto(f"{address}/cases/{cases[0]}")
    at = shown(page)
    fits(page)
    shot(page, "viewer-tablet")
    page.dblclick("#original")
    page.fill("#slice", "20")
    assert shown(page, at).startswith("19/")
    page.goto(f"{address}/cases/{cases[1]}")
    shown(page)
    shot(page, "viewer-xray-tablet")
    assert wrong == []


def test_the_dashboard_on_both_screens(address: str, browser: Browser, cases: list[int]) -> None:
    assert cases
    for size, name in ((DESKTOP, "dashboard"), (TABLET, "dashboard-tablet")):
        page, wrong = opened(browser, size)
        login(page, address, "ada")
        fits(page)
        shot(page, name)
        assert page.locator("svg.chart").count() == 4
        assert wrong == []
    page.click("text=Switch off >> nth=1")
    page.wait_for_url("**/dashboard")
    assert "by ada" in page.inner_text(".layers")


def test_names_labels_and_landmarks_are_there_for_those_who_do_not_see(
    address: str, browser: Browser, cases: list[int]
) -> None:
    page, _ = opened(browser, DESKTOP)
    page.goto(f"{address}/login")
    check = """() => [...document.querySelectorAll('input:not([type=hidden]),select,textarea,button,canvas,svg[role]')]
        .filter((e) => !(e.labels?.length || e.ariaLabel || e.innerText?.trim())).map((e) => e.outerHTML)"""
    assert page.evaluate(check) == []
    login(page, address, "anna")
    for where in ("/queue", f"/cases/{cases[0]}", "/dashboard", "/account"):
        page.goto(f"{address}{where}")
        assert page.evaluate(check) == [], where
        assert [page.locator(one).count() for one in ("main", "h1", "header", "nav[aria-label=Pages]")] == [1] * 4
        assert page.evaluate("document.documentElement.lang") == "en"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", where
