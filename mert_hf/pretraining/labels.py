"""Codes made ahead of time: whole recordings are labelled once, training reads the frames of a crop.

    DIR/labels.json            teacher (fingerprint, kind, settings), sizes, rates, frames of each recording, failures
    DIR/codes/AB/ABCD....npy   unsigned integers (codebooks, frames) of a recording, named by the hash of its path

Arrays appear whole or not at all, and the index says `"complete": true` only at the end of a run: a run that was killed
is started again and goes on with the recordings that have no array yet, or were changed since.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..audio import AudioReadError, read_audio
from ..teachers import Teacher, load_teacher
from ..teachers.statistics import CodeCounts
from ..utils.outputs import check_output_folder
from ..utils.staging import staged_file
from ..utils.text import printable
from .collator import teacher_device
from .dataset import open_recordings

logger = logging.getLogger(__name__)

INDEX = "labels.json"
FORMAT = 1


@dataclass(frozen=True)
class LabelSummary:
    """What a run of `label_files` did.

    Attributes:
        labelled: recordings labelled by this run.
        kept: recordings whose codes were there already.
        failed: what is wrong with each recording that could not be labelled.
        counts: how often each code occurs in the folder, earlier runs included.
    """

    labelled: int
    kept: int
    failed: dict[str, str]
    counts: CodeCounts

    def text(self) -> str:
        """Numbers of recordings, each failure, and the table of the codes."""
        lines = [f"{self.labelled} recordings labelled, {self.kept} were there already, {len(self.failed)} failed."]
        lines += [f"failed: {printable(error)}" for error in self.failed.values()]
        return "\n".join([*lines, self.counts.table()])


def label_files(
    files: Iterable[str | os.PathLike],
    teacher: Teacher,
    output_dir: str | os.PathLike,
    device: str | torch.device | None = None,
    show_progress_bar: bool = True,
) -> LabelSummary:
    """Labels recordings, each as a whole, and goes on where a run into the same folder stopped.

    Memory holds two recordings, one being read while the other is labelled, and what `label_recording` needs.

    Args:
        files: recordings.
        teacher: an acoustic one: it gives codes.
        output_dir: of the labels; recordings of several runs come together there.
        device: on which the teacher works; where it is now if None.
        show_progress_bar: over the recordings.

    Returns:
        What was done. Recordings that cannot be read are logged and listed in it and in the index.

    Raises:
        ValueError: a musical teacher, a folder with labels of another teacher or in use by another run, no recording
            that can be read, codes out of range, or a dead codebook (the folder then stays incomplete).
    """
    if not hasattr(teacher, "num_codebooks"):
        raise ValueError(
            f"{type(teacher).__name__} gives spectra. Only codes are made ahead: give an acoustic teacher."
        )
    folder = Path(output_dir)
    check_output_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _label(sorted({absolute(file) for file in files}), teacher, folder, device, show_progress_bar)
    except Timeout:
        raise ValueError(f"Another run is writing to {folder}. Wait for it, or choose another folder.") from None


def label_by_name(
    data: Sequence[str],
    teacher: str,
    output_dir: str,
    num_codebooks: int | None = None,
    split: str | None = None,
    device: str | None = None,
    show_progress_bar: bool = True,
) -> LabelSummary:
    """`label_files` for the recordings of files and folders and a teacher by its name; on a GPU if there is one."""
    check_output_folder(output_dir)  # before the teacher is loaded
    settings = {} if num_codebooks is None else {"num_codebooks": num_codebooks}
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    files = open_recordings(data, split).names
    return label_files(files, load_teacher(teacher, **settings), output_dir, device, show_progress_bar)


def _label(
    files: Sequence[str], teacher: Teacher, folder: Path, device: str | torch.device | None, show_progress_bar: bool
) -> LabelSummary:
    index = _start_index(folder, teacher)
    counts = CodeCounts(codebook_sizes(teacher))
    kept = [file for file in files if is_labelled(folder, file, index)]
    missing = sorted(set(files) - set(kept))
    for file in sorted(set(kept) | set(index["files"]) - set(missing)):
        codes = load_codes(folder, file)
        counts.add(codes)
        index["files"][file] = codes.shape[1]
        index["failed"].pop(file, None)
    failed: dict[str, str] = {}
    if device is not None:
        teacher.to(device)
    bar = tqdm(read_ahead(missing, teacher.sampling_rate), "labelling", len(missing), disable=not show_progress_bar)
    for file, recording in bar:
        index["files"].pop(file, None)
        index["failed"].pop(file, None)
        if isinstance(recording, Exception):
            failed[file] = str(recording) if file in str(recording) else f"{file}: {recording}"
            logger.warning("Cannot label %s", printable(failed[file]))
            continue
        codes = label_recording(teacher, recording, file)
        counts.add(codes)  # refuses codes out of range, which the smaller type would wrap
        save_codes(folder, file, codes.astype(index["dtype"]))
        index["files"][file] = codes.shape[1]
    index["failed"] |= failed
    if not index["files"]:
        raise ValueError(f"None of {len(files)} recordings could be labelled. {' '.join(list(failed.values())[:1])}")
    index["statistics"] = counts.summary()
    _write_index(folder, index)
    counts.check()
    _write_index(folder, {**index, "complete": True})
    return LabelSummary(len(missing) - len(failed), len(kept), failed, counts)


def label_recording(teacher: Teacher, waveform: np.ndarray, name: str) -> np.ndarray:
    """Codes (codebooks, frames) of a recording (samples,) float32.

    Raises:
        ValueError: another shape, or fewer frames than hops.
    """
    codes = teacher.label_recording(torch.from_numpy(waveform).to(teacher_device(teacher))).cpu().numpy()
    frames = len(waveform) // teacher.hop_length
    if codes.ndim != 2 or len(codes) != teacher.num_codebooks or codes.shape[1] < frames:
        expected = f"({teacher.num_codebooks}, {frames} or more)"
        raise ValueError(f"{name}: expected codes of shape {expected}, the teacher gave {codes.shape}.")
    return codes


def read_ahead(files: Sequence[str], sampling_rate: int) -> Iterator[tuple[str, np.ndarray | Exception]]:
    """Whole recordings (samples,) float32 or what is wrong with them; the next is read while one is in use."""

    def read(file: str) -> np.ndarray | Exception:
        try:
            waveform = read_audio(file, sampling_rate)
        except (AudioReadError, OSError) as error:
            return error
        if not np.isfinite(waveform).all():
            return AudioReadError(file, "it holds values that are not finite", "Mend or remove the file")
        return waveform

    with ThreadPoolExecutor(max_workers=1) as pool:
        pending: deque[tuple[str, Any]] = deque()
        for file in files:
            pending.append((file, pool.submit(read, file)))
            if len(pending) > 1:
                file, recording = pending.popleft()
                yield file, recording.result()
        for file, recording in pending:
            yield file, recording.result()


def codebook_sizes(teacher: Teacher) -> tuple[int, ...]:
    """Number of codes of each codebook."""
    return tuple(getattr(teacher, "codebook_sizes", (teacher.codebook_size,) * teacher.num_codebooks))


def absolute(file: str | os.PathLike) -> str:
    """The path by which labels are found: absolute, links left as they are."""
    return os.path.abspath(os.fspath(file))


def codes_path(folder: Path, file: str) -> Path:
    """Where the codes of a recording are."""
    name = hashlib.blake2b(os.fsencode(file), digest_size=16).hexdigest()
    return folder / "codes" / name[:2] / f"{name}.npy"


def save_codes(folder: Path, file: str, codes: np.ndarray) -> None:
    with staged_file(codes_path(folder, file)) as path, path.open("wb") as target:
        np.save(target, codes, allow_pickle=False)


def load_codes(folder: Path, file: str) -> np.ndarray:
    """Codes (codebooks, frames) of a recording, mapped into memory.

    Raises:
        ValueError: there are none, or they are damaged.
    """
    path = codes_path(folder, file)
    try:
        codes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}, the codes of {file}, cannot be read: {error}. Run mert-hf label again.") from error
    if codes.ndim != 2 or codes.dtype.kind != "u":
        raise ValueError(f"{path} holds {codes.dtype} of shape {codes.shape}, no codes. Run mert-hf label again.")
    return codes


def is_labelled(folder: Path, file: str, index: dict[str, Any]) -> bool:
    """Whether there are codes of a recording, readable, of the right sizes, and made after its last change."""
    path = codes_path(folder, file)
    if not path.is_file() or not os.path.isfile(file) or path.stat().st_mtime_ns < os.stat(file).st_mtime_ns:
        return False
    try:
        codes = load_codes(folder, file)
    except ValueError as error:
        logger.warning("Labelling anew: %s", printable(error))
        return False
    return codes.dtype == index["dtype"] and len(codes) == index["num_codebooks"]


def _start_index(folder: Path, teacher: Teacher) -> dict[str, Any]:
    """The folder's index, written anew where there is none, and marked incomplete."""
    fresh = {
        "format": FORMAT,
        "complete": False,
        "teacher": {"kind": teacher.kind, "fingerprint": teacher.fingerprint(), "settings": teacher.settings()},
        "num_codebooks": teacher.num_codebooks,
        "codebook_size": teacher.codebook_size,
        "codebook_sizes": list(codebook_sizes(teacher)),
        "sampling_rate": teacher.sampling_rate,
        "hop_length": teacher.hop_length,
        "dtype": np.min_scalar_type(teacher.codebook_size - 1).name,
        "statistics": [],
        "files": {},
        "failed": {},
    }
    if (folder / INDEX).is_file():
        found = read_index(folder)
        check_teacher(folder, found, teacher)
        fresh |= {name: found[name] for name in ("statistics", "files", "failed")}
    for leftover in folder.glob("codes/*/.*.partial"):
        leftover.unlink(missing_ok=True)
    _write_index(folder, fresh)
    return fresh


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    with staged_file(folder / INDEX) as path:
        path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def read_index(folder: Path) -> dict[str, Any]:
    """`labels.json` of a folder.

    Raises:
        ValueError: there is none, or it is none of ours.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} has no {INDEX}. Make labels with mert-hf label.") from None
    except ValueError as error:
        raise ValueError(f"{folder / INDEX} is damaged: {error}. Run mert-hf label into a new folder.") from error
    sizes = ("num_codebooks", "codebook_size", "sampling_rate", "hop_length")
    if (
        not isinstance(index, dict)
        or index.get("format") != FORMAT
        or not all(isinstance(index.get(name), int) and index[name] > 0 for name in sizes)
        or not all(isinstance(index.get(name), dict) for name in ("teacher", "files", "failed"))
        or not all(isinstance(index.get(name), list) for name in ("statistics", "codebook_sizes"))
    ):
        raise ValueError(f"{folder / INDEX} is no index of labels of format {FORMAT}. Make labels with mert-hf label.")
    return index


def check_teacher(folder: Path, index: dict[str, Any], teacher: Teacher) -> None:
    """ValueError where labels are of another teacher: another kind, other settings or other weights."""
    made_by, fingerprint = index["teacher"], teacher.fingerprint()
    if made_by.get("fingerprint") == fingerprint:
        return
    given = {"kind": teacher.kind, "settings": teacher.settings()}
    labelled = {name: made_by.get(name) for name in given}
    difference = "the same settings but other weights" if labelled == given else f"{given}"
    raise ValueError(
        f"The labels in {folder} were made by another teacher: {labelled}, fingerprint "
        f"{str(made_by.get('fingerprint'))[:12]}. The one given has {difference}, fingerprint {fingerprint[:12]}. Use "
        "the labels' own teacher, or label into another folder."
    )


class LabelCache:
    """Codes of crops, cut out of those of whole recordings.

    Args:
        directory: that `label_files` filled.
        teacher: if given, labels of any other are refused.
        root: folder that holds the recordings now, where they have moved since: their common folder at that time.

    Attributes:
        num_codebooks: of the teacher.
        codebook_size: of the largest codebook.
        codebook_sizes: number of codes of each codebook.
        sampling_rate: in Hz, at which the teacher heard the recordings.
        hop_length: samples between frames.

    Raises:
        ValueError: no labels, unfinished ones, or those of another teacher.
    """

    def __init__(
        self, directory: str | os.PathLike, teacher: Teacher | None = None, root: str | os.PathLike | None = None
    ):
        self.directory = Path(directory).absolute()
        index = read_index(self.directory)
        if teacher is not None:
            check_teacher(self.directory, index, teacher)
        if index.get("complete") is not True:
            raise ValueError(
                f"The labels in {directory} are not finished. Run the same mert-hf label again: it goes on."
            )
        self.num_codebooks, self.codebook_size = index["num_codebooks"], index["codebook_size"]
        self.codebook_sizes = tuple(index["codebook_sizes"])
        self.sampling_rate, self.hop_length = index["sampling_rate"], index["hop_length"]
        self._frames, self._failed = index["files"], index["failed"]
        self._root = None if root is None else absolute(root)
        self._root_before = os.path.commonpath([os.path.dirname(file) for file in self._frames])

    @property
    def frame_rate(self) -> float:
        """Frames in a second, in Hz."""
        return self.sampling_rate / self.hop_length

    @property
    def recordings(self) -> list[str]:
        """Absolute paths of the labelled recordings, as they were then."""
        return list(self._frames)

    def __call__(self, source: str, first_frame: int, num_frames: int) -> np.ndarray:
        """Codes of a part of a recording.

        Args:
            source: path of the recording.
            first_frame: frame at which the part begins: its first sample divided by `hop_length`.
            num_frames: length of the part.

        Returns:
            (num_codebooks, num_frames) int64.

        Raises:
            ValueError: no codes of this recording, or not so many frames.
        """
        file = self._labelled_as(source)
        if file not in self._frames:
            reason = self._failed.get(file, f"it is none of the {len(self._frames)} that were labelled")
            raise ValueError(f"There are no codes of {source} in {self.directory}: {reason}. {self._remedy}")
        codes = load_codes(self.directory, file)
        last = first_frame + num_frames
        if codes.shape != (self.num_codebooks, self._frames[file]) or not 0 <= first_frame <= last <= codes.shape[1]:
            raise ValueError(
                f"{source} has codes of shape {codes.shape}, asked for frames {first_frame} to {last} of "
                f"{self.num_codebooks} codebooks. Was it changed since? Run mert-hf label again."
            )
        return codes[:, first_frame:last].astype(np.int64)

    def check(self, sources: Sequence[str]) -> None:
        """Looks for recordings that nobody tried to label, so that training does not find them in its middle.

        Raises:
            ValueError: there are some.
        """
        known = self._frames.keys() | self._failed.keys()
        if missing := [source for source in sources if self._labelled_as(source) not in known]:
            raise ValueError(
                f"{len(missing)} of {len(sources)} recordings have no codes in {self.directory}, such as {missing[0]}. "
                f"{self._remedy}"
            )

    @property
    def _remedy(self) -> str:
        return (
            "Label what is missing with mert-hf label, or take it out of the data; if the recordings have moved, give "
            f"LabelCache their folder as root (--label_root in pre-training), which was {self._root_before}."
        )

    def _labelled_as(self, source: str) -> str:
        """The path under which a recording was labelled."""
        file = absolute(source)
        if self._root is None:
            return file
        return os.path.normpath(os.path.join(self._root_before, os.path.relpath(file, self._root)))


def code_statistics(directory: str | os.PathLike) -> CodeCounts:
    """Histogram and entropy of each codebook over all labels of a folder.

    Raises:
        ValueError: a codebook is dead (see `CodeCounts.dead`), a code is out of range, or codes are damaged.
    """
    folder = Path(directory)
    index = read_index(folder)
    counts = CodeCounts(index["codebook_sizes"])
    for file in index["files"]:
        counts.add(load_codes(folder, file))
    counts.check()
    return counts
