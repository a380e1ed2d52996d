"""The result of a check, and how to fix what it found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"
LISTED = 5  # names that are shown for each kind of fault


@dataclass(frozen=True)
class Finding:
    """One result of a check."""

    level: str  # "ok", "warning" (works, but not as one might expect) or "problem" (would fail)
    what: str  # that was found
    remedy: str = ""  # how to fix it; empty where nothing has to be done

    def __str__(self) -> str:
        text = f"[{self.level}] {self.what}"
        return f"{text}\n    -> {self.remedy}" if self.remedy else text


def has_problem(findings: Iterable[Finding]) -> bool:
    """Whether anything would fail: the exit status of `mert-hf doctor`."""
    return any(finding.level == PROBLEM for finding in findings)
