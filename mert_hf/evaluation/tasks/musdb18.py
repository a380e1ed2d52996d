"""MUSDB18: vocals, drums, bass and other out of a mixture, by magnitude masks; SDR as museval defines it, and plain.

Data: Rafii, Liutkus, Stöter, Mimilakis and Bittner 2019, MUSDB18-HQ; for education and research. Unpack
`musdb18hq.zip` of the Zenodo record (which shows its MD5):

    DATA_DIR/{train,test}/TRACK/{mixture,vocals,drums,bass,other}.wav

The `.stem.mp4` release is not read; convert it with `musdbconvert` of the musdb package. Split: the official 86
training, 14 validation (listed by musdb) and 50 test songs. Metric: `mert_hf.evaluation.metrics.frames.sdr_frames`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ...recordings.recordings import Recording, TaskData
from ...recordings.splits import hash_split
from .base import ArchiveNotes, Task, first_existing

logger = logging.getLogger(__name__)

STEMS = ("vocals", "drums", "bass", "other")
VALIDATION_SONGS = (
    "Actions - One Minute Smile",
    "Alexander Ross - Goodbye Bolero",
    "ANiMAL - Rockshow",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Fergessen - Nos Palpitants",
    "James May - On The Line",
    "Johnny Lokke - Promises & Lies",
    "Leaf - Summerghost",
    "Meaxic - Take A Step",
    "Patrick Talbot - A Reason To Leave",
    "Skelpolu - Human Mistakes",
    "Traffic Experiment - Sirens",
    "Triviul - Angelsaint",
    "Young Griffo - Pennies",
)


def read(root: Path) -> TaskData:
    training, test = (_songs(root, part) for part in ("train", "test"))
    names = [song.name for song in training]
    split = {name: "valid" if name in VALIDATION_SONGS else "train" for name in names}
    if "valid" not in split.values():
        logger.warning(
            "None of the official validation songs is in %s; a seventh of the training songs is used instead.", root
        )
        split = hash_split(names, {"train": 0.86, "valid": 0.14})
    recordings = [_recording(song, split[song.name]) for song in training]
    return TaskData(STEMS, tuple(recordings + [_recording(song, "test") for song in test]))


def _songs(root: Path, part: str) -> list[Path]:
    folder = first_existing(root, [part, f"*/{part}"], f"MUSDB18-HQ {part} songs")
    songs = sorted(path for path in folder.iterdir() if path.is_dir())
    if not songs:
        hint = "; the .stem.mp4 release must be converted to WAV" if list(folder.glob("*.stem.mp4")) else ""
        raise ValueError(f"There are no songs in {folder}; looked for {folder}/TRACK/mixture.wav{hint}.")
    return songs


def _recording(song: Path, split: str) -> Recording:
    stems = {stem: song / f"{stem}.wav" for stem in STEMS}
    if missing := ", ".join(str(path) for path in stems.values() if not path.is_file()):
        raise ValueError(f"{song.name} lacks stems; looked for {missing}.")
    return Recording(f"{split}/{song.name}", song / "mixture.wav", split, stems)


NOTES = ArchiveNotes(
    urls=("https://zenodo.org/records/3338373 (musdb18hq.zip)",),
    size="150 songs, 10 h, 23 GB",
    license="for education and research, terms of each song in the archive",
    about=__doc__,
    counts=(86, 14, 50),
)
TASK = Task("musdb18", "MUSDB18 separation", "separation", 10.0, read, notes=NOTES)
