"""Commands, packages and deployments from their forms to their results."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_equal_outputs_are_shown_once(page: Page, url: str) -> None:
    page.goto(f"{url}/run?target=web-*")
    expect(page.get_by_text("2 nodes")).to_be_visible()
    page.fill("[name=command]", "echo out; echo err >&2; exit 4")
    page.click("[data-run]")
    page.wait_for_url("**/tasks/*")
    card = page.locator("[data-nodes='web-1 web-2']")
    expect(card).to_contain_text("2 nodes: same")
    expect(card).to_contain_text("exit 4")
    expect(card.locator(".stdout")).to_have_text("out\n")
    expect(card.locator(".stderr")).to_have_text("err\n")


def test_different_outputs_are_shown_apart(page: Page, url: str) -> None:
    page.goto(f"{url}/run?target=web-*")
    page.fill("[name=command]", "pwd; cat")
    page.get_by_role("button", name="User, directory, input").click()
    page.fill("#cwd", "/tmp")
    page.fill("#stdin", "ünï")
    page.click("[data-run]")
    expect(page.locator("[data-nodes='web-1 web-2'] .stdout")).to_have_text("/tmp\nünï")


def test_a_running_command_is_stopped(page: Page, url: str) -> None:
    page.goto(f"{url}/run?target=web-1")
    page.fill("[name=command]", "echo begun; sleep 300")
    page.click("[data-run]")
    expect(page.locator("[data-nodes=web-1]")).to_contain_text("begun")
    page.click("[data-cancel]")
    expect(page.locator("[data-nodes=web-1] [data-state=cancelled]")).to_be_visible()
    page.get_by_role("button", name="Run again").click()
    expect(page.locator("[name=command]")).to_have_value("echo begun; sleep 300")


def test_a_target_that_is_wrong_says_where(page: Page, url: str) -> None:
    page.goto(f"{url}/run?target=web-1 or")
    expect(page.get_by_text("column")).to_be_visible()


def make_package(path: Path) -> Path:
    manifest = json.dumps({"name": "hello", "version": "1.2.0", "description": "says hello"})
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("service.json")
        member.size = len(manifest)
        archive.addfile(member, io.BytesIO(manifest.encode()))
    return path


def test_a_package_is_uploaded_deployed_and_removed(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/packages")
    page.set_input_files("[name=package]", make_package(tmp_path / "hello-1.2.0.tar.gz"))
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("link", name="hello").click()
    expect(page.get_by_text("1.2.0", exact=True)).to_be_visible()

    page.get_by_role("button", name="Deploy").click()
    page.fill("[name=target]", "web-*")
    page.click("[data-deploy]")
    page.wait_for_url("**/deployments/*")
    for node in ("web-1", "web-2"):
        row = page.locator(f"[data-deploy-node={node}]")
        # A release is flushed with the whole file system: others' writes take their time.
        expect(row.locator("[data-state=succeeded]")).to_be_visible(timeout=60_000)

    page.goto(f"{url}/nodes/web-1/packages")
    page.get_by_role("row", name="hello").get_by_role("button", name="Uninstall").click()
    page.click("[data-deploy]")
    expect(page.locator("[data-deploy-node=web-1] [data-state=succeeded]")).to_be_visible()
    page.goto(f"{url}/nodes/web-1/packages")
    expect(page.get_by_text("Nothing installed by Mooring")).to_be_visible()
