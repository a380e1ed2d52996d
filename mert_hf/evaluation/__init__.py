"""Tasks of music understanding, and your own recordings: probes on frozen features, metrics, statistics, reports."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .probing.results import load_results
    from .probing.runner import evaluate
    from .probing.settings import EvaluationSettings
    from .reports.report import measurements, model_index, write_report
    from .tasks import TASK_NAMES, Task, get_task
    from .tasks.protocols import PROTOCOLS, Protocol, get_protocol

_HOMES = {
    **dict.fromkeys(("PROTOCOLS", "Protocol", "get_protocol"), ".tasks.protocols"),
    **dict.fromkeys(("TASK_NAMES", "Task", "get_task"), ".tasks"),
    **dict.fromkeys(("measurements", "model_index", "write_report"), ".reports.report"),
    "EvaluationSettings": ".probing.settings",
    "evaluate": ".probing.runner",
    "load_results": ".probing.results",
}

__all__ = [
    "PROTOCOLS",
    "TASK_NAMES",
    "EvaluationSettings",
    "Protocol",
    "Task",
    "evaluate",
    "get_protocol",
    "get_task",
    "load_results",
    "measurements",
    "model_index",
    "write_report",
]

__getattr__ = lazy_names(__name__, _HOMES)  # the command line's help needs settings and tasks, not torch
