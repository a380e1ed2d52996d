"""Windows: times, overlap, gaps, the last one."""

from __future__ import annotations

import numpy as np
import pytest
from sounds import write_format

from mert_hf.audio import cut_windows, read_audio, stream_windows


def times(num_samples: int, window: float, hop: float | None, block: int = 7) -> list[tuple[float, float]]:
    samples = np.arange(num_samples, dtype=np.float32)
    blocks = [samples[start : start + block] for start in range(0, num_samples, block)]
    found = list(cut_windows(blocks, 10, window, hop))
    for item in found:
        np.testing.assert_array_equal(item.samples, samples[round(item.start * 10) : round(item.end * 10)])
    return [(item.start, item.end) for item in found]


@pytest.mark.parametrize(
    ("num_samples", "window", "hop", "expected"),
    [
        (100, 5.0, None, [(0, 5), (5, 10)]),
        (101, 5.0, None, [(0, 5), (5, 10), (10, 10.1)]),
        (30, 5.0, None, [(0, 3)]),
        (100, 5.0, 2.5, [(0, 5), (2.5, 7.5), (5, 10)]),  # the last reaches the end, so no window of less follows
        (101, 5.0, 2.5, [(0, 5), (2.5, 7.5), (5, 10), (7.5, 10.1)]),
        (20, 5.0, 1.0, [(0, 2)]),
        (100, 2.0, 4.0, [(0, 2), (4, 6), (8, 10)]),
        (70, 2.0, 4.0, [(0, 2), (4, 6)]),  # the rest lies in the gap
        (85, 2.0, 4.0, [(0, 2), (4, 6), (8, 8.5)]),
    ],
)
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_times(num_samples, window, hop, expected, block):
    np.testing.assert_allclose(times(num_samples, window, hop, block), expected)


def test_whole_recording_as_one_window():
    blocks = [np.ones(30, np.float32), np.zeros(12, np.float32)]
    for length in (None, 1e308):
        (window,) = cut_windows(blocks, 10, length)
        assert (window.start, window.end, len(window.samples)) == (0.0, 4.2, 42)


def test_windows_of_a_file_equal_its_parts(tmp_path):
    path = write_format(tmp_path, "e.ogg")
    whole = read_audio(path, 24000)
    windows = list(stream_windows(path, 24000, 1.5, 1.0))
    assert [window.start for window in windows] == [0.0, 1.0, 2.0, 3.0]
    for window in windows:
        np.testing.assert_array_equal(window.samples, whole[round(window.start * 24000) : round(window.end * 24000)])


@pytest.mark.parametrize(
    ("window", "hop", "message"),
    [
        (0.0, None, "window=0.0 must be a number of seconds"),
        (5.0, 0.0, "hop=0.0 must be a number of seconds"),
        (5.0, 1e-9, "at least one sample"),
        (float("inf"), None, "window=inf must be"),
        (float("nan"), None, "window=nan must be"),
        ("5", None, "window='5' must be"),
        (None, 1.0, "hop=1.0 cannot be combined with window=None"),
    ],
)
def test_windows_out_of_range(tmp_path, window, hop, message):
    with pytest.raises(ValueError, match=message):
        stream_windows(tmp_path / "any.wav", 24000, window, hop)
