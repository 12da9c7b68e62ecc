"""`AgentConfig`: who this node is and where its hub is; `agent.json`, written when it joins."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from certs.tokens import HubUrl
from edge_agent.state import StateDir, StateError


class NotJoined(StateError):
    """The directory holds no identity."""

    def __init__(self, state: StateDir) -> None:
        super().__init__(state)
        self.state = state

    def __str__(self) -> str:
        return (
            f"{self.state.root} belongs to no hub yet: run "
            f"mooring agent join --hub URL --state-dir {self.state.root}"
        )


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What `agent.json` holds."""

    node_id: Annotated[str, Meta(pattern=r"\A[0-9a-f-]{36}\Z")]
    mesh_id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    name: Annotated[str, Meta(max_length=64)]
    """The name the hub gave; the hub may change it later."""
    hubs: Annotated[list[HubUrl], Meta(min_length=1, max_length=16)]
    """Addresses to try, in order."""
    proxy: Annotated[str, Meta(max_length=2048)] | None = None
    """A proxy's URL, `edge_agent.proxies.DIRECT`, or None for what the environment says."""


def load_config(state: StateDir) -> AgentConfig:
    """Read `agent.json`.

    Raises:
        NotJoined: there is none.
        StateError: it can't be read or isn't whole.
    """
    try:
        return msgspec.json.decode(state.config.read_bytes(), type=AgentConfig)
    except FileNotFoundError as error:
        raise NotJoined(state) from error
    except OSError as error:
        raise StateError(f"{state.config} can't be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(f"{state.config} is damaged: {error}") from error


def save_config(state: StateDir, config: AgentConfig) -> None:
    """Write `agent.json`.

    Raises:
        StateError: nothing was changed.
    """
    document = msgspec.json.format(msgspec.json.encode(config), indent=2)
    state.write(state.config, document + b"\n")
