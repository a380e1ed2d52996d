"""MARBLE v2's tables: one JSON object a line with `audio_path`, `label`, and optionally `ori_uid` and `duration`.

    FOLDER/NAME.train.jsonl, NAME.val.jsonl, NAME.test.jsonl

(github.com/a43992899/MARBLE; on the Hub m-a-p/GTZAN, m-a-p/EMO, m-a-p/GS, m-a-p/MTT, m-a-p/MTG, m-a-p/Chords1217.)
Paths such as `data/GTZAN/genres/blues/blues.00012.wav` count from the folder in which MARBLE was run; they are also
found where the data set's folder was moved as a whole. Absolute paths are read where they lie below the data folder.
Clips with the same `ori_uid` were cut from one song and are
scored as one recording.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from .audiofolder import read_table
from .metadata import safe_name
from .recordings import SPLITS, TaskData, located
from .targets import TargetTable

SPLIT_WORDS = {"train": "train", "valid": "val", "test": "test"}


def find_jsonl(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The files of the three splits, of the first of `names` that has all of them; empty where none has."""
    for name in names:
        for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
            files = {split: place / f"{name}.{word}.jsonl" for split, word in SPLIT_WORDS.items()}
            if all(path.is_file() for path in files.values()):
                return files
    return {}


def read_jsonl(
    files: Mapping[str, Path],
    kind: str,
    labels: tuple[str, ...] = (),
    order: tuple[str, ...] = (),
    root: Path | None = None,
) -> TaskData:
    """Reads the tables of the three splits, `files` by split.

    `labels` are names of classes or numbers where the task fixes them, `order` those of the numbers in the tables,
    where it differs. Absolute paths must lie in the data folder `root`, that of the tables if None.

    Raises:
        ValueError: a line that is not a JSON object, or lacks `audio_path` or `label`; a path outside the data folder.
    """
    rows, paths, ensembles = [], [], []
    for split in SPLITS:
        lines = _read_lines(files[split])
        names = [_relative(line["audio_path"], root or files[split].parent, files[split]) for line in lines]
        paths += located(names, _file_rules(files[split].parent, names))
        for name, line in zip(names, lines, strict=True):
            name = PurePosixPath(name).with_suffix("").as_posix()
            rows.append({"file_name": name, "split": split, "label": _cell(line["label"], labels, order)})
            ensembles.append(str(line.get("ori_uid", "")))
    table = TargetTable(rows, ["label"], labels, source=files["train"].name)
    return read_table(table, kind, paths, files["train"].name.split(".")[0], ensembles)


def _read_lines(table: Path) -> list[dict[str, Any]]:
    lines = []
    for number, text in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{table}, line {number} is not JSON ({error}).") from None
        if not isinstance(line, dict) or not {"audio_path", "label"} <= line.keys():
            raise ValueError(f"{table}, line {number} needs 'audio_path' and 'label'.")
        lines.append(line)
    if not lines:
        raise ValueError(f"{table} has no lines; give one for each recording.")
    return lines


def _relative(name: str, root: Path, table: Path) -> str:
    """An absolute path relative to the data folder; any other as it is."""
    path = Path(name)
    if not path.is_absolute():
        return name
    base = next((base for base in (root.absolute(), root.resolve()) if path.is_relative_to(base)), None)
    if base is None:
        raise ValueError(
            f"{table}: audio_path {name!r} does not lie in the data folder {root}. Give the folder that holds the "
            "recordings as --data, or paths relative to it."
        )
    return path.relative_to(base).as_posix()


def _cell(label: Any, labels: tuple[str, ...], order: tuple[str, ...]) -> str:
    """A label as the text of a cell."""
    if order:
        label = [label[order.index(name)] for name in labels]
    return label if isinstance(label, str) else json.dumps(label)


def _file_rules(folder: Path, names: Sequence[str]) -> list[Callable[[str], Path]]:
    """Where a listed path may lie: below the folder or one above it, with its first folders dropped."""
    depth = max(len(PurePosixPath(safe_name(name, folder)).parts) for name in names)
    return [
        lambda name, base=base, dropped=dropped: base.joinpath(*PurePosixPath(name).parts[dropped:])
        for base in (folder, *list(folder.resolve().parents)[:3])
        for dropped in range(depth)
    ]
