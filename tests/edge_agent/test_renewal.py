"""Renewal over a real tunnel in memory; the other end is a CA that answers what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from certs.authority import Authority
from certs.keys import make_key_and_csr
from edge_agent import renewal
from edge_agent.config import AgentConfig, save_config
from edge_agent.renewal import (
    LOOK_EVERY_S,
    RETRY_S,
    RenewalFailed,
    due,
    due_at,
    keep_renewed,
    load_leaf,
    renew,
)
from edge_agent.state import StateDir, StateError
from protocol.aio import Channel, ResetCode, Stream, StreamReset, memory_pair
from protocol.messages import Message, Open, Renew
from protocol.record_types import Certificate

WEEK = 7 * 86400.0
Answer = Callable[[bytes], Certificate | None]


@dataclass
class Node:
    authority: Authority
    state: StateDir
    config: AgentConfig

    async def renew(self, answer: Answer) -> float:
        async def handle(opened: Open, stream: Stream) -> None:
            assert isinstance(opened, Renew)
            reply = answer(opened.csr_pem)
            channel: Channel[Certificate, Message] = Channel(stream, Message)
            if reply is not None:
                await channel.send(reply)
            channel.finish()

        outcome: float | Exception
        async with memory_pair(accepted_handler=handle) as (agent, _):
            try:
                outcome = await renew(agent, self.state, self.config, time.time())
            except (RenewalFailed, StateError) as error:
                outcome = error  # raised outside, where the tunnel's TaskGroup can't wrap it
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def issue(self, csr_pem: bytes, node_id: str | None = None) -> Certificate:
        issued = self.authority.issue_node(csr_pem, node_id or self.config.node_id, time.time())
        return Certificate(certificate_pem=issued.chain_pem, trust_pem=self.authority.trust_pem)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    authority = Authority.open(tmp_path / "ca", time.time())
    state, node_id = StateDir(tmp_path / "agent"), str(uuid.uuid4())
    state.prepare()
    key, csr = make_key_and_csr()
    old = authority.issue_node(csr, node_id, time.time() - 4 * 86400)
    state.write(state.key, key)
    state.write(state.certificate, old.chain_pem)
    state.write(state.trust, authority.root_pem)
    config = AgentConfig(
        node_id=node_id, mesh_id=authority.mesh_id, name="web", hubs=["https://hub.example"]
    )
    return Node(authority, state, config)


def test_it_is_due_about_half_life_and_not_for_all_at_once(node: Node) -> None:
    leaf = load_leaf(node.state)
    start = leaf.not_valid_before_utc.timestamp()
    lifetime = leaf.not_valid_after_utc.timestamp() - start
    assert 0.45 <= (due_at(leaf) - start) / lifetime <= 0.55
    assert due_at(leaf) == due_at(load_leaf(node.state))
    assert not due(leaf, due_at(leaf) - 1)
    assert due(leaf, due_at(leaf))
    others = {due_at(_leaf_of(node, node.issue(make_key_and_csr()[1]))) for _ in range(10)}
    assert len(others) == 10


def _leaf_of(node: Node, certificate: Certificate) -> x509.Certificate:
    node.state.write(node.state.certificate, certificate.certificate_pem)
    return load_leaf(node.state)


async def test_the_new_certificate_replaces_the_old_and_the_key_stays(node: Node) -> None:
    key, old = node.state.key.read_bytes(), node.state.certificate.read_bytes()
    until = await node.renew(node.issue)
    assert abs(until - time.time() - WEEK) < 60
    assert node.state.key.read_bytes() == key
    assert node.state.certificate.read_bytes() != old
    assert node.state.certificate.stat().st_mode & 0o777 == 0o600
    assert not due(load_leaf(node.state), time.time())


async def test_a_wrong_certificate_never_replaces_the_one_that_works(
    node: Node, tmp_path: Path
) -> None:
    stranger = Authority.open(tmp_path / "other", time.time())
    ours = node.authority.trust_pem

    def of_another_ca(csr: bytes) -> Certificate:
        issued = stranger.issue_node(csr, node.config.node_id, time.time())
        return Certificate(certificate_pem=issued.chain_pem, trust_pem=ours)

    def with_another_trust(csr: bytes) -> Certificate:
        issued = stranger.issue_node(csr, node.config.node_id, time.time())
        return Certificate(certificate_pem=issued.chain_pem, trust_pem=stranger.trust_pem)

    def expired(csr: bytes) -> Certificate:
        issued = node.authority.issue_node(csr, node.config.node_id, time.time() - 2 * WEEK)
        return Certificate(certificate_pem=issued.chain_pem, trust_pem=ours)

    answers: list[tuple[Answer, str]] = [
        (lambda _: None, "nothing"),
        (of_another_ca, "not of this mesh"),
        (with_another_trust, "none of the roots"),
        (expired, "expired"),
        (lambda csr: node.issue(csr, str(uuid.uuid4())), "another node"),
        (lambda _: node.issue(make_key_and_csr()[1]), "another key"),
        (lambda _: Certificate(certificate_pem=b"x", trust_pem=ours), "two certificates"),
        (lambda csr: Certificate(certificate_pem=b"", trust_pem=b"x"), "can't be read"),
    ]
    files = [node.state.certificate, node.state.trust, node.state.key]
    before = [path.read_bytes() for path in files]
    for answer, problem in answers:
        with pytest.raises(RenewalFailed, match=problem):
            await node.renew(answer)
        assert [path.read_bytes() for path in files] == before


async def test_a_bundle_with_a_second_root_is_taken_over(node: Node, tmp_path: Path) -> None:
    coming = Authority.open(tmp_path / "coming", time.time())

    def answer(csr: bytes) -> Certificate:
        issued = node.issue(csr)
        return Certificate(
            certificate_pem=issued.certificate_pem,
            trust_pem=node.authority.trust_pem + coming.trust_pem,
        )

    await node.renew(answer)
    assert node.state.trust.read_bytes() == node.authority.root_pem + coming.root_pem


async def test_a_refusal_of_the_hub_is_passed_on(node: Node) -> None:
    async def refuse(_: Open, stream: Stream) -> None:
        stream.reset(ResetCode.REFUSED, "revoked")

    async with memory_pair(accepted_handler=refuse) as (agent, _):
        with pytest.raises(StreamReset, match="revoked"):
            await renew(agent, node.state, node.config, time.time())


async def test_a_hub_that_never_answers_is_given_up(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "ANSWER_WITHIN_S", 0.05)
    ended = asyncio.Event()

    async def stall(_: Open, stream: Stream) -> None:
        with contextlib.suppress(StreamReset):
            await stream.read()
        ended.set()

    async with memory_pair(accepted_handler=stall) as (agent, _):
        with pytest.raises(RenewalFailed, match="did not answer"):
            await renew(agent, node.state, node.config, time.time())
        await ended.wait()
        assert agent.stream_count == 0


async def test_a_lost_key_is_named(node: Node) -> None:
    node.state.key.unlink()
    with pytest.raises(StateError, match="join again"):
        await node.renew(node.issue)


async def test_it_renews_when_due_and_tries_again_after_a_failure(node: Node) -> None:
    save_config(node.state, node.config)
    sleeps: list[float] = []
    rested = asyncio.Event()
    answers = iter([node.issue(make_key_and_csr()[1]), None])

    async def handle(opened: Open, stream: Stream) -> None:
        assert isinstance(opened, Renew)
        channel: Channel[Certificate, Message] = Channel(stream, Message)
        await channel.send(next(answers) or node.issue(opened.csr_pem))
        channel.finish()

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 2:
            rested.set()
            await asyncio.Event().wait()

    async with (
        memory_pair(accepted_handler=handle) as (agent, _),
        asyncio.TaskGroup() as tasks,
    ):
        keeping = tasks.create_task(keep_renewed(agent, node.state, sleep=sleep))
        async with asyncio.timeout(10):
            await rested.wait()
        keeping.cancel()
    assert sleeps == [RETRY_S, LOOK_EVERY_S]
    assert not due(load_leaf(node.state), time.time())
