"""What every page shares: phone width, languages, themes, the palette, a lost connection."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.mesh import Mesh

pytestmark = pytest.mark.browser

PAGES = [
    "nodes",
    "nodes/web-1",
    "nodes/web-1/terminal",
    "nodes/web-1/packages",
    "nodes/web-1/events",
    "groups",
    "run",
    "tasks",
    "sessions",
    "forwards",
    "forwards/links",
    "forwards/published",
    "packages",
    "deploy",
    "deployments",
    "users",
    "api-tokens",
    "join-tokens",
    "audit",
    "no-such-page",
]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_a_phone(phone: Page, url: str, path: str) -> None:
    phone.goto(f"{url}/{path}")
    expect(phone.locator("main")).not_to_be_empty()
    expect(phone.locator("[aria-busy=true]")).to_have_count(0)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_language_is_switched_and_kept(page: Page, url: str) -> None:
    page.goto(url)
    page.click("[data-language]")
    expect(page.get_by_role("heading", name="节点")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="节点")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")


def test_the_theme_is_there_before_the_first_paint(page: Page, url: str) -> None:
    page.goto(url)
    page.click("[data-theme]")
    expect(page.locator("html")).to_have_class("dark")
    page.route("**/assets/*.js", lambda route: route.abort())
    page.reload(wait_until="commit")
    expect(page.locator("html")).to_have_class("dark")


def test_the_palette_leads_to_a_terminal(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("[data-node=web-1]")).to_be_visible()
    page.keyboard.press("Control+k")
    page.keyboard.type("web-1 term")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{url}/nodes/web-1/terminal")


def test_a_user_and_a_token_are_made_and_removed(page: Page, url: str) -> None:
    page.goto(f"{url}/users")
    page.get_by_role("button", name="New user").click()
    page.fill("#user-name", "mei")
    page.fill("#user-password", "a long pass phrase")
    page.get_by_role("button", name="Create").click()
    row = page.get_by_role("row", name="mei")
    row.get_by_label("Delete user").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete user").click()
    expect(row).to_have_count(0)

    page.goto(f"{url}/api-tokens")
    page.get_by_role("button", name="New API token").click()
    page.fill("#token-name", "ci")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("dialog").locator("code")).not_to_be_empty()


def test_a_lost_connection_is_said_and_comes_back(page: Page, url: str, mesh: Mesh) -> None:
    page.goto(url)
    row = page.locator("[data-node=web-1]")
    expect(row).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    mesh.hub.stop()
    banner = page.get_by_text("The connection to the hub is lost")
    expect(banner).to_be_visible()
    mesh.start_hub()
    expect(banner).to_have_count(0, timeout=45_000)
    mesh.wait_status("web-1", "online", 60)
    expect(row).to_have_attribute("data-status", "online")
