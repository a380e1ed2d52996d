"""A hang in a fuzz test ends the run with a traceback, also where it is in compiled code."""

from __future__ import annotations

import faulthandler

import pytest

LONGEST = 1200  # seconds of one test


@pytest.fixture(autouse=True)
def no_hang():
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
