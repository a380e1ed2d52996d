"""Fingerprints of recordings, to decide whether two files hold the same recording.

A recording is described by 32 bits for each eighth of a second, after Haitsma and Kalker ("A Highly Robust Audio
Fingerprinting System", ISMIR 2002, section 4.2): the signs of the differences of log energies between neighboring
frequency bands and between frames. Gain does not change them, and lossy coding changes few. Two recordings are compared
frame by frame at every offset that cuts at their ends allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FRAMES_PER_SECOND = 8
FRAME_SECONDS = 0.5
BITS = 32  # from one band more
LOWEST_HZ, HIGHEST_HZ = 250.0, 3000.0  # what low bit rates and low sampling rates keep
STEP = 2  # frames between the two whose energies are compared
SILENCE = 1e-6  # mean square of a frame: -60 dB of full scale
NO_CODE = 0  # the code of a silent frame
SEGMENT_SECONDS = 5.0
LANDMARKS = 64


@dataclass(frozen=True)
class Agreement:
    """How two fingerprints agree at the best offset."""

    bit_error_rate: float  # share of the bits that differ where both recordings sound; about 0.5 for unrelated ones
    worst_segment: float  # the highest bit error rate of a segment of 5 s
    seconds: float  # for how long both sound
    uncovered: float  # the most seconds for which only one of them sounds: before or after the other, or in between


NO_AGREEMENT = Agreement(0.5, 0.5, 0.0, float("inf"))


class Fingerprinter:
    """Makes the fingerprint of a recording that arrives in consecutive blocks; memory grows with its frames only."""

    def __init__(self, sampling_rate: int):  # Hz
        self.size, self.hop = round(FRAME_SECONDS * sampling_rate), round(sampling_rate / FRAMES_PER_SECOND)
        self._window = np.hanning(self.size).astype(np.float32)
        edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BITS + 2) * self.size / sampling_rate
        self._edges = np.round(edges).astype(int)
        self._buffer = np.zeros(0, np.float32)
        self._levels: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Takes the next samples (samples,) float32."""
        self._buffer = np.concatenate([self._buffer, block])
        count = max((len(self._buffer) - self.size) // self.hop + 1, 0)
        for start in range(0, count * self.hop, self.hop):
            self._levels.append(self._band_levels(self._buffer[start : start + self.size]))
        self._buffer = self._buffer[count * self.hop :]

    def codes(self) -> np.ndarray:
        """(frames,) uint32 of the blocks so far, 8 per second; 0 for a silent frame."""
        if len(self._levels) <= STEP:
            return np.zeros(0, np.uint32)
        slopes = np.diff(np.stack(self._levels), axis=1)  # NaN in silent frames
        codes = np.packbits(slopes[STEP:] > slopes[:-STEP], axis=1, bitorder="little").view("<u4")[:, 0]
        sounds = np.isfinite(slopes).all(axis=1)
        return np.where(sounds[STEP:] & sounds[:-STEP], np.maximum(codes, 1), NO_CODE).astype(np.uint32)

    def _band_levels(self, frame: np.ndarray) -> np.ndarray:
        """(bands,) float32 natural logarithms of a frame's energies; NaN where it is silent."""
        if np.square(frame).mean() < SILENCE:
            return np.full(BITS + 1, np.nan, np.float32)
        power = np.abs(np.fft.rfft(frame * self._window)) ** 2
        return np.log(np.add.reduceat(power[: self._edges[-1]], self._edges[:-1]) + 1e-12).astype(np.float32)


def landmarks(codes: np.ndarray) -> np.ndarray:
    """The codes by which copies of a recording are looked up: (at most 64,) uint32, each once.

    They are those with the lowest hashes, so that two recordings which share codes choose the same ones (a sketch of
    the kind of Broder, "On the resemblance and containment of documents", 1997). `codes` are (frames,) uint32.
    """
    found = np.unique(codes[codes != NO_CODE]).astype(np.uint32)
    mixed = (found ^ (found >> np.uint32(16))) * np.uint32(0x45D9F3B)
    return found[np.argsort(mixed ^ (mixed >> np.uint32(16)), kind="stable")[:LANDMARKS]]


def agreement(first: np.ndarray, second: np.ndarray, max_shift: float) -> Agreement:
    """Compares two fingerprints (frames,) uint32 at all offsets and describes the best one.

    `max_shift` is in seconds, by which one recording may begin earlier in the music than the other.
    """
    reach = min(round(max_shift * FRAMES_PER_SECOND), len(first) - 1, len(second) - 1)
    if reach < 0:
        return NO_AGREEMENT
    shifts = np.arange(-reach, reach + 1)
    masks = [(codes != NO_CODE).astype(np.float32)[None] for codes in (first, second)]  # 1 where the recording sounds
    equal, compared = _correlate(_signs(first), _signs(second), shifts), _correlate(*masks, shifts)
    long_enough = compared >= max(0.5 * compared.max(), 1.0)
    rates = np.where(long_enough, 0.5 - 0.5 * equal / (BITS * np.maximum(compared, 1.0)), 1.0)
    best = int(np.argmin(rates))
    if not long_enough[best]:
        return NO_AGREEMENT
    return _describe(first, second, int(shifts[best]))


def _signs(codes: np.ndarray) -> np.ndarray:
    """(frames,) -> (32, frames) float32: each bit as -1 or 1, and 0 in silence."""
    bits = np.unpackbits(codes.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    return np.where(codes == NO_CODE, 0, 2 * bits.T.astype(np.float32) - 1).astype(np.float32)


def _correlate(first: np.ndarray, second: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Sums over rows and frames of first[:, i + shift] * second[:, i], for each shift."""
    size = 1 << (first.shape[1] + second.shape[1]).bit_length()
    spectrum = (np.fft.rfft(first, size) * np.fft.rfft(second, size).conj()).sum(axis=0)
    return np.round(np.fft.irfft(spectrum, size)[shifts])


def _describe(first: np.ndarray, second: np.ndarray, shift: int) -> Agreement:
    """The agreement at one offset: frame i of `second` belongs to frame i + shift of `first`."""
    begin, end = max(shift, 0), min(len(first), len(second) + shift)
    one, two = first[begin:end], second[begin - shift : end - shift]
    sounds_one, sounds_two = one != NO_CODE, two != NO_CODE
    both = sounds_one & sounds_two
    errors = np.abs(_signs(one) - _signs(two))[:, both].mean(axis=0) / 2
    size = round(SEGMENT_SECONDS * FRAMES_PER_SECOND)
    starts = np.arange(0, max(len(errors) - size // 2, 1), size)
    segments = [errors[start : start + size].mean() for start in starts]
    alone = [first[:begin], first[end:], second[: begin - shift], second[end - shift :]]
    outside = [int((part != NO_CODE).sum()) for part in alone]
    inside = [int((sounds_one & ~sounds_two).sum()), int((sounds_two & ~sounds_one).sum())]
    return Agreement(
        float(errors.mean()),
        float(max(segments)),
        len(errors) / FRAMES_PER_SECOND,
        max(outside + inside) / FRAMES_PER_SECOND,
    )
