"""Training with few labels: a random part of the training recordings, the same validation and test recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from ...recordings.recordings import Recording, TaskData

ALL_SHOTS = "all"
CLASS_KINDS = ("classification", "key")


def parse_shots(text: str) -> tuple[int | str, ...]:
    """Numbers of recordings and "all" from "1,5,10,all".

    Raises:
        ValueError: anything else, or a number below 1.
    """
    shots: list[int | str] = []
    for word in (word.strip() for word in text.split(",") if word.strip()):
        if word != ALL_SHOTS and not (word.isdigit() and int(word) > 0):
            raise ValueError(f"shots={text!r} must be numbers of 1 or more and {ALL_SHOTS!r}, such as 1,5,10,all.")
        shots.append(word if word == ALL_SHOTS else int(word))
    return tuple(shots)


def draw_shots(data: TaskData, kind: str, shots: int, seed: int) -> TaskData:
    """A random part of the training recordings.

    Args:
        data: all recordings.
        kind: classification and key: `shots` of each class, or all where there are fewer; multilabel: recordings in
            random order until each tag has `shots`, where that many have it; any other kind: `shots` recordings, two at
            least.
        shots: number of recordings.
        seed: of the draw.
    """
    training = data.split("train")
    order = np.random.default_rng(seed).permutation(len(training))
    drawn = [training[index] for index in order]
    kept = {recording.id for recording in _kept(drawn, kind, shots)}
    return data.with_recordings(r for r in data.recordings if r.split != "train" or r.id in kept)


def _kept(drawn: list[Recording], kind: str, shots: int) -> Iterable[Recording]:
    if kind not in (*CLASS_KINDS, "multilabel"):
        yield from drawn[: max(shots, 2)]
        return
    seen: Counter = Counter()
    for recording in drawn:
        answers = np.flatnonzero(recording.target).tolist() if kind == "multilabel" else [recording.target]
        if any(seen[answer] < shots for answer in answers):
            seen.update(answers)
            yield recording
