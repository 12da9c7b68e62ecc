"""Signing in and out, and what happens when a session ends by itself."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in

pytestmark = pytest.mark.browser


def test_a_wrong_password_is_refused_in_words(stranger: Page, url: str) -> None:
    stranger.goto(url)
    expect(stranger.locator("form [type=submit]")).to_have_count(1)
    stranger.fill("[name=username]", "nobody")
    stranger.fill("[name=password]", "wrong")
    stranger.click("[type=submit]")
    expect(stranger.get_by_role("alert")).to_contain_text("wrong")


def test_signing_in_leads_to_the_page_that_was_asked_for(
    stranger: Page, url: str, password: str
) -> None:
    stranger.goto(f"{url}/nodes/web-1/events")
    stranger.wait_for_url("**/sign-in?return=**")
    sign_in(stranger, password)
    expect(stranger).to_have_url(f"{url}/nodes/web-1/events")


def test_the_return_never_leads_to_another_host(stranger: Page, url: str, password: str) -> None:
    stranger.goto(f"{url}/sign-in?return=//example.org/")
    sign_in(stranger, password)
    expect(stranger).to_have_url(f"{url}/nodes")


def test_a_session_that_ended_asks_to_sign_in_and_goes_on(
    stranger: Page, url: str, password: str
) -> None:
    stranger.goto(url)
    sign_in(stranger, password)
    expect(stranger.locator("[data-node=web-1]")).to_be_visible()
    stranger.context.clear_cookies()
    stranger.get_by_role("link", name="Tasks").click()
    stranger.wait_for_url("**/sign-in?return=/tasks")
    sign_in(stranger, password)
    expect(stranger).to_have_url(f"{url}/tasks")


def test_signing_out_ends_the_session(stranger: Page, url: str, password: str) -> None:
    stranger.goto(url)
    sign_in(stranger, password)
    stranger.get_by_label("Your account").click()
    stranger.click("[data-sign-out]")
    stranger.wait_for_url("**/sign-in")
    stranger.goto(f"{url}/nodes")
    stranger.wait_for_url("**/sign-in")
