"""GTZAN genre: 10 genres, whole 30 s clips; accuracy.

Data: Tzanetakis and Cook 2002; for research use. Unpack `genres.tar.gz`:

    DATA_DIR/genres/blues/blues.00000.wav (or .au)    also named genres_original/ in a common copy
    DATA_DIR/{train,valid,test}_filtered.txt          optional lists, lines such as blues/blues.00029.wav

Split: the fault-filtered one of Kereliuk, Sturm and Larsen 2015 (`gtzan_split`; 443, 197 and 290 clips without
repetitions and distortions), unless the folder holds lists.

No checksums are published; 1000 clips of about 30 s are expected. `jazz.00054.wav` is broken in the common copy: the
training list then has 442 clips, and a warning says so. Metric: scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

from ...audio import AudioReadError, audio_info
from ...recordings.recordings import SPLITS, Recording, TaskData, label_index
from .base import Task, first_existing
from .gtzan_split import clip_names
from .sources import ArchiveNotes, TableForm

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
KNOWN_BROKEN = ("jazz/jazz.00054",)


def read(root: Path) -> TaskData:
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
            choices = [audio / f"{stem}{suffix}" for suffix in (".wav", ".au", ".flac", ".mp3")]
            path = next((choice for choice in choices if choice.is_file()), choices[0])
            if stem in KNOWN_BROKEN and not _is_readable(path):
                skipped.append(f"{stem} (broken in the common copy)")
            else:
                clips.append((stem, path, split))
    return clips, tuple(skipped)


def _listed(root: Path, split: str) -> list[str]:
    """Names of the clips of a split by its list, without suffix; none where the folder holds no lists."""
    patterns = [f"{split}_filtered.txt", f"*/{split}_filtered.txt"]
    if not any(next(root.glob(pattern.replace(split, "*")), None) for pattern in patterns):
        return []
    lines = first_existing(root, patterns, f"GTZAN {split} list").read_text(encoding="utf-8").split()
    return [line.rsplit(".", 1)[0] for line in lines]


def _is_readable(path: Path) -> bool:
    try:
        audio_info(path)
    except AudioReadError:
        return False
    return True


NOTES = ArchiveNotes(
    urls=(
        "http://marsyas.info/downloads/datasets.html (genres.tar.gz)",
        "https://github.com/coreyker/dnn-mgr/tree/master/gtzan (lists of the split, which are built in)",
    ),
    size="1,000 clips of 30 s, 8.3 h, 1.2 GB",
    license="for research; no license is stated",
    layout=(
        "genres/GENRE/GENRE.00000.wav (or .au; also genres_original/)",
        "{train,valid,test}_filtered.txt, optional",
    ),
    manifest="f9e38153362e2021989bdfd300cc5932c061d9d60deb0366a43efeba75ca0827",
    counts=(443, 197, 290),
)
TABLES = TableForm(
    jsonl=("GTZANGenre",), labels=GENRES, columns=(("genre",), ("label",)), hub=("confit/gtzan-parquet",)
)
TASK = Task("gtzan_genre", "GTZAN genre", "classification", "accuracy", 30.0, read, notes=NOTES, tables=TABLES)
