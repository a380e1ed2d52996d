"""EmoMusic: valence and arousal of 45 s clips in windows of 5 s; R2 of each.

Data: Soleymani et al. 2013, "1000 songs for emotional analysis of music", the 744 clips of the second release; free for
research. Unpack `annotations.tar.gz` and `clips_45sec.tar.gz`:

    DATA_DIR/annotations/songs_info.csv             song_id, Artist, Mediaeval 2013 set
    DATA_DIR/annotations/static_annotations.csv     song_id, mean_arousal, mean_valence
    DATA_DIR/clips_45seconds/SONG_ID.mp3            or in clips_45sec/, or in clips_45sec/clips_45seconds/

The tables may also be in DATA_DIR itself. Split as in jukemir and MARBLE: the "evaluation" set is the test; the
rest goes by the artist's SHA-1, 8 of 10 residues for training. Metric: scikit-learn; `r2` is the mean of the two.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ...recordings.recordings import Recording, TaskData
from .base import ArchiveNotes, TableForm, Task, existing_file, first_existing, read_table

LABELS = ("valence", "arousal")
SET = "Mediaeval 2013 set"
CLIP_FOLDERS = ("clips_45seconds", "*/clips_45seconds", "clips_45sec", "*/clips_45sec")


def read(root: Path) -> TaskData:
    songs = first_existing(root, ["annotations/songs_info.csv", "songs_info.csv"], "EmoMusic songs")
    ratings = first_existing(root, ["annotations/static_annotations.csv", "static_annotations.csv"], "ratings")
    clips = first_existing(root, CLIP_FOLDERS, "EmoMusic clips")
    columns = [f"mean_{label}" for label in LABELS]
    targets = {
        row["song_id"]: np.array([float(row[column]) for column in columns], dtype=np.float32)
        for row in read_table(ratings, ",", ["song_id", *columns])
    }
    recordings = []
    for row in read_table(songs, ",", ["song_id", "Artist", SET]):
        song = row["song_id"]
        if song not in targets:
            raise ValueError(f"{ratings} has no row for song_id {song} of {songs}.")
        path = existing_file(clips, [f"{song}.mp3", f"{song}.wav"])
        recordings.append(Recording(song.zfill(4), path, _split(row), targets[song]))
    return TaskData(LABELS, tuple(recordings))


def _split(row: dict[str, str]) -> str:
    if row[SET] == "evaluation":
        return "test"
    letters = "".join(c for c in row["Artist"].lower() if c.isascii() and (c.isalpha() or c.isspace()))
    digest = hashlib.sha1(" ".join(letters.split()).encode()).hexdigest()
    return "train" if int(digest, 16) % 10 < 8 else "valid"


NOTES = ArchiveNotes(
    urls=("http://cvml.unige.ch/databases/emoMusic/",),
    size="744 clips of 45 s, 9.3 h",
    license="for research, after registration",
    about=__doc__,
)
TABLES = TableForm(jsonl=("EMO",), labels=LABELS, jsonl_order=("arousal", "valence"), columns=(LABELS, ("label",)))
TASK = Task("emomusic", "EmoMusic valence and arousal", "regression", 5.0, read, notes=NOTES, tables=TABLES)
