"""Tasks: one command, run on many nodes; durable in the hub, started at most once on a node."""

from hub.tasks.service import Tasks
from hub.tasks.spec import TaskSpec
from hub.tasks.views import Run, Task

__all__ = ["Run", "Task", "TaskSpec", "Tasks"]
