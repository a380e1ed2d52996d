"""GTZAN genre: 10 genres, whole 30 s clips; accuracy.

Data: Tzanetakis and Cook 2002; for research use. Unpack `genres.tar.gz` and add the three fault-filtered lists of
Kereliuk, Sturm and Larsen 2015 (443, 197 and 290 clips without repetitions and distortions):

    DATA_DIR/genres/blues/blues.00000.wav (or .au)    also named genres_original/ in a common copy
    DATA_DIR/{train,valid,test}_filtered.txt          lines such as blues/blues.00029.wav

No checksums are published; 1000 clips of about 30 s are expected. Metric: scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

from ...data.recordings import SPLITS, Recording, TaskData, label_index
from .base import Task, first_existing

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def read(root: Path) -> TaskData:
    """Reads clips and genres by the filtered lists."""
    recordings = [
        Recording(name, path, split, label_index(name.split("/")[0], GENRES, f"{split}_filtered.txt"))
        for name, path, split in listed_clips(root)
    ]
    return TaskData(GENRES, tuple(recordings))


def listed_clips(root: Path) -> list[tuple[str, Path, str]]:
    """(name without suffix, file, split) of each clip of the three lists."""
    audio = first_existing(root, ["genres", "genres_original", "*/genres", "*/genres_original"], "GTZAN clips")
    clips = []
    for split in SPLITS:
        patterns = [f"{split}_filtered.txt", f"*/{split}_filtered.txt"]
        text = first_existing(root, patterns, f"GTZAN {split} list").read_text(encoding="utf-8")
        for line in filter(None, map(str.strip, text.splitlines())):
            stem = line.rsplit(".", 1)[0]
            choices = [audio / f"{stem}{suffix}" for suffix in (".wav", ".au", ".flac", ".mp3")]
            path = next((choice for choice in choices if choice.is_file()), choices[0])
            clips.append((stem, path, split))
    return clips


TASK = Task("gtzan_genre", "GTZAN genre", "classification", "accuracy", 30.0, read)
