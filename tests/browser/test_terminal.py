"""The shell in the browser: keys, wide characters, size, floods, endings."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


@pytest.fixture
def terminal(page: Page, url: str) -> Page:
    page.goto(f"{url}/nodes/web-1/terminal")
    expect(page.locator("[data-terminal=open] .xterm")).to_be_visible()
    return page


def test_what_is_typed_runs(terminal: Page) -> None:
    terminal.keyboard.type("echo sum-$((40+2)) 中文\n")
    expect(terminal.locator(".xterm-rows")).to_contain_text("sum-42 中文")


def test_true_colours_are_drawn_under_the_policy(terminal: Page) -> None:
    terminal.keyboard.type(r"printf '\033[38;2;255;120;0mOR''ANGE\033[0m\n'" + "\n")
    word = terminal.locator(".xterm-rows span", has_text="ORANGE").last
    expect(word).to_have_css("color", "rgb(255, 120, 0)")


def test_the_shell_follows_the_size_of_the_window(terminal: Page) -> None:
    terminal.keyboard.type("echo cols=$(stty size | cut -d' ' -f2)=\n")
    rows = terminal.locator(".xterm-rows")
    expect(rows).to_contain_text("cols=1")
    terminal.set_viewport_size({"width": 700, "height": 700})
    terminal.locator(".xterm").click()
    terminal.keyboard.type("sleep 0.3; clear; echo new=$(stty size | cut -d' ' -f2)=\n")
    expect(rows).to_contain_text("new=8")


def test_ctrl_c_stops_a_flood(terminal: Page) -> None:
    terminal.keyboard.type("yes mooring\n")
    rows = terminal.locator(".xterm-rows")
    expect(rows).to_contain_text("mooring" * 3)
    terminal.keyboard.press("Control+c")
    terminal.keyboard.type("clear; echo calm-$((1+1))\n")
    expect(rows).to_contain_text("calm-2")


def test_a_shell_that_ended_can_be_opened_again(terminal: Page) -> None:
    terminal.keyboard.type("exit 3\n")
    expect(terminal.locator("[data-terminal=ended]")).to_contain_text("exit code 3")
    terminal.click("[data-reconnect]")
    expect(terminal.locator("[data-terminal=open]")).to_be_visible()
    terminal.keyboard.type("echo again-$((2+3))\n")
    expect(terminal.locator(".xterm-rows")).to_contain_text("again-5")


def test_an_open_shell_is_listed_and_can_be_ended(terminal: Page, url: str) -> None:
    other = terminal.context.new_page()
    other.goto(f"{url}/sessions")
    other.get_by_role("button", name="End shell").first.click()
    other.get_by_role("dialog").get_by_role("button", name="End shell").click()
    expect(terminal.locator("[data-terminal=ended]")).to_be_visible()


PASTE = """
const data = new DataTransfer()
data.setData('text/plain', 'first line\\nsecond line\\n')
const paste = new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true })
document.querySelector('.xterm-helper-textarea').dispatchEvent(paste)
"""


def test_pasting_lines_into_a_program_is_asked_about(terminal: Page) -> None:
    rows = terminal.locator(".xterm-rows")
    terminal.keyboard.type("echo rea''dy; cat\n")
    expect(rows).to_contain_text("ready")
    terminal.evaluate(PASTE)
    expect(terminal.get_by_role("dialog")).to_contain_text("2 lines")
    terminal.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(terminal.get_by_role("dialog")).to_be_hidden()
    terminal.evaluate(PASTE)
    terminal.get_by_role("dialog").get_by_role("button", name="Paste").click()
    expect(rows).to_contain_text("second line")


def test_the_output_can_be_searched(terminal: Page) -> None:
    terminal.keyboard.type("seq 1 500; echo found-$((1+1))\n")
    expect(terminal.locator(".xterm-rows")).to_contain_text("found-2")
    terminal.keyboard.press("Control+Shift+F")
    terminal.keyboard.type("137")
    expect(terminal.locator(".xterm-rows")).to_contain_text("137")
