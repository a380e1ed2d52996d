"""Tasks of music understanding, and your own recordings: probes on frozen features, metrics, statistics, reports."""

from .protocols import PROTOCOLS, Protocol, get_protocol
from .report import measurements, model_index, write_report
from .results import load_results
from .runner import evaluate
from .settings import EvaluationSettings
from .tasks import TASK_NAMES, Task, get_task

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
