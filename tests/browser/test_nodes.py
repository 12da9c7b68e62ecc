"""Nodes as people see them: rows that follow the truth, filters, charts, joining, groups."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.mesh import Mesh

pytestmark = pytest.mark.browser


def test_each_node_has_a_row_with_its_state(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("[data-node=web-1]")).to_have_attribute("data-status", "online")
    expect(page.locator("[data-node=web-2]")).to_have_attribute("data-status", "online")


def test_a_row_follows_its_node_without_a_reload(page: Page, url: str, mesh: Mesh) -> None:
    page.goto(url)
    row = page.locator("[data-node=web-2]")
    expect(row).to_have_attribute("data-status", "online")
    mesh.agents["web-2"].stop()
    expect(row).to_have_attribute("data-status", "offline")
    mesh.start_agent("web-2")
    expect(row).to_have_attribute("data-status", "online")


def test_the_filter_takes_a_part_of_a_name_and_expressions(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("[data-node]").first).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("b-1")
    expect(page.locator("[data-node]")).to_have_count(1)
    page.locator("[data-filter]").fill("not web-1")
    expect(page.locator("[data-node=web-1]")).to_have_count(0)
    expect(page.locator("[data-node=web-2]")).to_be_visible()


def test_a_wrong_expression_shows_where_it_is_wrong(page: Page, url: str) -> None:
    page.goto(f"{url}/nodes?filter=web-1 and and")
    expect(page.get_by_role("alert")).to_contain_text("column")
    expect(page.get_by_role("alert").locator("pre")).to_contain_text("^")


def test_a_node_page_draws_its_charts_live(page: Page, url: str) -> None:
    page.goto(f"{url}/nodes/web-1")
    expect(page.locator("[data-chart=cpu] .uplot canvas")).to_be_visible()
    expect(page.locator("[data-chart=network] .uplot")).to_be_attached()
    legend = page.locator("[data-chart=cpu] .legend")
    before = legend.inner_text()
    expect(legend).not_to_have_text(before, use_inner_text=True)


def test_a_node_joins_and_turns_green(page: Page, url: str, mesh: Mesh) -> None:
    page.goto(url)
    page.click("[data-add-node]")
    page.get_by_role("button", name="Create the line").click()
    line = page.get_by_role("dialog").locator("code")
    expect(line).to_contain_text("moor1.")
    token = re.search(r"moor1\.[\w-]+", line.inner_text())
    assert token is not None
    mesh.join("new-1", token=token[0])
    joined = page.get_by_role("dialog").locator("li", has_text="new-1")
    expect(joined).to_be_visible()
    agent = mesh.start_agent("new-1")
    expect(joined).to_have_class(re.compile("online"))
    page.get_by_role("button", name="Done").click()
    expect(page.locator("[data-node=new-1]")).to_have_attribute("data-status", "online")
    agent.stop()
    page.goto(f"{url}/nodes/new-1")
    page.get_by_label("More actions").click()
    page.get_by_role("menuitem", name="Remove node").click()
    page.get_by_role("button", name="Remove node").click()
    page.wait_for_url("**/nodes")
    expect(page.locator("[data-node=new-1]")).to_have_count(0)


def test_a_group_is_made_filled_and_deleted(page: Page, url: str) -> None:
    page.goto(f"{url}/groups")
    page.get_by_role("button", name="New group").click()
    page.fill("#group-name", "front")
    page.get_by_role("button", name="Create").click()
    card = page.locator("[data-group=front]")
    card.get_by_label("Add a node…").click()
    page.get_by_role("option", name="web-1").click()
    expect(card.get_by_role("link", name="web-1")).to_be_visible()
    card.get_by_role("link", name="front").click()
    expect(page.locator("[data-node]")).to_have_count(1)
    page.goto(f"{url}/groups")
    card.get_by_label("Delete group").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete group").click()
    expect(card).to_have_count(0)
