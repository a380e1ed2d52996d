"""Tasks of music understanding, and your own recordings: probes on frozen features, metrics, statistics, reports."""

from .probing.results import load_results
from .probing.runner import evaluate
from .probing.settings import EvaluationSettings
from .reports.report import measurements, model_index, write_report
from .tasks import TASK_NAMES, Task, get_task
from .tasks.protocols import PROTOCOLS, Protocol, get_protocol

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
