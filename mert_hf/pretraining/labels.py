"""Codes made ahead of time: whole recordings are labeled once, and training reads the frames of a crop.

    DIR/labels.json            teacher (fingerprint, kind, settings), sizes, rates, frames of each recording, failures
    DIR/codes/AB/ABCD....npy   unsigned integers (codebooks, frames) of a recording, named by the hash of its path

Each array is written whole or not at all, and the index has `"complete": true` only at the end of a run. A run that was
killed and is started again labels the recordings that have no array yet, or that have changed since.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..audio import AudioReadError, read_audio
from ..audio.read_ahead import END, read_ahead
from ..corpora.dataset import open_recordings
from ..teachers import AcousticTeacher, Teacher, load_teacher
from ..teachers.statistics import CodeCounts
from ..utils.devices import resolve_device
from ..utils.files import check_output_folder, only_writer, staged_file
from ..utils.text import printable
from .collator import teacher_device

logger = logging.getLogger(__name__)

INDEX = "labels.json"
FORMAT = 1


@dataclass(frozen=True)
class LabelSummary:
    """The result of a run of `label_files`.

    Attributes:
        labelled: number of recordings labeled by this run.
        kept: number of recordings whose codes existed already.
        failed: for each recording that could not be labeled, the reason.
        counts: histogram of the codes in the folder, those of earlier runs included.
    """

    labelled: int
    kept: int
    failed: dict[str, str]
    counts: CodeCounts

    def text(self) -> str:
        """Numbers of recordings, the failures, and the table of the codes."""
        lines = [f"{self.labelled} recordings labeled, {self.kept} existed already, {len(self.failed)} failed."]
        lines += [f"failed: {printable(error)}" for error in self.failed.values()]
        return "\n".join([*lines, self.counts.table()])


def label_files(
    files: Iterable[str | os.PathLike],
    teacher: AcousticTeacher,
    output_dir: str | os.PathLike,
    device: str | torch.device | None = None,
    show_progress_bar: bool = True,
    workers: int = 1,
) -> LabelSummary:
    """Labels recordings, each as a whole, and resumes where an earlier run into the same folder stopped.

    Memory holds a recording for each worker, the one that is labeled, and the buffers of `label_recording`.

    Args:
        files: recordings.
        teacher: an acoustic teacher, which gives codes.
        output_dir: folder of the labels; several runs may add recordings to it.
        device: device on which the teacher computes; the one where it is if None.
        show_progress_bar: show a progress bar over the recordings.
        workers: recordings that are read at the same time.

    Returns:
        The result. Recordings that cannot be read are logged and listed in it and in the index.

    Raises:
        ValueError: the teacher is not acoustic, the folder has labels of another teacher or is used by another run, no
            recording can be read, codes are out of range, or a codebook is dead (the folder then stays incomplete).
    """
    check_gives_codes(teacher)
    with only_writer(output_dir) as folder:
        teacher = teacher if device is None else teacher.to(device)
        return _label(sorted({absolute(file) for file in files}), teacher, folder, workers, show_progress_bar)


def check_gives_codes(teacher: Teacher) -> None:
    """Raises ValueError for a teacher that is not acoustic."""
    if not isinstance(teacher, AcousticTeacher):
        raise ValueError(
            f"{type(teacher).__name__} is not an acoustic teacher. Only codes are made ahead of time: give an EnCodec "
            "or another AcousticTeacher."
        )


def label_by_name(
    data: Sequence[str],
    teacher: str,
    output_dir: str,
    num_codebooks: int | None = None,
    split: str | None = None,
    device: str | None = None,
    show_progress_bar: bool = True,
    workers: int = 1,
) -> LabelSummary:
    """Calls `label_files` for files and folders and the name of a teacher, on a GPU if there is one."""
    check_output_folder(output_dir)  # before the teacher is loaded
    settings = {} if num_codebooks is None else {"num_codebooks": num_codebooks}
    device = resolve_device(device)
    files = open_recordings(data, split).names
    return label_files(files, load_teacher(teacher, **settings), output_dir, device, show_progress_bar, workers)


def _label(
    files: Sequence[str], teacher: AcousticTeacher, folder: Path, workers: int, show_progress_bar: bool
) -> LabelSummary:
    index = _start_index(folder, teacher)
    counts = CodeCounts(teacher.codebook_sizes)
    kept = [file for file in files if is_labelled(folder, file, index)]
    missing = sorted(set(files) - set(kept))
    _count_existing(sorted(set(kept) | set(index["files"]) - set(missing)), folder, index, counts)
    failed: dict[str, str] = {}
    recordings = read_recordings(missing, teacher.sampling_rate, workers)
    for file, recording in tqdm(recordings, "labeling", len(missing), disable=not show_progress_bar):
        index["files"].pop(file, None)
        index["failed"].pop(file, None)
        if isinstance(recording, Exception):
            failed[file] = str(recording) if file in str(recording) else f"{file}: {recording}"
            logger.warning("Cannot label %s", printable(failed[file]))
            continue
        codes = label_recording(teacher, recording, file)
        counts.add(codes)  # refuses codes out of range, which the conversion to the smaller type would wrap
        save_codes(folder, file, codes.astype(index["dtype"]))
        index["files"][file] = codes.shape[1]
    index["failed"] |= failed
    if not index["files"]:
        raise ValueError(f"None of {len(files)} recordings could be labeled. {' '.join(list(failed.values())[:1])}")
    index["statistics"] = counts.summary()
    _write_index(folder, index)
    counts.check()
    _write_index(folder, {**index, "complete": True})
    return LabelSummary(len(missing) - len(failed), len(kept), failed, counts)


def _count_existing(files: Sequence[str], folder: Path, index: dict[str, Any], counts: CodeCounts) -> None:
    """Adds codes that exist already to the histogram, and their recordings to the index."""
    for file in files:
        codes = load_codes(folder, file)
        counts.add(codes)
        index["files"][file] = codes.shape[1]
        index["failed"].pop(file, None)


def label_recording(teacher: AcousticTeacher, waveform: np.ndarray, name: str) -> np.ndarray:
    """Codes (codebooks, frames) of a recording (samples,) float32.

    Raises:
        ValueError: the teacher gave another shape, or fewer frames than hops.
    """
    codes = teacher.label_recording(torch.from_numpy(waveform).to(teacher_device(teacher))).cpu().numpy()
    frames = len(waveform) // teacher.hop_length
    if codes.ndim != 2 or len(codes) != teacher.num_codebooks or codes.shape[1] < frames:
        expected = f"({teacher.num_codebooks}, {frames} or more)"
        raise ValueError(f"{name}: expected codes of shape {expected}, the teacher gave {codes.shape}.")
    return codes


def read_recordings(
    files: Sequence[str], sampling_rate: int, workers: int
) -> Iterator[tuple[str, np.ndarray | AudioReadError | OSError]]:
    """Each file with its recording (samples,) float32 or the error of reading it; the next ones are read ahead."""
    readers = [partial(read_recording, file, sampling_rate) for file in files]
    for position, recording in read_ahead(readers, workers, held=workers + 1):
        if isinstance(recording, Exception) and not isinstance(recording, (AudioReadError, OSError)):
            raise recording
        if recording is not END:
            yield files[position], recording


def read_recording(file: str, sampling_rate: int) -> Iterator[np.ndarray]:
    """A whole recording (samples,) float32, as the single item of a reader.

    Raises:
        AudioReadError: it cannot be decoded, or holds values that are not finite.
    """
    waveform = read_audio(file, sampling_rate)
    if not np.isfinite(waveform).all():
        raise AudioReadError(file, "it holds values that are not finite", "Fix or remove the file")
    yield waveform


def absolute(file: str | os.PathLike) -> str:
    """The path under which labels are stored: absolute, with links unresolved."""
    return os.path.abspath(os.fspath(file))


def codes_path(folder: Path, file: str) -> Path:
    """The file of a recording's codes."""
    name = hashlib.blake2b(os.fsencode(file), digest_size=16).hexdigest()
    return folder / "codes" / name[:2] / f"{name}.npy"


def save_codes(folder: Path, file: str, codes: np.ndarray) -> None:
    with staged_file(codes_path(folder, file)) as path, path.open("wb") as target:
        np.save(target, codes, allow_pickle=False)


def load_codes(folder: Path, file: str) -> np.ndarray:
    """Codes (codebooks, frames) of a recording, as a memory map.

    Raises:
        ValueError: there is no file of codes, or it is damaged.
    """
    path = codes_path(folder, file)
    try:
        codes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}, the codes of {file}, cannot be read: {error}. Run mert-hf label again.") from error
    if codes.ndim != 2 or codes.dtype.kind != "u":
        raise ValueError(
            f"{path} holds {codes.dtype} of shape {codes.shape}, which are not codes. Run mert-hf label again."
        )
    return codes


def is_labelled(folder: Path, file: str, index: dict[str, Any]) -> bool:
    """Whether a recording has codes that are readable, of the right sizes, and newer than its last change."""
    path = codes_path(folder, file)
    if not path.is_file() or not os.path.isfile(file) or path.stat().st_mtime_ns < os.stat(file).st_mtime_ns:
        return False
    try:
        codes = load_codes(folder, file)
    except ValueError as error:
        logger.warning("Labeling again: %s", printable(error))
        return False
    return codes.dtype == index["dtype"] and len(codes) == index["num_codebooks"]


def _start_index(folder: Path, teacher: AcousticTeacher) -> dict[str, Any]:
    """The index of the folder, a new one where there is none, marked as incomplete."""
    fresh = {
        "format": FORMAT,
        "complete": False,
        "teacher": {"kind": teacher.kind, "fingerprint": teacher.fingerprint(), "settings": teacher.settings()},
        "num_codebooks": teacher.num_codebooks,
        "codebook_size": teacher.codebook_size,
        "codebook_sizes": list(teacher.codebook_sizes),
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
        ValueError: there is no index, or it is not one of this format.
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
        raise ValueError(
            f"{folder / INDEX} is not an index of labels of format {FORMAT}. Make labels with mert-hf label."
        )
    return index


def check_teacher(folder: Path, index: dict[str, Any], teacher: AcousticTeacher) -> None:
    """Raises ValueError where labels are of another teacher: another kind, other settings or other weights."""
    made_by, fingerprint = index["teacher"], teacher.fingerprint()
    if made_by.get("fingerprint") == fingerprint:
        return
    given = {"kind": teacher.kind, "settings": teacher.settings()}
    labelled = {name: made_by.get(name) for name in given}
    difference = "the same settings but other weights" if labelled == given else f"{given}"
    raise ValueError(
        f"The labels in {folder} were made by another teacher: {labelled}, fingerprint "
        f"{str(made_by.get('fingerprint'))[:12]}. The given one has {difference}, fingerprint {fingerprint[:12]}. Use "
        "the teacher of the labels, or label into another folder."
    )


class LabelCache:
    """Codes of crops, cut out of those of whole recordings.

    Args:
        directory: folder that `label_files` filled.
        teacher: if given, labels of another teacher are refused.
        root: folder that holds the recordings now, in place of their common folder when they were labeled.

    Attributes:
        num_codebooks: number of codebooks.
        codebook_size: number of codes in the largest codebook.
        codebook_sizes: number of codes in each codebook.
        sampling_rate: sampling rate in Hz at which the recordings were labeled.
        hop_length: samples from one frame to the next.

    Raises:
        ValueError: there are no labels, they are unfinished, or they are of another teacher.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        teacher: AcousticTeacher | None = None,
        root: str | os.PathLike | None = None,
    ):
        self.directory = Path(directory).absolute()
        index = read_index(self.directory)
        if teacher is not None:
            check_teacher(self.directory, index, teacher)
        if index.get("complete") is not True:
            raise ValueError(
                f"The labels in {directory} are not finished. Run the same mert-hf label again: it resumes."
            )
        self.num_codebooks, self.codebook_size = index["num_codebooks"], index["codebook_size"]
        self.codebook_sizes = tuple(index["codebook_sizes"])
        self.sampling_rate, self.hop_length = index["sampling_rate"], index["hop_length"]
        self._frames, self._failed = index["files"], index["failed"]
        self._root = None if root is None else absolute(root)
        self._root_before = os.path.commonpath([os.path.dirname(file) for file in self._frames])

    @property
    def frame_rate(self) -> float:
        """Frames per second, in Hz."""
        return self.sampling_rate / self.hop_length

    @property
    def recordings(self) -> list[str]:
        """Absolute paths of the labeled recordings at the time of labeling."""
        return list(self._frames)

    def __call__(self, source: str, first_frame: int, num_frames: int) -> np.ndarray:
        """Codes of a part of a recording.

        Args:
            source: path of the recording.
            first_frame: first frame of the part: its first sample divided by `hop_length`.
            num_frames: number of frames of the part.

        Returns:
            (num_codebooks, num_frames) int64.

        Raises:
            ValueError: the recording has no codes, or fewer frames.
        """
        file = self._labelled_as(source)
        if file not in self._frames:
            reason = self._failed.get(file, f"it is not among the {len(self._frames)} labeled recordings").rstrip(".")
            raise ValueError(f"There are no codes of {source} in {self.directory}: {reason}. {self._remedy}")
        codes = load_codes(self.directory, file)
        last = first_frame + num_frames
        if codes.shape != (self.num_codebooks, self._frames[file]) or not 0 <= first_frame <= last <= codes.shape[1]:
            raise ValueError(
                f"{source} has codes of shape {codes.shape}, asked for frames {first_frame} to {last} of "
                f"{self.num_codebooks} codebooks. If it has changed since, run mert-hf label again."
            )
        return codes[:, first_frame:last].astype(np.int64)

    def failures(self, sources: Sequence[str]) -> dict[str, str]:
        """Those of the recordings that could not be labeled, with the reason."""
        labelled_as = {source: self._labelled_as(source) for source in sources}
        return {source: self._failed[file] for source, file in labelled_as.items() if file in self._failed}

    def check(self, sources: Sequence[str]) -> None:
        """Looks for recordings that were never labeled, so that they do not end a run in the middle of training.

        Raises:
            ValueError: there are such recordings.
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
            "Label the missing ones with mert-hf label, or remove them from the data. If the recordings have moved, "
            f"give LabelCache their folder as root (--label_root in pre-training), which was {self._root_before}."
        )

    def _labelled_as(self, source: str) -> str:
        """The path under which a recording was labeled."""
        file = absolute(source)
        if self._root is None:
            return file
        return os.path.normpath(os.path.join(self._root_before, os.path.relpath(file, self._root)))
