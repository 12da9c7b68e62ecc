"""How many connections a process may hold: each takes a file descriptor."""

from __future__ import annotations

import resource
import sys


def raise_descriptor_limit() -> int:
    """Let this process open as many files as its hard limit allows; returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard
