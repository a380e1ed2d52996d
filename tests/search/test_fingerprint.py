"""Fingerprints: what leaves them alone, what changes them, and the alignment against a plain search."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import soxr
from sounds import melody

from mert_hf.search.duplicates import is_same
from mert_hf.search.fingerprint import BITS, Fingerprinter, agreement

RATE = 24000


def codes_of(samples: np.ndarray, block: int = 50_000) -> np.ndarray:
    fingerprinter = Fingerprinter(RATE)
    for start in range(0, len(samples), block):
        fingerprinter.add(samples[start : start + block])
    return fingerprinter.codes()


def plain_agreement(first: np.ndarray, second: np.ndarray, reach: int) -> tuple[float, int]:
    """Bit error rate and offset by trying every offset, bit by bit."""
    best = (1.0, 0)
    for shift in range(-reach, reach + 1):
        pairs = [
            (int(first[index + shift]), int(code))
            for index, code in enumerate(second)
            if 0 <= index + shift < len(first)
        ]
        heard = [(one, other) for one, other in pairs if one and other]
        if len(heard) >= min(len(first), len(second)) / 2:
            errors = sum(bin(one ^ other).count("1") for one, other in heard)
            best = min(best, (errors / BITS / len(heard), shift))
    return best


def through_codec(samples: np.ndarray, format: str, subtype: str) -> np.ndarray:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, 1, subtype, format=format) as sound:
        for start in range(0, len(samples), 4096):
            sound.write(samples[start : start + 4096])
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def test_blocks_do_not_matter():
    samples = melody(0)
    np.testing.assert_array_equal(codes_of(samples, 1000), codes_of(samples, len(samples)))
    assert len(codes_of(samples)) == 8 * 12 - 3 - 2  # frames of 0.5 s, compared at a distance of two
    assert len(codes_of(samples[:1000])) == 0


def test_gain_changes_nothing():
    found = agreement(codes_of(melody(0)), codes_of(0.25 * melody(0)), 5)
    assert found.bit_error_rate < 0.001 and found.uncovered < 0.3


@pytest.mark.parametrize("codec", [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_codecs_and_cuts_change_little(codec):
    samples = melody(1, 20.0)
    cut = through_codec(samples[round(3.21 * RATE) : -round(1.5 * RATE)], *codec)
    found = agreement(codes_of(samples), codes_of(cut), 10)
    assert is_same(found) and found.bit_error_rate < 0.25
    assert found.uncovered == pytest.approx(3.2, abs=0.3)


def test_resampling_and_silence_at_the_ends():
    samples = melody(2)
    low = soxr.resample(soxr.resample(samples, RATE, 16000), 16000, RATE)
    padded = np.pad(low, (4 * RATE, 3 * RATE)).astype(np.float32)
    assert is_same(agreement(codes_of(samples), codes_of(padded), 10))


def test_other_recordings_are_far():
    codes = [codes_of(melody(seed)) for seed in range(6)]
    found = [agreement(one, other, 10) for index, one in enumerate(codes) for other in codes[:index]]
    assert min(pair.bit_error_rate for pair in found) > 0.4
    assert not any(map(is_same, found))


def test_a_remix_that_shares_passages_is_another_recording():
    original, other = melody(3, 30.0), melody(4, 30.0)
    remix = original.copy()
    remix[12 * RATE : 20 * RATE] = other[12 * RATE : 20 * RATE]
    found = agreement(codes_of(original), codes_of(remix), 10)
    assert found.bit_error_rate < 0.2 and not is_same(found)


def test_a_long_cut_is_another_recording():
    samples = melody(5, 40.0)
    assert not is_same(agreement(codes_of(samples), codes_of(samples[15 * RATE :]), 24))


def test_silence_is_nothing():
    silence = codes_of(np.zeros(10 * RATE, np.float32))
    assert not silence.any()
    assert not is_same(agreement(silence, silence, 5))
    assert not is_same(agreement(silence[:0], codes_of(melody(0)), 5))


def test_alignment_equals_a_plain_search():
    draws = np.random.default_rng(0)
    first = draws.integers(1, 2**32, 80, dtype=np.uint64).astype(np.uint32)
    second = np.concatenate([draws.integers(1, 2**32, 7, dtype=np.uint64).astype(np.uint32), first[:60]])
    second[20:30] ^= np.uint32(0b1011)
    second[40:43] = 0
    rate, shift = plain_agreement(first, second, 16)
    found = agreement(first, second, 2.0)
    assert shift == -7
    assert found.bit_error_rate == pytest.approx(rate, abs=1e-6)
    assert found.seconds == (60 - 3) / 8
    assert found.uncovered == 20 / 8  # frames of `first` that follow the end of `second`
