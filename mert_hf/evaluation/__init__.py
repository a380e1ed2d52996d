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

__all__, __getattr__ = lazy_names(__name__)  # the command line's help needs settings and tasks, not torch
