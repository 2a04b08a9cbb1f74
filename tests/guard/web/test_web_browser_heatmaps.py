"""Heat maps in a real browser: Grad-CAM or SHAP, chosen by keyboard, asked for once and only of a slice at rest."""

from __future__ import annotations

from playwright.sync_api import Browser, Page
from tests.guard.web.browsing import DESKTOP, MARKS, Judge, fits, login, opened, pixels, shot

pytestmark = MARKS
SCROLL = """async (times) => { for (let i = 0; i < times; i++) {
  document.getElementById('viewer').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown', bubbles: true }));
  await new Promise((done) => setTimeout(done, 60)); } }"""
"""Turns slices at the pace of a held key, by the clock of the page itself."""


def _mapped(page: Page, what: str) -> None:
    """Wait until the pane shows the heat map of a method and slice."""
    page.wait_for_function("(what) => document.getElementById('viewer').dataset.heat === what", arg=what)


def _tab_to(page: Page, name: str) -> None:
    for _ in range(40):
        if page.evaluate("document.activeElement.id") == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no Tab reaches {name}")


def test_the_other_heat_map_is_chosen_by_keyboard_and_asked_for_once(
    address: str, browser: Browser, cases: list[int], judge: Judge
) -> None:
    page, wrong = opened(browser, DESKTOP)
    login(page, address, "anna")
    page.goto(f"{address}/cases/{cases[0]}")
    _mapped(page, "gradcam/0")
    assert page.inner_text("#note-heatmap") == "Grad-CAM"
    assert all(method == "gradcam" for method, _ in judge.mapped), "nobody asked for SHAP yet"
    gradcam = pixels(page, "heatmap")
    _tab_to(page, "method")
    assert page.get_by_role("combobox", name="Heat map").evaluate("(e) => e === document.activeElement")
    page.keyboard.press("ArrowDown")
    _mapped(page, "shap/0")
    assert page.inner_text("#note-heatmap") == "SHAP"
    assert pixels(page, "heatmap") != gradcam
    fits(page)
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    _mapped(page, "gradcam/0")
    assert pixels(page, "heatmap") == gradcam
    page.keyboard.press("h")
    _mapped(page, "shap/0")
    assert judge.mapped == [("gradcam", 0), ("shap", 0)], "each map is fetched once"
    assert wrong == []


def test_slices_that_are_scrolled_past_ask_for_no_shap(
    address: str, browser: Browser, cases: list[int], judge: Judge
) -> None:
    page, wrong = opened(browser, DESKTOP)
    login(page, address, "anna")
    page.goto(f"{address}/cases/{cases[0]}")
    _mapped(page, "gradcam/0")
    page.select_option("#method", "shap")
    _mapped(page, "shap/0")
    page.evaluate(SCROLL, 12)
    _mapped(page, "shap/12")
    page.wait_for_timeout(300)
    shot(page, "viewer-shap")
    asked = [index for method, index in judge.mapped if method == "shap"]
    assert asked[0] == 0
    assert asked[-1] == 12
    assert len(asked) < 6, "what is passed in a moment is not asked for"
    assert wrong == []


def test_a_map_that_cannot_be_made_says_why_and_is_asked_for_again_when_it_is_chosen_again(
    address: str, browser: Browser, cases: list[int], judge: Judge
) -> None:
    page, wrong = opened(browser, DESKTOP)
    login(page, address, "anna")
    page.goto(f"{address}/cases/{cases[0]}")
    _mapped(page, "gradcam/0")
    judge.trouble = "captum is not installed"
    page.select_option("#method", "shap")
    page.wait_for_function("() => document.getElementById('note-heatmap').textContent.includes('not installed')")
    assert page.inner_text("#note-heatmap") == "SHAP: captum is not installed"
    page.select_option("#method", "gradcam")
    _mapped(page, "gradcam/0")
    judge.trouble = ""
    page.select_option("#method", "shap")
    _mapped(page, "shap/0")
    assert wrong == []
