"""Who a package is: from its `service.json`, what the caller says, or the file's name.

The rule it guards: a name and a version are one path component each and agree wherever they are
given. The manifest is kept as it is; only what the hub uses is checked here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hub.errors import BadRequest
from protocol.archive_rules import NAME_PATTERN, valid_name

MANIFEST_LIMIT_BYTES = 256 * 1024
_FILE_NAME = re.compile(r"(?P<name>.+?)-v?(?P<version>[0-9][^/]*)\.(?:tar\.gz|tgz|zip)", re.I)


class ServiceManifest(msgspec.Struct, frozen=True):
    """The fields of `service.json` that the hub uses; others are kept unread."""

    name: str | None = None
    version: str | None = None
    description: Annotated[str, Meta(max_length=4096)] = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A package's name, version and description."""

    name: str
    version: str
    description: str


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Read `service.json`.

    Raises:
        BadRequest: It is no JSON object, or one of the fields the hub uses has the wrong type.
    """
    try:
        document: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        msgspec.convert(document, ServiceManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"service.json in the archive is not valid: {error}") from error
    return document


def identify(
    manifest: dict[str, Any],
    *,
    name: str | None,
    version: str | None,
    description: str | None,
    filename: str,
) -> Identity:
    """Decide what a package is called.

    Raises:
        BadRequest: A name or version is missing, not well-formed, or given twice differently.
    """
    own = msgspec.convert(manifest, ServiceManifest)
    from_file = _FILE_NAME.fullmatch(filename.replace("\\", "/").rpartition("/")[2])
    fallback = from_file.groupdict() if from_file else {}
    return Identity(
        name=_choose("name", own.name, name, fallback.get("name")),
        version=_choose("version", own.version, version, fallback.get("version")),
        description=(description or own.description)[:4096],
    )


def _choose(what: str, own: str | None, given: str | None, fallback: str | None) -> str:
    if own is not None and given is not None and own != given:
        raise BadRequest(
            f"service.json gives the {what} {own!r} and the request {given!r}: leave one out"
        )
    value = own if own is not None else given if given is not None else fallback
    if value is None:
        raise BadRequest(
            f"the package has no {what}: add a service.json to the archive, give the {what}, or "
            "call the file NAME-VERSION.tar.gz"
        )
    if not valid_name(value):
        raise BadRequest(f"the {what} {value[:200]!r} does not match {NAME_PATTERN}")
    return value
