"""The evaluation tasks, a file for each data set, their protocols and published figures."""

from typing import TYPE_CHECKING

from ...utils.imports import lazy_names

if TYPE_CHECKING:
    from .base import FRAME_KINDS, Task
    from .registry import FURTHER_TASK_NAMES, TASK_NAMES, get_task

_HOMES = {
    **dict.fromkeys(("FRAME_KINDS", "Task"), ".base"),
    **dict.fromkeys(("FURTHER_TASK_NAMES", "TASK_NAMES", "get_task"), ".registry"),
}

__all__ = ["FRAME_KINDS", "FURTHER_TASK_NAMES", "TASK_NAMES", "Task", "get_task"]

__getattr__ = lazy_names(__name__, _HOMES)  # protocols belong to the command line's options, which need no audio
