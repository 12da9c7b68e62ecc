"""Each route of the hub, described once: a function gives the call that asks for it.

`Client` and `AsyncClient` carry calls out. Names of nodes, tasks and so on are quoted here; a node
is given by name or id.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from mooring.sdk import models as m
from mooring.sdk.call import BASE, Call, Listing, Stream
from mooring.sdk.ways import Link, OpenForward, PublishedService


def _part(name: str) -> str:
    return quote(name, safe="")


def _node(name: str) -> str:
    return f"{BASE}/nodes/{_part(name.removeprefix('id:'))}"


# --- nodes and groups ---


def nodes(target: str | None = None) -> Listing[m.Node]:
    """List the nodes that match; also the preview of a target."""
    return Listing(f"{BASE}/nodes", m.Page[m.Node], {"target": target})


def node(name: str) -> Call[m.Node]:
    """Show one node."""
    return Call("GET", _node(name), m.Node)


def change_node(
    name: str,
    *,
    rename: str | None = None,
    labels: Mapping[str, str] | None = None,
    groups: list[str] | None = None,
) -> Call[m.Node]:
    """Change what is given; labels and groups are replaced as a whole."""
    wanted = {"name": rename, "labels": labels, "groups": groups}
    body = {key: value for key, value in wanted.items() if value is not None}
    return Call("PATCH", _node(name), m.Node, body=body)


def remove_node(name: str) -> Call[None]:
    """Revoke a node's certificates, cut its tunnel and forget it."""
    return Call("DELETE", _node(name), type(None))


def revoke_node(name: str, reason: str) -> Call[m.Node]:
    """Revoke a node's certificates and cut its tunnel; it stays in the list."""
    return Call("POST", f"{_node(name)}/revoke", m.Node, body={"reason": reason})


def node_events(name: str) -> Listing[m.Event]:
    """List what happened to a node, newest first."""
    return Listing(f"{_node(name)}/events", m.Page[m.Event])


def metrics(name: str, since_s: float = 3600) -> Call[m.History]:
    """Read a node's metrics of the last `since_s` seconds."""
    return Call("GET", f"{_node(name)}/metrics", m.History, {"since_s": since_s})


def groups() -> Listing[m.Group]:
    """List the groups."""
    return Listing(f"{BASE}/groups", m.Page[m.Group])


def create_group(name: str, description: str = "") -> Call[m.Group]:
    """Make an empty group."""
    body = {"name": name, "description": description}
    return Call("POST", f"{BASE}/groups", m.Group, body=body)


def delete_group(name: str) -> Call[None]:
    """Delete a group; its nodes stay."""
    return Call("DELETE", f"{BASE}/groups/{_part(name)}", type(None))


def add_to_group(group: str, node: str) -> Call[m.Group]:
    """Put a node into a group."""
    return Call("PUT", f"{BASE}/groups/{_part(group)}/nodes/{_part(node)}", m.Group)


def drop_from_group(group: str, node: str) -> Call[m.Group]:
    """Take a node out of a group."""
    return Call("DELETE", f"{BASE}/groups/{_part(group)}/nodes/{_part(node)}", m.Group)


# --- joining ---


def join_tokens() -> Listing[m.JoinToken]:
    """List the join tokens that still work."""
    return Listing(f"{BASE}/tokens", m.Page[m.JoinToken])


def create_join_token(
    uses: int = 1,
    ttl_s: float = 3600,
    groups: list[str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Call[m.JoinToken]:
    """Make a join token; the answer's `token` is shown this once."""
    body = {"uses": uses, "ttl_s": ttl_s, "groups": groups or [], "labels": labels or {}}
    return Call("POST", f"{BASE}/tokens", m.JoinToken, body=body)


def delete_join_token(token_id: str) -> Call[None]:
    """Make a join token useless."""
    return Call("DELETE", f"{BASE}/tokens/{_part(token_id)}", type(None))


# --- commands ---


def run(spec: m.TaskSpec) -> Call[m.Task]:
    """Run a command; the answer comes as soon as the task is stored."""
    return Call("POST", f"{BASE}/tasks", m.Task, body=spec)


def tasks() -> Listing[m.Task]:
    """List tasks, newest first."""
    return Listing(f"{BASE}/tasks", m.Page[m.Task])


def task(task_id: str) -> Call[m.Task]:
    """Show a task with its runs."""
    return Call("GET", f"{BASE}/tasks/{_part(task_id)}", m.Task)


def cancel_task(task_id: str) -> Call[m.Task]:
    """End what of a task still runs or waits."""
    return Call("POST", f"{BASE}/tasks/{_part(task_id)}/cancel", m.Task)


def task_stream(task_id: str) -> Stream[m.TaskEvent]:
    """Follow a task from its beginning to its end."""
    return Stream(f"{BASE}/tasks/{_part(task_id)}/stream", m.TaskEvent)


# --- packages and deployments ---


def packages(name: str | None = None) -> Listing[m.Package]:
    """List packages, or the versions of one."""
    path = f"{BASE}/packages" if name is None else f"{BASE}/packages/{_part(name)}"
    return Listing(path, m.Page[m.Package])


def package(name: str, version: str) -> Call[m.Package]:
    """Show one version of a package."""
    return Call("GET", f"{BASE}/packages/{_part(name)}/{_part(version)}", m.Package)


def push_package(
    filename: str,
    *,
    name: str | None = None,
    version: str | None = None,
    description: str | None = None,
) -> Call[m.Package]:
    """Describe an upload; `upload` carries it out with the bytes."""
    query = {"filename": filename, "name": name, "version": version, "description": description}
    return Call("POST", f"{BASE}/packages", m.Package, query)


def remove_package(name: str, version: str) -> Call[None]:
    """Remove one version of a package from the repository."""
    return Call("DELETE", f"{BASE}/packages/{_part(name)}/{_part(version)}", type(None))


def deploy(spec: m.DeploymentSpec) -> Call[m.Deployment]:
    """Bring a package to nodes; the answer comes as soon as the deployment is stored."""
    return Call("POST", f"{BASE}/deployments", m.Deployment, body=spec)


def deployments() -> Listing[m.Deployment]:
    """List deployments, newest first."""
    return Listing(f"{BASE}/deployments", m.Page[m.Deployment])


def deployment(deployment_id: str) -> Call[m.Deployment]:
    """Show a deployment with its nodes."""
    return Call("GET", f"{BASE}/deployments/{_part(deployment_id)}", m.Deployment)


def cancel_deployment(deployment_id: str) -> Call[m.Deployment]:
    """Stop a deployment: nodes it hasn't begun are left as they are."""
    return Call("POST", f"{BASE}/deployments/{_part(deployment_id)}/cancel", m.Deployment)


def deployment_stream(deployment_id: str) -> Stream[m.DeploymentEvent]:
    """Follow a deployment to its end."""
    return Stream(f"{BASE}/deployments/{_part(deployment_id)}/stream", m.DeploymentEvent)


# --- shells and forwards ---


def shell_sessions() -> Listing[m.ShellSession]:
    """List the shells, open ones and past ones."""
    return Listing(f"{BASE}/sessions", m.Page[m.ShellSession])


def kill_session(session_id: str) -> Call[None]:
    """End a shell."""
    return Call("DELETE", f"{BASE}/sessions/{_part(session_id)}", type(None))


def forwards() -> Listing[OpenForward]:
    """List what is being forwarded."""
    return Listing(f"{BASE}/forwards", m.Page[OpenForward])


def forward(forward_id: str) -> Call[OpenForward]:
    """Show one forward."""
    return Call("GET", f"{BASE}/forwards/{_part(forward_id)}", OpenForward)


def close_forward(forward_id: str) -> Call[None]:
    """End a forward and all its connections."""
    return Call("DELETE", f"{BASE}/forwards/{_part(forward_id)}", type(None))


def links() -> Listing[Link]:
    """List the links between nodes."""
    return Listing(f"{BASE}/links", m.Page[Link])


def link(name: str) -> Call[Link]:
    """Show one link."""
    return Call("GET", f"{BASE}/links/{_part(name)}", Link)


def create_link(
    name: str,
    *,
    from_node: str,
    port: int,
    to_node: str,
    to_port: int,
    bind: str = "127.0.0.1",
    host: str = "127.0.0.1",
) -> Call[Link]:
    """Listen on `bind`:`port` of one node and come out at `host`:`to_port` of the other."""
    body = {
        "name": name,
        "from_node": from_node,
        "bind": bind,
        "port": port,
        "to_node": to_node,
        "host": host,
        "to_port": to_port,
    }
    return Call("POST", f"{BASE}/links", Link, body=body)


def change_link(name: str, *, enabled: bool) -> Call[Link]:
    """Open a link's port, or close it."""
    return Call("PATCH", f"{BASE}/links/{_part(name)}", Link, body={"enabled": enabled})


def remove_link(name: str) -> Call[None]:
    """Close a link and forget it."""
    return Call("DELETE", f"{BASE}/links/{_part(name)}", type(None))


def published() -> Listing[PublishedService]:
    """List the published services."""
    return Listing(f"{BASE}/published", m.Page[PublishedService])


def published_service(name: str) -> Call[PublishedService]:
    """Show one published service."""
    return Call("GET", f"{BASE}/published/{_part(name)}", PublishedService)


def publish(
    name: str,
    *,
    node: str,
    port: int,
    host: str = "127.0.0.1",
    scheme: str = "http",
    verify: bool = False,
    host_name: str | None = None,
    keep_host: bool = False,
) -> Call[PublishedService]:
    """Show a node's HTTP service to everybody who is signed in and may forward."""
    body: dict[str, object] = {"name": name, "node": node, "host": host, "port": port}
    body |= {"scheme": scheme, "verify": verify, "host_name": host_name, "keep_host": keep_host}
    return Call("POST", f"{BASE}/published", PublishedService, body=body)


def withdraw(name: str) -> Call[None]:
    """Publish a service no longer; who uses it is cut off."""
    return Call("DELETE", f"{BASE}/published/{_part(name)}", type(None))


# --- access ---


def sign_in(username: str, password: str) -> Call[m.Session]:
    """Sign in by password; the cookie stays with the client."""
    body = {"username": username, "password": password}
    return Call("POST", f"{BASE}/session", m.Session, body=body)


def sign_out() -> Call[None]:
    """End the session that the cookie holds."""
    return Call("DELETE", f"{BASE}/session", type(None))


def users() -> Listing[m.User]:
    """List the users."""
    return Listing(f"{BASE}/users", m.Page[m.User])


def create_user(name: str, password: str, role: str) -> Call[m.User]:
    """Add a user."""
    body = {"name": name, "password": password, "role": role}
    return Call("POST", f"{BASE}/users", m.User, body=body)


def change_user(
    name: str,
    *,
    role: str | None = None,
    disabled: bool | None = None,
    password: str | None = None,
) -> Call[m.User]:
    """Change what is given."""
    wanted = {"role": role, "disabled": disabled, "password": password}
    body = {key: value for key, value in wanted.items() if value is not None}
    return Call("PATCH", f"{BASE}/users/{_part(name)}", m.User, body=body)


def delete_user(name: str) -> Call[None]:
    """Remove a user, with all sessions and tokens."""
    return Call("DELETE", f"{BASE}/users/{_part(name)}", type(None))


def api_tokens() -> Listing[m.ApiToken]:
    """List API tokens: one's own, for an administrator all."""
    return Listing(f"{BASE}/api-tokens", m.Page[m.ApiToken])


def create_api_token(name: str, role: str, ttl_s: float | None = None) -> Call[m.ApiToken]:
    """Make an API token; the answer's `token` is shown this once."""
    body: dict[str, object] = {"name": name, "role": role}
    if ttl_s is not None:
        body["ttl_s"] = ttl_s
    return Call("POST", f"{BASE}/api-tokens", m.ApiToken, body=body)


def delete_api_token(token_id: str) -> Call[None]:
    """Make an API token useless."""
    return Call("DELETE", f"{BASE}/api-tokens/{_part(token_id)}", type(None))


# --- the rest ---


def audit(subject: str | None = None, act: str | None = None) -> Listing[m.AuditEntry]:
    """List the audit log, newest first."""
    query = {"subject": subject, "act": act}
    return Listing(f"{BASE}/audit", m.Page[m.AuditEntry], query)


def about() -> Call[m.About]:
    """Ask what answers; needs no token."""
    return Call("GET", f"{BASE}/about", m.About)
