"""`mert-hf doctor`: what is installed, what would go wrong, and the command that fixes it.

Each check returns findings; nothing is changed, downloaded or run out of a checkpoint.
"""

from __future__ import annotations

import os

from .data import check_data
from .findings import Finding, has_problem
from .installation import check_devices, check_fragile_packages, check_half_precision, check_packages
from .model import check_model

__all__ = ["Finding", "diagnose", "has_problem"]


def diagnose(model: str | os.PathLike | None = None, data: str | os.PathLike | None = None) -> list[Finding]:
    """Checks the installation, and a model and a data folder if given.

    Args:
        model: a checkpoint folder, a Hub id that was downloaded before, or a fairseq checkpoint.
        data: a folder of recordings, with or without `metadata.csv`.

    Returns:
        The findings, in the order of the checks.
    """
    findings = [*check_packages(), *check_fragile_packages(), *check_devices(), *check_half_precision()]
    rate = None
    if model is not None:
        model_findings, rate = check_model(model)
        findings += model_findings
    if data is not None:
        findings += check_data(data, rate)
    return findings
