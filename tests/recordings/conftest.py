"""Fixtures of the data tests."""

from __future__ import annotations

from ..hub.conftest import hub  # noqa: F401  a fixture
