"""`create_app`: the HTTP application over a hub's services; nothing happens at import.

The rule it guards: every route of the hub is listed here, has a guard, and answers errors as
problem documents with the security headers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions.base_exceptions import LitestarDeprecationWarning
from litestar.types import ControllerRouterHandler

from hub.api import pages
from hub.api.api_tokens import ApiTokensController
from hub.api.audit import AuditController
from hub.api.deployments import DeploymentsController
from hub.api.events import EventsController
from hub.api.forwards import ForwardsController
from hub.api.groups import GroupsController
from hub.api.guards import provide_subject
from hub.api.headers import SecurityHeaders
from hub.api.health import AboutController, HealthController, hub_version
from hub.api.install import InstallController
from hub.api.join import JoinController
from hub.api.links import LinksController
from hub.api.metrics import node_metrics
from hub.api.nodes import NodesController
from hub.api.packages import PackagesController
from hub.api.problems import EXCEPTION_HANDLERS, log_socket_fault
from hub.api.published import PublishedController, enter_published
from hub.api.schema import openapi_config
from hub.api.session import SessionController
from hub.api.shells import ShellsController
from hub.api.tasks import TasksController
from hub.api.tickets import TicketsController
from hub.api.tokens import TokensController
from hub.api.users import UsersController
from hub.core import Hub
from hub.live.live import live_socket
from hub.live.shell import shell_socket
from hub.published import Sites
from hub.published.asgi import App

BODY_LIMIT_BYTES = 2 * 1024 * 1024

API: tuple[ControllerRouterHandler, ...] = (
    AboutController,
    ApiTokensController,
    AuditController,
    DeploymentsController,
    EventsController,
    ForwardsController,
    GroupsController,
    JoinController,
    LinksController,
    NodesController,
    PackagesController,
    PublishedController,
    SessionController,
    ShellsController,
    TasksController,
    TicketsController,
    TokensController,
    UsersController,
    live_socket,
    node_metrics,
    shell_socket,
)
ROOT: tuple[ControllerRouterHandler, ...] = (HealthController, InstallController, enter_published)


def create_site(hub: Hub) -> App:
    """Make the application with the published services before it, as it is served."""
    return Sites(cast("App", create_app(hub)), hub.published)


def create_app(hub: Hub, *, static: Path = pages.STATIC) -> Litestar:
    """Make the application; `static` is the folder of the built UI."""

    def provide_hub() -> Hub:
        return hub

    with warnings.catch_warnings():
        # Parameters by plain annotation are Litestar 2's common style; 3 is excluded by our pins.
        warnings.simplefilter("ignore", LitestarDeprecationWarning)
        return _litestar(hub, static, provide_hub)


def _litestar(hub: Hub, static: Path, provide_hub: Callable[[], Hub]) -> Litestar:
    return Litestar(
        route_handlers=[
            Router("/api/v1", route_handlers=API),
            *ROOT,
            *pages.page_routes(static),
        ],
        dependencies={
            "hub": Provide(provide_hub, sync_to_thread=False),
            "subject": Provide(provide_subject),
        },
        # What we hand over ourselves needs no validation: it would take the services apart.
        signature_namespace={"Hub": Any, "Subject": Any},
        state=State({"hub": hub}),
        exception_handlers=EXCEPTION_HANDLERS,
        after_exception=[log_socket_fault],
        before_send=[SecurityHeaders(hub.accounts.origins, hub.telemetry)],
        openapi_config=openapi_config(hub_version()),
        request_max_body_size=BODY_LIMIT_BYTES,
        logging_config=None,
    )
