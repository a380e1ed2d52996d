"""`--max-bad-files N|P%`."""

from __future__ import annotations

import pytest

from mert_hf.utils.tolerance import Tolerance


@pytest.mark.parametrize(
    "value, total, allowed",
    [(0, 10, 0), ("3", 10, 3), (3, 1, 3), ("1%", 250, 2), (" 0.5% ", 200, 1), ("100%", 7, 7), ("29%", 100, 29)],
)
def test_numbers_and_percentages(value, total, allowed):
    tolerance = Tolerance.parse(value)
    assert tolerance.allowed(total) == allowed and Tolerance.parse(tolerance) is tolerance
    assert str(tolerance) == str(value).strip()


@pytest.mark.parametrize("value", [-1, "-1", "1.5", "x", "", "101%", "-1%", "nan%", "%", None])
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match="give a number of files such as 3, or a percentage"):
        Tolerance.parse(value)
