"""The pages in a real browser: by keyboard, on the two screens that they are made for, with real images."""

from __future__ import annotations

from playwright.sync_api import Browser
from sqlalchemy import update
from tests.guard.web.browsing import DESKTOP, MARKS, PALE, TABLET, fits, login, opened, pixels, shot, shown

from titer.guard.context import Context
from titer.guard.store.tables import outbox

pytestmark = MARKS


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
    box = page.locator("#original").bounding_box()
    assert box is not None
    assert box["y"] >= 0, "the images stay in view while one decides"
    shot(page, "viewer-decision")
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


def test_the_outbox_on_both_screens(address: str, browser: Browser, context: Context, cases: list[int]) -> None:
    assert cases
    gone = update(outbox).where(outbox.c.id % 20 == 0)
    why = "given up after 12 tries: the peer rejected the association: Calling AE title not recognised"
    context.journal.write(lambda c: c.execute(gone.values(state="dead", attempts=12, last_error=why)))
    for size, name in ((DESKTOP, "outbox"), (TABLET, "outbox-tablet")):
        page, wrong = opened(browser, size)
        login(page, address, "ada")
        page.goto(f"{address}/outbox")
        fits(page)
        lines = page.evaluate("[...document.querySelectorAll('code')].map((e) => e.getClientRects().length)")
        assert 0 < max(lines) <= 4, "a UID is not broken into bits"
        assert page.evaluate("[...document.querySelectorAll('.scroll')].every((e) => e.scrollWidth <= e.clientWidth)")
        assert page.evaluate(PALE) == []
        shot(page, name)
        assert wrong == []
    left = page.locator("text=Send again").count()
    page.click("text=Send again >> nth=0")
    page.wait_for_url("**/outbox")
    assert page.locator("text=Send again").count() == left - 1
    page.click(f"text=Send all {left - 1} again")
    page.wait_for_url("**/outbox")
    assert "Nothing was given up or withheld." in page.inner_text("main")


def test_names_labels_and_landmarks_are_there_for_those_who_do_not_see(
    address: str, browser: Browser, cases: list[int]
) -> None:
    page, _ = opened(browser, DESKTOP)
    page.goto(f"{address}/login")
    check = """() => [...document.querySelectorAll('input:not([type=hidden]),select,textarea,button,canvas,svg[role]')]
        .filter((e) => !(e.labels?.length || e.ariaLabel || e.innerText?.trim())).map((e) => e.outerHTML)"""
    assert page.evaluate(check) == []
    pages = {"anna": ("/queue", f"/cases/{cases[0]}", "/dashboard", "/account"), "ada": ("/outbox",)}
    for name, places in pages.items():
        page, _ = opened(browser, DESKTOP)
        login(page, address, name)
        for where in places:
            page.goto(f"{address}{where}")
            assert page.evaluate(check) == [], where
            assert [page.locator(one).count() for one in ("main", "h1", "header", "nav[aria-label=Pages]")] == [1] * 4
            assert page.evaluate("document.documentElement.lang") == "en"
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className") == "skip"
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", where


def test_every_word_has_the_contrast_of_wcag_aa_as_it_is_painted(
    address: str, browser: Browser, cases: list[int]
) -> None:
    page, _ = opened(browser, DESKTOP)
    page.goto(f"{address}/login")
    assert page.evaluate(PALE) == []
    mine, theirs = (
        ("/queue", *(f"/cases/{one}" for one in cases), "/account"),
        ("/dashboard", "/outbox", "/accounts", "/break-glass"),
    )
    pages = {"anna": mine, "ada": theirs}
    for name, places in pages.items():
        login(page, address, name)
        for where in places:
            page.goto(f"{address}{where}")
            assert page.evaluate(PALE) == [], where
        page.click("text=Log out")
        page.wait_for_url("**/login")
    page.evaluate("document.querySelector('h1').style.color = '#b0b0b0'")
    assert len(page.evaluate(PALE)) == 1, "the check sees what is pale"
