"""The evaluation tasks, a file for each data set, their protocols and published figures."""

from typing import TYPE_CHECKING

from ...utils.imports import lazy_names

if TYPE_CHECKING:
    from .base import FRAME_KINDS, Task
    from .registry import FURTHER_TASK_NAMES, TASK_NAMES, get_task

__all__, __getattr__ = lazy_names(__name__)  # protocols belong to the command line's options, which need no audio
