"""GTZAN-Rhythm: beats and downbeats, frame by frame; F1 at 70 ms (MARBLE's code) and 20 ms (MARBLE's paper).

Data: the clips and lists of `gtzan_genre`, and the annotations of Marchand, Fresnel and Peeters 2015 (v2), one JAMS
file a clip; research use. A `.beats` file a clip ("seconds position", position 1 is a downbeat) is read too:

    DATA_DIR/**/jams/blues.00000.wav.jams     or    DATA_DIR/**/beats/gtzan_blues_00000.beats

`jazz.00003`, `00009`, `00010`, `00014`, `00018` and `00020` have beats without positions: they do not count for
downbeats.
Metric: mir_eval's F-measure, mean over clips; times from probabilities by `mert_hf.evaluation.metrics.beats`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ...recordings.annotations import read_beats
from ...recordings.beats import BEAT_LABELS
from ...recordings.recordings import BeatTimes, Recording, TaskData
from .base import Task, first_existing
from .gtzan_genre import NOTES as CLIP_NOTES
from .gtzan_genre import listed_clips
from .sources import ArchiveNotes, TableForm


def read(root: Path) -> TaskData:
    """Reads clips and beat times."""
    folder = first_existing(root, ["jams", "**/jams", "beats", "**/beats"], "GTZAN-Rhythm annotations")
    clips, skipped = listed_clips(root)
    recordings = [Recording(name, path, split, _beats(folder, name)) for name, path, split in clips]
    return TaskData(BEAT_LABELS, tuple(recordings), skipped)


def _beats(folder: Path, name: str) -> BeatTimes:
    stem = name.rsplit("/", 1)[-1]
    if folder.name == "jams":
        return _read_jams(first_existing(folder, [f"{stem}.wav.jams", f"{stem}.au.jams", f"{stem}.jams"], "beats"))
    patterns = [f"gtzan_{stem.replace('.', '_')}.beats", f"{stem}.beats", f"{stem}.wav.beats"]
    return read_beats(first_existing(folder, patterns, "beats"))


def _read_jams(path: Path) -> BeatTimes:
    times: dict[str, list[float]] = {"beat": [], "downbeat": []}
    for annotation in json.loads(path.read_text(encoding="utf-8")).get("annotations", []):
        kind = (annotation.get("sandbox") or {}).get("annotation_type")
        if annotation.get("namespace") == "beat" and kind in times:
            times[kind] += [float(event["time"]) for event in annotation["data"]]
    if not times["beat"]:
        raise ValueError(f"{path} has no annotation with namespace 'beat' and sandbox.annotation_type 'beat'.")
    return BeatTimes(np.unique(times["beat"]), np.unique(times["downbeat"]))


NOTES = ArchiveNotes(
    urls=(
        *CLIP_NOTES.urls,
        "http://anasynth.ircam.fr/home/media/GTZAN-rhythm (JAMS)",
        "https://github.com/CPJKU/beat_this_annotations (.beats)",
    ),
    size=CLIP_NOTES.size,
    license=CLIP_NOTES.license,
    layout=(*CLIP_NOTES.layout, "**/jams/GENRE.00000.wav.jams, or **/beats/gtzan_GENRE_00000.beats"),
    manifest=CLIP_NOTES.manifest,
    counts=CLIP_NOTES.counts,
)
TABLES = TableForm(jsonl=("GTZANBeatTracking",), columns=(("beats",), ("label",)))
TASK = Task("gtzan_rhythm", "GTZAN beats", "beats", "beat_f1_70ms", 30.0, read, notes=NOTES, tables=TABLES)
