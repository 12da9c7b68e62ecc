"""Who follows a task: each follower has the set of runs that changed since he last looked.

The rule it guards: a follower costs one entry per run at most. What he missed he reads from the
kept output, so nothing is queued for him and a slow one holds no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from hub.errors import Unavailable

FOLLOWERS = 64
"""Per task."""


@dataclass(eq=False, slots=True)
class Follower:
    """The runs that changed, in the order of their first change, and a wake-up."""

    changed: dict[str, None]
    wake: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Feed:
    """The followers of one task."""

    followers: set[Follower] = field(default_factory=set)

    def check_room(self) -> None:
        """Refuse one follower more than there is room for.

        Raises:
            Unavailable: the task has 64 followers.
        """
        if len(self.followers) >= FOLLOWERS:
            raise Unavailable(f"{FOLLOWERS} readers follow this task already; try again later")

    def join(self, run_ids: Iterable[str]) -> Follower:
        """Add a follower for whom all of `run_ids` are new."""
        self.check_room()
        follower = Follower(dict.fromkeys(run_ids))
        self.followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """Forget a follower."""
        self.followers.discard(follower)

    def touch(self, run_id: str) -> None:
        """Tell all followers that a run changed."""
        for follower in self.followers:
            follower.changed[run_id] = None
            follower.wake.set()

    def close(self) -> None:
        """Wake all followers: the task has ended."""
        for follower in self.followers:
            follower.wake.set()
