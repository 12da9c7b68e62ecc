"""The pages in Debian's chromium, over a real hub with two real agents.

Every test's page fails the test when the browser reports a violation of the content security
policy, a script's error, or a request to another origin.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Request,
    StorageState,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.e2e.mesh import Mesh

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 360, "height": 740}
TIMEOUT_MS = 20_000.0
expect.set_options(timeout=TIMEOUT_MS)
REPORT_VIOLATIONS = """
document.addEventListener('securitypolicyviolation', (event) =>
  console.error('CSP', event.violatedDirective, event.blockedURI, event.sourceFile))
"""


@pytest.fixture(scope="package")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("pages"))
    try:
        made.add("web-1", "web-2")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="package")
def url(mesh: Mesh) -> str:
    return mesh.env["MOORING_URL"]


@pytest.fixture(scope="package")
def password(mesh: Mesh) -> str:
    return (mesh.state / "admin-password").read_text().strip()


# Not for the whole session: while playwright runs its loop, no other test could start one.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium, or set CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


def sign_in(page: Page, password: str, user: str = "admin") -> None:
    page.fill("[name=username]", user)
    page.fill("[name=password]", password)
    page.click("[type=submit]")
    page.wait_for_url(lambda address: "/sign-in" not in address)


@pytest.fixture(scope="package")
def cookies(browser: Browser, url: str, password: str) -> StorageState:
    """A signed-in administrator."""
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.goto(url)
    sign_in(page, password)
    state = context.storage_state()
    context.close()
    return state


class Watch:
    """What a page did that it should not have."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.faults: list[str] = []
        self.url = url
        context.add_init_script(REPORT_VIOLATIONS)
        context.on("request", self._request)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        context.on("console", lambda message: self._console(message.type, message.text))

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.faults.append(f"a request to {request.url}")

    def _console(self, kind: str, text: str) -> None:
        refused = kind == "error" and "Failed to load resource" not in text
        if refused or "Content Security Policy" in text:
            self.faults.append(text)


def _open(browser: Browser, url: str, state: StorageState | None, size: ViewportSize) -> Page:
    context = browser.new_context(
        ignore_https_errors=True, viewport=size, storage_state=state, locale="en-GB"
    )
    context.set_default_timeout(TIMEOUT_MS)
    return context.new_page()


@pytest.fixture
def page(browser: Browser, url: str, cookies: StorageState) -> Iterator[Page]:
    """A signed-in page of a desktop's size."""
    page = _open(browser, url, cookies, DESKTOP)
    watch = Watch(page.context, url)
    yield page
    page.context.close()
    assert watch.faults == []


@pytest.fixture
def phone(browser: Browser, url: str, cookies: StorageState) -> Iterator[Page]:
    """A signed-in page of a phone's size."""
    page = _open(browser, url, cookies, PHONE)
    watch = Watch(page.context, url)
    yield page
    page.context.close()
    assert watch.faults == []


@pytest.fixture
def stranger(browser: Browser, url: str) -> Iterator[Page]:
    """A page of somebody who is not signed in."""
    page = _open(browser, url, None, DESKTOP)
    watch = Watch(page.context, url)
    yield page
    page.context.close()
    assert watch.faults == []


@pytest.fixture
def visitor(browser: Browser, cookies: StorageState) -> Iterator[Page]:
    """A signed-in page that may complain and go elsewhere, as pages of nodes make it."""
    context = browser.new_context(ignore_https_errors=True, storage_state=cookies)
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()
