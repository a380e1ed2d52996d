"""Whole recordings, parts of them, and streams at another rate."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
from sounds import FORMATS, sweep, write, write_format

from mert_hf.audio import AudioReadError, find_audio_files, read_audio, stream_audio
from mert_hf.audio.windows import resample_stream


def reference(path, rate: int) -> np.ndarray:
    """The whole file, decoded and resampled at once."""
    samples, own_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), own_rate, rate)


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("name", FORMATS)
def test_stream_equals_decoding_and_resampling_at_once(tmp_path, name, rate):
    path = write_format(tmp_path, name)
    samples = read_audio(path, rate)
    assert samples.dtype == np.float32
    assert samples.shape == (4 * rate,)
    np.testing.assert_allclose(samples, reference(path, rate), atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_part_equals_the_same_samples_of_the_whole(tmp_path, name):
    path = write_format(tmp_path, name)
    whole = read_audio(path, 24000)
    for offset, duration in ((0.0, 1.0), (1.23456, 0.7), (3.5, 2.0), (2.0, None)):
        stop = None if duration is None else round((offset + duration) * 24000)
        part = read_audio(path, 24000, offset, duration)
        np.testing.assert_allclose(part, whole[round(offset * 24000) : stop], atol=2e-6)


def test_neighboring_intervals_tile_the_recording(tmp_path):
    path = write_format(tmp_path, "d.flac")
    step = 1 / 3
    parts = [read_audio(path, 24000, index * step, step) for index in range(12)]
    np.testing.assert_allclose(np.concatenate(parts), read_audio(path, 24000), atol=2e-6)


@pytest.mark.parametrize("num_samples", [1, 7, 4409, 44101, 100_003])
@pytest.mark.parametrize("rates", [(44100, 24000), (8000, 24000), (48000, 16000), (44101, 24000)])
def test_resampled_stream_has_the_length_of_the_whole(num_samples, rates):
    samples = np.random.default_rng(0).standard_normal(num_samples).astype(np.float32)
    blocks = [samples[start : start + 1000] for start in range(0, num_samples, 1000)]
    joined = np.concatenate(list(resample_stream(blocks, *rates)))
    whole = soxr.resample(samples, *rates)
    assert joined.shape == whole.shape
    np.testing.assert_allclose(joined, whole, atol=1e-5)


def test_samples_beyond_full_scale_are_kept(tmp_path):
    path = write(tmp_path / "loud.wav", 3 * sweep(1.0, 24000, channels=1), 24000, subtype="FLOAT")
    assert np.abs(read_audio(path, 24000)).max() > 1.0


def test_memory_does_not_grow_with_the_recording(tmp_path):
    path = write(tmp_path / "long.wav", np.tile(sweep(10.0, 44100), (12, 1)), 44100)
    tracemalloc.start()
    count = sum(len(block) for block in stream_audio(path, 24000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 120 * 24000
    assert peak < 4e6  # the recording has 11.5 MB at the new rate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_rate": 0}, "sampling_rate=0 must be a positive whole number"),
        ({"sampling_rate": 24000.5}, "sampling_rate=24000.5 must be"),
        ({"offset": -1.0}, "offset=-1.0 must be a number of seconds"),
        ({"offset": np.nan}, "offset=nan must be"),
        ({"duration": 0.0}, "duration=0.0 must be a positive number"),
        ({"duration": np.inf}, "duration=inf must be"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    path = write_format(tmp_path, "a.wav")
    with pytest.raises(ValueError, match=message):
        read_audio(path, **{"sampling_rate": 24000, **arguments})


def test_offset_past_the_end(tmp_path):
    path = write_format(tmp_path, "a.wav")
    with pytest.raises(AudioReadError, match="offset=4.0 s lies at or past its end"):
        read_audio(path, 24000, offset=4.0)


def test_users_recordings_agree_with_a_whole_decode(audio_dir):
    files = [path for path in find_audio_files(audio_dir) if path.parent.name != "damaged"]
    assert len({path.suffix for path in files}) == 5
    for path in files:
        whole = reference(path, 24000)
        np.testing.assert_allclose(read_audio(path, 24000), whole, atol=1e-6)
        np.testing.assert_allclose(read_audio(path, 24000, 1.7, 1.0), whole[40800:64800], atol=2e-6)
