"""Serve an `install` stream: install, update or uninstall one package.

The rule it guards: whatever goes wrong, the package stays at the release it had; only an answer
that is stored is given, and a repeated deployment gets the stored one. A manifest's hooks and
command are not run here: an installation places files.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from edge_agent.packages.disk import NodeRefused, in_thread
from edge_agent.packages.outcomes import Outcome
from edge_agent.packages.releases import Release, new_release
from edge_agent.packages.room import PackageRoom
from edge_agent.packages.watch import while_open
from edge_agent.policy import Refused
from protocol.aio import Channel, ResetCode, Stream
from protocol.archive_rules import ArchiveFormat, ArchiveRefused, valid_name
from protocol.messages import Install
from protocol.record_types import Accepted, Installed, InstallFromNode, Progress

_log = logging.getLogger(__name__)
_Hub = Channel[InstallFromNode, Accepted]


class _Unmet(Exception):
    """The deployment asks for what this node's packages don't allow; an outcome that is stored."""


async def handle_install(opening: Install, stream: Stream, room: PackageRoom) -> None:
    """Carry out one deployment on this node."""
    hub: _Hub = Channel(stream, Accepted)
    try:
        room.policy.current().allow_deploy()
        _check(opening)
        async with while_open(hub), room.turn("install", opening.package):
            outcome = await _once(opening, hub, room)
    except (NodeRefused, Refused, OSError) as error:
        _log.warning("deployment %s refused: %s", opening.deployment, error)
        hub.reset(ResetCode.REFUSED, str(error))
        return
    packages = await asyncio.to_thread(room.installed)
    await hub.send(
        Installed(
            ok=outcome.ok, changed=outcome.changed, error=outcome.error[:4096], packages=packages
        )
    )
    hub.finish()


def _check(opening: Install) -> None:
    if not valid_name(opening.package):
        raise NodeRefused(f"{opening.package!r} is no name of a package")
    if opening.action == "uninstall":
        return
    if not valid_name(opening.version):
        raise NodeRefused(f"{opening.version!r} is no version of a package")
    if opening.digest is None:
        raise NodeRefused("an installation needs the artifact's digest")


async def _once(opening: Install, hub: _Hub, room: PackageRoom) -> Outcome:
    stored = await asyncio.to_thread(room.outcomes.find, opening.deployment)
    if stored is not None:
        return stored
    try:
        changed = await _carry_out(opening, hub, room)
        outcome = Outcome(ok=True, changed=changed)
    except (ArchiveRefused, OSError, _Unmet) as error:
        outcome = Outcome(ok=False, error=str(error))
    await in_thread(lambda _: room.outcomes.store(opening.deployment, outcome))
    _log.info(
        "%s %s %s: %s", opening.action, opening.package, opening.version, outcome.error or "done"
    )
    return outcome


async def _carry_out(opening: Install, hub: _Hub, room: PackageRoom) -> bool:
    """Do it and say whether anything changed.

    Raises:
        ArchiveRefused, OSError, _Unmet: It failed; the package is as it was.
        NodeRefused: It could not be tried.
    """
    if opening.action == "uninstall":
        await hub.send(Progress(stage="remove"))
        return await in_thread(lambda _: room.releases.remove(opening.package))
    assert opening.digest is not None, "checked before"
    release = new_release(opening.version, opening.digest, opening.deployment)
    before = await asyncio.to_thread(room.releases.current, opening.package)
    if before is None and opening.action == "update":
        raise _Unmet(f"{opening.package} is not installed on this node: use install")
    if before is not None and (before.version, before.digest) == (release.version, release.digest):
        return before.deployment == opening.deployment  # ours, cut short before it was answered
    await _install(opening, release, hub, room)
    return True


async def _install(opening: Install, release: Release, hub: _Hub, room: PackageRoom) -> None:
    archive = room.cache.find(release.digest)
    if archive is None:
        raise NodeRefused("the artifact is not in the node's cache: transfer it first")
    if await asyncio.to_thread(room.releases.is_full):
        raise _Unmet("too many packages are installed on this node: uninstall some")
    name, archive_format = opening.package, cast("ArchiveFormat", opening.format)
    await hub.send(Progress(stage="unpack"))
    directory = await in_thread(
        lambda stop: room.releases.unpack(name, release, archive, archive_format, stop)
    )
    await hub.send(Progress(stage="switch"))
    await in_thread(lambda _: room.releases.switch(name, directory, release))
    await hub.send(Progress(stage="cleanup"))
    try:
        await in_thread(lambda _: room.releases.clean(name))
    except OSError:
        _log.warning("old releases of %s could not be removed", name, exc_info=True)
