"""The 14 tasks of music understanding, and your own recordings: probes on frozen features, metrics, reports."""

from .report import load_results, measurements, model_index, write_report
from .runner import EvaluationSettings, evaluate
from .tasks import TASK_NAMES, Task, get_task

__all__ = [
    "TASK_NAMES",
    "EvaluationSettings",
    "Task",
    "evaluate",
    "get_task",
    "load_results",
    "measurements",
    "model_index",
    "write_report",
]
