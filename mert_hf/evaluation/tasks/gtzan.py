"""GTZAN: genre of whole 30 s clips (10 genres; accuracy), and beats and downbeats, frame by frame (F1 at 70 and 20 ms).

Data: Tzanetakis and Cook 2002; for research use. Unpack `genres.tar.gz`; for beats also the annotations of Marchand,
Fresnel and Peeters 2015 (v2), one JAMS file a clip, or a `.beats` file a clip ("seconds position", position 1 is a
downbeat):

    DATA_DIR/genres/blues/blues.00000.wav (or .au)    also named genres_original/ in a common copy
    DATA_DIR/{train,valid,test}_filtered.txt          optional lists, lines such as blues/blues.00029.wav
    DATA_DIR/**/jams/blues.00000.wav.jams             or DATA_DIR/**/beats/gtzan_blues_00000.beats

Split: the fault-filtered one of Kereliuk, Sturm and Larsen 2015 ("Deep learning and music adversaries"; 443, 197 and
290 clips without repetitions and distortions; github.com/coreyker/dnn-mgr), unless the folder holds lists.

No checksums are published; 1000 clips of about 30 s are expected. `jazz.00054.wav` is broken in the common copy: the
training list then has 442 clips, and a warning says so. `jazz.00003`, `00009`, `00010`, `00014`, `00018` and `00020`
have beats without positions: they do not count for downbeats. Metrics: scikit-learn; mir_eval's F-measure (70 ms is
the tolerance of MARBLE's code, 20 ms that of its paper), times from probabilities by
`mert_hf.evaluation.metrics.frames`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...audio import AudioReadError, audio_info
from ...recordings.frames import BEAT_LABELS
from ...recordings.recordings import SPLITS, BeatTimes, Recording, TaskData, label_index
from ...recordings.targets import read_beats
from .base import ArchiveNotes, TableForm, Task, existing_file, first_existing

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
KNOWN_BROKEN = ("jazz/jazz.00054",)

# split -> genre -> numbers and ranges of numbers, ends included
FAULT_FILTERED: dict[str, dict[str, str]] = {
    "train": {
        "blues": "29-49 73-97",
        "classical": "30-33 43-48 50-67 80-99",
        "country": "19-26 28-29 65-99",
        "disco": "5 15-20 22-37 39-45 47 49 53-54 56-57 59 61 70 73-74 89",
        "hiphop": "2-25 28-29 31-38 41-42 55-61 77-80",
        "jazz": "0-1 11-24 41 47-72",
        "metal": "2-3 5 21 24 35 46-57 59-66 69 71-72 79-80 84 86 89-99",
        "pop": "2-9 11-12 16-20 23-29 31-36 38-42 44 46 49-50 80 97-99",
        "reggae": "0-2 4 6 9 11-12 14-32 42-45 49-51 54-60 63 69",
        "rock": "0-9 16-26 57-70 91-99",
    },
    "valid": {
        "blues": "0-11 50-60",
        "classical": "0-10 68-76",
        "country": "0-7 9-18 27 41-42 45 49",
        "disco": "0 2-4 6-14 46 48 52 67-68 72 75 90 95",
        "hiphop": "81-98",
        "jazz": "2-10 25-32",
        "metal": "0-1 6-11 16-20 36-37 68 76-77 81-82",
        "pop": "10 53 55 58-62 81 83-86",
        "reggae": "61-62 70 72 74 76-78 85 92-99",
        "rock": "38 49-56 71-85",
    },
    "test": {
        "blues": "12-28 61-72 98-99",
        "classical": "11-29 34-41 49 77-79",
        "country": "30-40 43-44 46-48 50-51 53-64",
        "disco": "1 21 58 62-66 69 76-88 91-94 96-97 99",
        "hiphop": "0 26-27 30 40 43-45 51-54 62-75 99",
        "jazz": "73-99",
        "metal": "12-15 22-23 25-33 38-39 67 70 73-75 78 83 85 87-88",
        "pop": "0-1 13-14 43 63-66 69-79 82 88-96",
        "reggae": "34-40 46-48 52-53 64-68 71 79 82-84 87-90",
        "rock": "10-15 27-37 39-48 86-90",
    },
}


def read_genres(root: Path) -> TaskData:
    """Reads clips and genres by the filtered lists."""
    clips, skipped = listed_clips(root)
    recordings = [
        Recording(name, path, split, label_index(name.split("/")[0], GENRES, f"{split}_filtered.txt"))
        for name, path, split in clips
    ]
    return TaskData(GENRES, tuple(recordings), skipped)


def listed_clips(root: Path) -> tuple[list[tuple[str, Path, str]], tuple[str, ...]]:
    """(name without suffix, file, split) of each clip of the split, and the broken clips that were left out."""
    audio = first_existing(root, ["genres", "genres_original", "*/genres", "*/genres_original"], "GTZAN clips")
    clips, skipped = [], []
    for split in SPLITS:
        for stem in _listed(root, split) or clip_names(split):
            path = existing_file(audio, [f"{stem}{suffix}" for suffix in (".wav", ".au", ".flac", ".mp3")])
            try:
                if stem in KNOWN_BROKEN:
                    audio_info(path)
                clips.append((stem, path, split))
            except AudioReadError:
                skipped.append(f"{stem} (broken in the common copy)")
    return clips, tuple(skipped)


def _listed(root: Path, split: str) -> list[str]:
    """Names of the clips of a split by its list, without suffix; none where the folder holds no lists."""
    patterns = [f"{split}_filtered.txt", f"*/{split}_filtered.txt"]
    if not any(next(root.glob(pattern.replace(split, "*")), None) for pattern in patterns):
        return []
    lines = first_existing(root, patterns, f"GTZAN {split} list").read_text(encoding="utf-8").split()
    return [line.rsplit(".", 1)[0] for line in lines]


def clip_names(split: str) -> list[str]:
    """Names of the clips of a split, such as "blues/blues.00029"."""
    names = []
    for genre, text in FAULT_FILTERED[split].items():
        for ends in (part.split("-") for part in text.split()):
            names += [f"{genre}/{genre}.{number:05d}" for number in range(int(ends[0]), int(ends[-1]) + 1)]
    return names


def read_rhythm(root: Path) -> TaskData:
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
        "http://marsyas.info/downloads/datasets.html (genres.tar.gz)",
        "https://github.com/coreyker/dnn-mgr/tree/master/gtzan (lists of the split, which are built in)",
    ),
    size="1,000 clips of 30 s, 8.3 h, 1.2 GB",
    license="for research; no license is stated",
    about=__doc__,
    manifest="f9e38153362e2021989bdfd300cc5932c061d9d60deb0366a43efeba75ca0827",
    counts=(443, 197, 290),
)

BEATS = (
    "http://anasynth.ircam.fr/home/media/GTZAN-rhythm (JAMS)",
    "https://github.com/CPJKU/beat_this_annotations (.beats)",
)
RHYTHM_NOTES = replace(NOTES, urls=NOTES.urls + BEATS)
GENRE_TABLES = TableForm(("GTZANGenre",), GENRES, columns=(("genre",), ("label",)), hub=("confit/gtzan-parquet",))
RHYTHM_TABLES = TableForm(("GTZANBeatTracking",), columns=(("beats",), ("label",)))
GENRE = Task("gtzan_genre", "GTZAN genre", "classification", 30.0, read_genres, notes=NOTES, tables=GENRE_TABLES)
RHYTHM = Task("gtzan_rhythm", "GTZAN beats", "beats", 30.0, read_rhythm, notes=RHYTHM_NOTES, tables=RHYTHM_TABLES)
