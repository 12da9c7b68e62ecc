"""What a step of the doctor found: one line, with what to do where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One step's outcome."""

    check: str
    status: Status
    detail: str
    advice: str = ""
    """What to do; empty when nothing is wrong."""
    hub: str | None = None
    """The address that the step was about."""


def ok(check: str, detail: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, "ok", detail)


def warning(check: str, detail: str, advice: str) -> Finding:
    """It works, but not for long or not everywhere."""
    return Finding(check, "warning", detail, advice)


def failed(check: str, detail: str, advice: str) -> Finding:
    """This keeps the agent from working."""
    return Finding(check, "failed", detail, advice)


def skipped(check: str, detail: str) -> Finding:
    """It could not be looked at, and why."""
    return Finding(check, "skipped", detail)
