"""Accounts in a real browser: the first password, the QR code of a second factor, and the threat level."""

from __future__ import annotations

import io

import numpy as np
import pyotp
import segno
from PIL import Image
from playwright.sync_api import Browser, Page
from tests.guard.web import seed
from tests.guard.web.browsing import DESKTOP, MARKS, TABLET, fits, opened, shot

from titer.guard.context import Context
from titer.guard.operate import people
from titer.guard.web import passwords, sessions

pytestmark = MARKS
NEW = "a password of my own choice"


def enter(page: Page, address: str, name: str, password: str) -> None:
    page.goto(f"{address}/login")
    page.fill("#name", name)
    page.fill("#password", password)
    page.keyboard.press("Enter")


def modules(page: Page, side: int) -> np.ndarray:
    """The QR code as it is painted: one value a module, without the quiet zone, True where dark."""
    painted = Image.open(io.BytesIO(page.locator(".qr svg").screenshot())).convert("L")
    scale = painted.width / (side + 8)
    centres = [int((4 + i + 0.5) * scale) for i in range(side)]
    return np.asarray(painted)[np.ix_(centres, centres)] < 128


def test_a_first_password_is_changed_and_a_second_factor_scanned(
    address: str, browser: Browser, context: Context
) -> None:
    people.add(context, "ines", "radiologist", seed.PASSWORD)
    page, wrong = opened(browser, DESKTOP)
    enter(page, address, "ines", seed.PASSWORD)
    page.wait_for_url("**/account/password")
    page.goto(f"{address}/queue")
    assert page.url.endswith("/account/password")
    fits(page)
    shot(page, "first-password")
    page.fill("#old", seed.PASSWORD)
    page.fill("#new", NEW)
    page.keyboard.press("Enter")
    page.wait_for_url("**/queue")
    page.goto(f"{address}/account")
    page.click("button:text-is('Set up')")
    page.wait_for_selector(".qr svg")
    fits(page)
    shot(page, "second-factor")
    secret = page.inner_text("code.key")
    expected = segno.make_qr(passwords.totp_address(secret, "ines"), error="m")
    assert np.array_equal(modules(page, len(expected.matrix)), np.array(expected.matrix) == 1)
    page.fill("#code", pyotp.TOTP(secret).at(context.clock()))
    page.click("text=Finish")
    page.wait_for_selector("text=the second factor is set up")
    assert wrong == []


def test_an_admin_raises_the_threat_level_on_both_screens(address: str, browser: Browser, context: Context) -> None:
    seed.person(context, "ada", "admin")
    for size, level in ((DESKTOP, "raised"), (TABLET, "high")):
        page, wrong = opened(browser, size)
        enter(page, address, "ada", seed.PASSWORD)
        page.wait_for_url("**/dashboard")
        page.click(f"button[value={level}]")
        page.wait_for_selector(f"#level ~ p .tag:text-is('{level}')")
        assert "By ada" in page.inner_text("section[aria-labelledby=level]")
        fits(page)
        assert wrong == []


def test_the_dashboard_shows_who_raised_which_alert(address: str, browser: Browser, context: Context) -> None:
    for name, role in (("ada", "admin"), ("rita", "reviewer")):
        seed.person(context, name, role)
    seed.history(context, 40)
    page, wrong = opened(browser, DESKTOP)
    rita = sessions.Account(name="rita", role="reviewer")
    for _ in range(24):
        context.journal.write(lambda c: sessions.break_glass(c, rita, "nobody else is there", context.clock()))
    enter(page, address, "ada", seed.PASSWORD)
    page.wait_for_url("**/dashboard")
    assert page.locator("section[aria-labelledby=alerts] tbody tr").count() == 20
    assert "The newest 20 of 24" in page.inner_text("section[aria-labelledby=alerts]")
    fits(page)
    page.set_viewport_size({"width": 1366, "height": 1500})
    shot(page, "dashboard-alerts")
    assert wrong == []
