"""What this node serves: the table from the kinds a hub may open to their handlers.

The handlers ask the node's policy themselves, each for its verb; an unknown kind never gets here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from edge_agent.commands.run import handle_exec
from edge_agent.commands.runs import Runs
from edge_agent.forward import handle_forward
from edge_agent.listen import Listeners, OpenAtHub, handle_listen
from edge_agent.packages.install import handle_install
from edge_agent.packages.room import PackageRoom
from edge_agent.packages.transfer import handle_transfer
from edge_agent.policy import PolicyFile
from edge_agent.terminal import handle_pty
from protocol.aio import Handler, Stream
from protocol.messages import Exec, Forward, Install, Listen, Message, Open, Pty, Transfer

Serve: TypeAlias = Callable[[Any, Stream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Node:
    """What the handlers work with; lives as long as the agent, across tunnels."""

    policy: PolicyFile
    runs: Runs
    packages: PackageRoom
    listeners: Listeners


def handler_of(node: Node, open_at_hub: OpenAtHub) -> Handler:
    """The handler of every stream that the hub opens; `open_at_hub` opens one the other way."""
    table: dict[type[Message], Serve] = {
        Exec: partial(handle_exec, runs=node.runs, policy=node.policy),
        Pty: partial(handle_pty, policy=node.policy),
        Forward: partial(handle_forward, policy=node.policy),
        Listen: partial(handle_listen, listeners=node.listeners, open_at_hub=open_at_hub),
        Transfer: partial(handle_transfer, room=node.packages),
        Install: partial(handle_install, room=node.packages),
    }

    async def handle(opened: Open, stream: Stream) -> None:
        await table[type(opened)](opened, stream)

    return handle
