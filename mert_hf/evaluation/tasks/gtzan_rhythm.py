"""GTZAN-Rhythm: beats and downbeats, frame by frame; F1 at 70 ms (MARBLE's code) and 20 ms (MARBLE's paper).

Data: the clips and lists of `gtzan_genre`, and the annotations of Marchand, Fresnel and Peeters 2015 (v2), one JAMS
file a clip; research use. A `.beats` file a clip ("seconds position", position 1 is a downbeat) is read too:

    DATA_DIR/**/jams/blues.00000.wav.jams     or    DATA_DIR/**/beats/gtzan_blues_00000.beats

Metric: mir_eval's F-measure, mean over clips; times from probabilities by `mert_hf.evaluation.beats`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ...data.beats import BEAT_LABELS
from ...data.recordings import BeatTimes, Recording, TaskData
from .base import Task, first_existing
from .gtzan_genre import listed_clips


def read(root: Path) -> TaskData:
    """Reads clips and beat times."""
    folder = first_existing(root, ["jams", "**/jams", "beats", "**/beats"], "GTZAN-Rhythm annotations")
    recordings = [Recording(name, path, split, _beats(folder, name)) for name, path, split in listed_clips(root)]
    return TaskData(BEAT_LABELS, tuple(recordings))


def _beats(folder: Path, name: str) -> BeatTimes:
    stem = name.rsplit("/", 1)[-1]
    if folder.name == "jams":
        return _read_jams(first_existing(folder, [f"{stem}.wav.jams", f"{stem}.au.jams", f"{stem}.jams"], "beats"))
    patterns = [f"gtzan_{stem.replace('.', '_')}.beats", f"{stem}.beats", f"{stem}.wav.beats"]
    return _read_beats(first_existing(folder, patterns, "beats"))


def _read_jams(path: Path) -> BeatTimes:
    times: dict[str, list[float]] = {"beat": [], "downbeat": []}
    for annotation in json.loads(path.read_text(encoding="utf-8")).get("annotations", []):
        kind = (annotation.get("sandbox") or {}).get("annotation_type")
        if annotation.get("namespace") == "beat" and kind in times:
            times[kind] += [float(event["time"]) for event in annotation["data"]]
    if not times["beat"]:
        raise ValueError(f"{path} has no annotation with namespace 'beat' and sandbox.annotation_type 'beat'")
    return BeatTimes(np.unique(times["beat"]), np.unique(times["downbeat"]))


def _read_beats(path: Path) -> BeatTimes:
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows or any(len(row) < 2 for row in rows):
        raise ValueError(f"{path}: each line must be 'seconds position', as in '0.35 1'")
    beats = np.unique([float(row[0]) for row in rows])
    downbeats = np.unique([float(row[0]) for row in rows if float(row[1]) == 1])
    return BeatTimes(beats, downbeats)


TASK = Task("gtzan_rhythm", "GTZAN beats", "beats", "beat_f1_70ms", 30.0, read)
