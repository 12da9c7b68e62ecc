"""What a hub's first start leaves for its operator: an administrator, and a token on the host.

The rule it guards: secrets reach the disk in files of mode 0600 that are whole or absent, and
before the database says they exist, so that a crash leaves nobody locked out.

    await create_admin(accounts, state_dir)
    token = await operator_token(accounts, state_dir)
    write_operator_env(state_dir, url, token, ca_path)
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from certs.private_files import write_private
from hub.accounts.accounts import Accounts
from hub.accounts.secrets import new_secret
from hub.authz import Role, Subject, Verb, allows
from hub.errors import HubError, NotSignedIn

ADMIN = "admin"
TOKEN_NAME = "operator.env"  # noqa: S105 - the token's name


async def create_admin(accounts: Accounts, state_dir: Path) -> bool:
    """Make the user `admin` with a random password in `admin-password`, when there is no user.

    Returns:
        Whether it was made now.
    """
    if await accounts.users.all():
        return False
    password = new_secret()[:24]
    write_private(state_dir / "admin-password", f"{password}\n".encode())
    await accounts.users.create(ADMIN, password, Role.ADMIN)
    return True


async def operator_token(accounts: Accounts, state_dir: Path) -> str:
    """Return the local administrator's API token: the one in `operator.env`, else a new one.

    Raises:
        HubError: no administrator is left to own it.
    """
    present = _token_in(state_dir / "operator.env")
    if present is not None:
        try:
            subject = await accounts.tokens.verify(present, "")
        except NotSignedIn:
            present = None
        else:
            if allows(subject, Verb.ADMIN):
                return present
    users = [
        user for user in await accounts.users.all() if user.role == Role.ADMIN and not user.disabled
    ]
    if not users:
        raise HubError("there is no active administrator for operator.env")
    owner = await accounts.users.find(min(users, key=lambda user: user.created_at).name)
    await _remove_former(accounts, Subject(owner.name, Role.ADMIN, owner.id, "token", ""))
    new = await accounts.tokens.create(owner.id, owner.name, TOKEN_NAME, Role.ADMIN)
    return new.secret


def write_operator_env(state_dir: Path, url: str, token: str, ca: Path | None) -> Path:
    """Write `operator.env`, to be sourced by a shell on the hub's host; return its path.

    Without a CA the system's are trusted: the pages have a certificate of the operator's own.
    """
    lines = {"MOORING_URL": url, "MOORING_TOKEN": token, "MOORING_CA": str(ca or "")}
    text = "".join(
        f"export {name}={value and shlex.quote(value)}\n" for name, value in lines.items()
    )
    path = state_dir / "operator.env"
    write_private(path, text.encode())
    return path


def _token_in(path: Path) -> str | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"^export MOORING_TOKEN=(\S+)$", text, re.MULTILINE)
    return found[1].strip("'\"") if found else None


async def _remove_former(accounts: Accounts, subject: Subject) -> None:
    """Remove the tokens of lost or foreign operator.env files, so that they do not pile up."""
    for token in await accounts.tokens.visible_to(subject):
        if token.name == TOKEN_NAME and token.user == subject.name:
            await accounts.tokens.remove(subject, token.id)
