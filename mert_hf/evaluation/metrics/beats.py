"""Beat times from beat probabilities, by a small hidden Markov model of tempo and phase, and mir_eval's matching.

The state space is that of Krebs, Böck and Widmer 2015, "An efficient state-space model for joint tempo and meter
tracking": a state is (interval between beats, frames since the last beat). Frames advance the position by one; the
interval changes at beats only, with probability proportional to exp(-100 |new / old - 1|). The observation model is
that of Böck, Krebs and Widmer 2014: the first 1/16 of an interval is "beat" with probability b, the rest shares 1 - b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...recordings.recordings import BeatTimes
from ...utils.optional import needs_extra

TEMPO_LAMBDA = 100.0
OBSERVATION_LAMBDA = 16
TOLERANCES = {"70ms": 0.07, "20ms": 0.02}
BEAT_TEMPI = (55.0, 215.0)


def decode_beats(
    beats: np.ndarray, downbeats: np.ndarray, frame_rate: float, downbeat_tempi: tuple[float, float]
) -> BeatTimes:
    """Beats and downbeats of a recording.

    Args:
        beats, downbeats: (frames,) probability of any beat, and of a downbeat; frame k is centered on k / frame_rate.
        frame_rate: in Hz.
        downbeat_tempi: slowest and fastest tempo of bars, a minute.
    """
    found = track_beats(beats, frame_rate, *BEAT_TEMPI), track_beats(downbeats, frame_rate, *downbeat_tempi)
    return BeatTimes(*found)


def track_beats(activation: np.ndarray, frame_rate: float, min_bpm: float, max_bpm: float) -> np.ndarray:
    """Times of the most likely sequence of beats.

    Args:
        activation: (frames,) probability of a beat, frame k centered on k / frame_rate.
        frame_rate: in Hz.
        min_bpm, max_bpm: slowest and fastest tempo.

    Returns:
        float64 (beats,) seconds, ascending; empty where no activation is above 0. Each beat lies on the frame of the
        highest activation of its beat region.
    """
    if not np.any(activation):
        return np.empty(0)
    space = StateSpace.build(frame_rate, min_bpm, max_bpm)
    path = _viterbi(np.asarray(activation, dtype=np.float64), space)
    return _peaks(space.is_beat[path], activation) / frame_rate


@dataclass(frozen=True)
class StateSpace:
    """Intervals (n,) in frames; index of the first and last state of each; which states are in the beat region."""

    first: np.ndarray
    last: np.ndarray
    is_beat: np.ndarray
    log_transition: np.ndarray

    @classmethod
    def build(cls, frame_rate: float, min_bpm: float, max_bpm: float) -> StateSpace:
        """All intervals of whole frames between the two tempi."""
        shortest, longest = round(60 * frame_rate / max_bpm), round(60 * frame_rate / min_bpm)
        intervals = np.arange(max(shortest, 2), max(longest, 2) + 1)
        last = np.cumsum(intervals) - 1
        first = last - intervals + 1
        position = np.arange(last[-1] + 1) - np.repeat(first, intervals)
        region = np.repeat(np.maximum(intervals / OBSERVATION_LAMBDA, 1.0), intervals)
        change = np.abs(intervals[None, :] / intervals[:, None] - 1)
        weights = np.exp(-TEMPO_LAMBDA * change)
        log_transition = np.log(weights / weights.sum(axis=1, keepdims=True) + np.finfo(float).tiny)
        return cls(first, last, position < region, log_transition)


def _viterbi(activation: np.ndarray, space: StateSpace) -> np.ndarray:
    """The most likely state of each frame, int (frames,)."""
    log_beat, log_rest = (
        np.log(np.maximum(p, np.finfo(float).tiny)) for p in (activation, (1 - activation) / (OBSERVATION_LAMBDA - 1))
    )
    scores = np.zeros(len(space.is_beat))  # before the first frame all states are equally likely
    origins = np.zeros((len(activation), len(space.first)), dtype=np.int32)
    columns = np.arange(len(space.first))
    for frame in range(len(activation)):
        arrivals = scores[space.last][:, None] + space.log_transition
        origins[frame] = arrivals.argmax(axis=0)
        scores[1:] = scores[:-1].copy()
        scores[space.first] = arrivals[origins[frame], columns]
        scores += np.where(space.is_beat, log_beat[frame], log_rest[frame])
    path = np.empty(len(activation), dtype=np.int64)
    path[-1] = scores.argmax()
    tempo_of_first = {int(state): index for index, state in enumerate(space.first)}
    for frame in range(len(activation) - 1, 0, -1):
        tempo = tempo_of_first.get(int(path[frame]))
        path[frame - 1] = path[frame] - 1 if tempo is None else space.last[origins[frame, tempo]]
    return path


def _peaks(in_region: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """The frame of the highest activation of each run of beat-region frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], in_region, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    return np.array([s + int(np.argmax(activation[s:e])) for s, e in zip(starts, ends, strict=True)], dtype=np.int64)


def matched_events(reference: np.ndarray, estimate: np.ndarray, tolerance: float) -> tuple[int, int]:
    """Matched events (mir_eval's matching), and the number of reference and estimated events together.

    The F-measure is twice the first divided by the second. Times in seconds.
    """
    with needs_extra("eval"):
        from mir_eval.util import match_events

    matched = match_events(reference, estimate, tolerance) if len(reference) and len(estimate) else []
    return len(matched), len(reference) + len(estimate)
