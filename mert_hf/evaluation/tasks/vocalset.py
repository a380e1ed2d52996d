"""VocalSet: technique (10 techniques of singing) and singer (20 singers), in pieces of 3 s; accuracy.

Data: Wilkins, Seetharaman, Wahl and Pardo 2018, CC BY 4.0. Unpack `VocalSet.zip` of the Zenodo record, which shows
its MD5:

    DATA_DIR/FULL/SINGER/CONTEXT/TECHNIQUE/*.wav       SINGER: female1 to female9, male1 to male11

`data_by_singer/` of a later release has the same levels. Split of techniques: the five official test singers; of the
other 15, a fifth for validation, by SHA-1 of the singer's name, so no singer is in two splits. MARBLE validates on
recordings of the training singers instead. Split of singers: recordings, 48 % training, 32 % validation, 20 % test as
in MARBLE, here by SHA-1 of the recording's name within each singer; the pieces of a recording stay together.

Five stray duplicates are left out, as in MARBLE, and so are folders that the data set's paper does not list, such as
`female2/arpeggios/vibrado`; a warning names them. Metric: scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...recordings.recordings import Recording, TaskData
from ...recordings.splits import hash_split
from .base import ArchiveNotes, TableForm, Task, first_existing

TECHNIQUES = tuple("belt breathy inhaled lip_trill spoken straight trill trillo vibrato vocal_fry".split())
# Folders of the data set that are ways to sing a line rather than techniques of the voice (paper, table 2).
OTHER_FOLDERS = ("fast_forte", "fast_piano", "forte", "messa", "pp", "slow_forte", "slow_piano")
SINGERS = tuple(f"female{i}" for i in range(1, 10)) + tuple(f"male{i}" for i in range(1, 12))
TEST_SINGERS = ("female2", "female8", "male3", "male5", "male10")
STRAY_FILES = (
    "f2_scales_vibrato_a(1).wav",
    "caro_vibrato.wav",
    "dona_vibrato.wav",
    "row_vibrato.wav",
    "slow_vibrato_arps.wav",
)
SINGER_FRACTIONS = {"train": 0.48, "valid": 0.32, "test": 0.2}


def read_techniques(root: Path) -> TaskData:
    takes, skipped = vocalset_takes(root)
    takes = {name: take for name, take in takes.items() if take[2] in TECHNIQUES}
    learned = (singer for _, singer, _ in takes.values() if singer not in TEST_SINGERS)
    split = hash_split(learned, {"train": 0.8, "valid": 0.2}) | dict.fromkeys(TEST_SINGERS, "test")
    recordings = [
        Recording(name, path, split[singer], TECHNIQUES.index(technique))
        for name, (path, singer, technique) in takes.items()
    ]
    return TaskData(TECHNIQUES, tuple(recordings), skipped)


def read_singers(root: Path) -> TaskData:
    takes, skipped = vocalset_takes(root)
    split = hash_split(takes, SINGER_FRACTIONS, strata={name: singer for name, (_, singer, _) in takes.items()})
    recordings = [Recording(name, path, split[name], SINGERS.index(take)) for name, (path, take, _) in takes.items()]
    return TaskData(SINGERS, tuple(recordings), skipped)


def vocalset_takes(root: Path) -> tuple[dict[str, tuple[Path, str, str]], tuple[str, ...]]:
    """Name -> (file, singer, technique folder) of every recording, and the unknown folders that were left out."""
    base = first_existing(root, ["FULL", "*/FULL", "data_by_singer", "*/data_by_singer"], "VocalSet recordings")
    takes, unknown = {}, set()
    for path in sorted(base.glob("*/*/*/*.wav")):
        singer, context, technique, name = path.relative_to(base).parts
        if singer not in SINGERS or technique not in TECHNIQUES + OTHER_FOLDERS:
            unknown.add(f"{path.relative_to(base).parent.as_posix()}/")
        elif name not in STRAY_FILES and not name.startswith("."):
            takes[f"{singer}/{context}/{technique}/{path.stem}"] = path, singer, technique
    if not takes:
        raise ValueError(
            f"There are no VocalSet recordings in {base}; looked for {base}/SINGER/CONTEXT/TECHNIQUE/*.wav."
        )
    return takes, tuple(sorted(unknown))


NOTES = ArchiveNotes(
    urls=("https://zenodo.org/records/1193957 (VocalSet.zip)",),
    size="3,560 recordings, 10 h, 3 GB unpacked",
    license="CC BY 4.0",
    about=__doc__,
)


def _task(name: str, read: Callable[[Path], TaskData], labels: tuple[str, ...]) -> Task:
    tables = TableForm(labels=labels, columns=((name,), ("label",)))
    return Task(f"vocalset_{name}", f"VocalSet {name}", "classification", 3.0, read, notes=NOTES, tables=tables)


TECHNIQUE = _task("technique", read_techniques, TECHNIQUES)
SINGER = _task("singer", read_singers, SINGERS)
