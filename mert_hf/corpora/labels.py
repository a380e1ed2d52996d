"""Targets made ahead of time: whole recordings are labeled once, and training reads the frames of a crop.

    DIR/labels.json            teacher (fingerprint, kind, settings), sizes, rates, frames of each recording, failures
    DIR/codes/AB/ABCD....npy   unsigned integers (codebooks, frames) of a recording, named by the hash of its path;
                               of a musical teacher its values, float16 (bins, frames)

Each array is written whole or not at all, and the index has `"complete": true` only at the end of a run. A run that was
killed and is started again labels the recordings that have no array yet, or that have changed since.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from ..audio import read_audio
from ..audio.read_ahead import map_ahead
from ..utils.devices import device_of
from ..utils.files import only_writer, read_json, staged_file, write_json
from ..utils.text import printable
from .code_counts import CodeCounts

if TYPE_CHECKING:
    from ..teachers import Teacher

logger = logging.getLogger(__name__)

INDEX = "labels.json"
FORMAT = 1
VALUES = np.dtype(np.float16)  # of a musical teacher
Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass
class WritingSummary:
    """The result of labeling recordings, or of writing them to shards."""

    written: int = 0  # number of recordings that this run finished
    kept: int = 0  # number of those that an earlier run had finished
    failed: dict[str, str] = field(default_factory=dict)  # for recordings that could not be used, the reason
    shards: int = 0  # number of shards that this run wrote
    counts: CodeCounts | None = None  # of all codes in a folder of labels; None for values
    labels: bool = False  # whether targets were made, not shards

    @property
    def total(self) -> int:
        """Number of recordings that were looked at."""
        return self.written + self.kept + len(self.failed)

    def text(self) -> str:
        """Numbers of recordings, the failures, and the table of the codes."""
        action = "labeled" if self.labels else f"written to {self.shards} shards"
        lines = [f"{self.written} recordings {action}, {self.kept} existed already, {len(self.failed)} failed."]
        lines += [f"failed: {printable(reason)}" for reason in self.failed.values()]
        return "\n".join(lines if self.counts is None else [*lines, self.counts.table()])

    def read(
        self, function: Callable[[Item], Result], items: Iterable[Item], workers: int, show_progress_bar: bool
    ) -> Iterator[tuple[Item, Result]]:
        """Items with their results, read ahead; those that cannot be read are logged and noted as failed."""
        bar = tqdm(map_ahead(function, items, workers), unit=" recordings", disable=not show_progress_bar)
        for item, result in bar:
            if isinstance(result, Exception):
                name, reason = str(item), str(result)
                self.failed[name] = reason if name in reason else f"{name}: {reason}"
                logger.warning("Cannot use %s", printable(self.failed[name]))
            else:
                yield item, result
                self.written += 1


def label_files(
    files: Iterable[str | os.PathLike],
    teacher: Teacher,
    output_dir: str | os.PathLike,
    device: str | torch.device | None = None,
    show_progress_bar: bool = True,
    workers: int = 1,
) -> WritingSummary:
    """Labels recordings, each as a whole, and resumes where an earlier run into the same folder stopped.

    Memory holds a recording for each worker, the one that is labeled, and the buffers of `label_recording`.

    Args:
        files: recordings.
        teacher: a teacher of codes or of values whose targets do not follow a training.
        output_dir: folder of the labels; several runs may add recordings to it.
        device: device on which the teacher computes; the one where it is if None.
        show_progress_bar: show a progress bar over the recordings.
        workers: recordings that are read at the same time.

    Returns:
        The result. Recordings that cannot be read are logged and listed in it and in the index.

    Raises:
        ValueError: the targets follow a training, the folder has labels of another teacher or is used by another run,
            no recording can be read, codes are out of range, or a codebook is dead (the folder then stays incomplete).
    """
    if hasattr(teacher, "follow"):
        raise ValueError(
            f"The targets of {type(teacher).__name__} follow the training, so that they cannot be made ahead of time."
        )
    with only_writer(output_dir) as folder:
        teacher = teacher if device is None else teacher.to(device)
        files = sorted({os.path.abspath(file) for file in files})  # links stay unresolved
        index = _start_index(folder, teacher)
        counts = CodeCounts(teacher.codebook_sizes) if gives_codes(teacher) else None
        kept = [file for file in files if is_labelled(folder, file, index)]
        missing = sorted(set(files) - set(kept))
        for file in sorted(set(kept) | set(index["files"]) - set(missing)):
            _add(index, counts, file, load_codes(folder, file))
        summary = WritingSummary(kept=len(kept), counts=counts, labels=True)

        def read(file: str) -> np.ndarray:
            return read_audio(file, teacher.sampling_rate)

        for file, recording in summary.read(read, missing, workers, show_progress_bar):
            labels = label_recording(teacher, recording, file)
            _add(index, counts, file, labels)  # refuses codes out of range, which the smaller type would wrap
            with staged_file(codes_path(folder, file)) as path, path.open("wb") as target:
                np.save(target, labels.astype(index["dtype"]), allow_pickle=False)
        index["failed"] |= summary.failed
        index["files"] = {file: frames for file, frames in index["files"].items() if file not in summary.failed}
        _finish_index(folder, index, counts, files)
        return summary


def gives_codes(teacher: Any) -> bool:
    return hasattr(teacher, "codebook_sizes")


def label_recording(teacher: Teacher, waveform: np.ndarray, name: str) -> np.ndarray:
    """Codes (codebooks, frames), or values (bins, frames), of a recording (samples,) float32, checked."""
    targets = teacher.label_recording(torch.from_numpy(waveform).to(device_of(teacher)), name).cpu().numpy()
    rows = teacher.num_codebooks if gives_codes(teacher) else teacher.num_bins
    targets = targets if gives_codes(teacher) else targets.T
    frames = len(waveform) // teacher.hop_length
    if targets.ndim != 2 or len(targets) != rows or targets.shape[1] < frames:
        raise ValueError(f"{name}: expected {rows} rows of {frames} or more, the teacher gave {targets.shape}.")
    if not np.isfinite(targets).all():
        raise ValueError(f"{name}: the teacher gave values that are not finite.")
    return targets


def codes_of(teacher: Teacher) -> dict[str, Any]:
    """The facts about a teacher that are kept next to its targets: rates, sizes and identity."""
    sizes = {"codebook_sizes": list(teacher.codebook_sizes)} if gives_codes(teacher) else {"num_bins": teacher.num_bins}
    return {
        "sampling_rate": teacher.sampling_rate,
        "hop_length": teacher.hop_length,
        **sizes,
        "teacher": {"kind": teacher.kind, "fingerprint": teacher.fingerprint(), "settings": teacher.settings()},
    }


def check_teacher(place: str, made_by: dict[str, Any], teacher: Teacher) -> None:
    """Raises ValueError where codes in a place are of another teacher than given, by `teacher` of `codes_of` then."""
    given = codes_of(teacher)["teacher"]
    if made_by.get("fingerprint") == (fingerprint := given.pop("fingerprint")):
        return
    labeled = {name: made_by.get(name) for name in given}
    difference = "the same settings but other weights" if labeled == given else f"{given}"
    raise ValueError(
        f"The codes in {place} were made by another teacher: {labeled}, fingerprint "
        f"{str(made_by.get('fingerprint'))[:12]}. The given one has {difference}, fingerprint {fingerprint[:12]}. Use "
        "the teacher of the codes, or label into another folder."
    )


def codes_path(folder: Path, file: str) -> Path:
    name = hashlib.blake2b(os.fsencode(file), digest_size=16).hexdigest()
    return folder / "codes" / name[:2] / f"{name}.npy"


def load_codes(folder: Path, file: str) -> np.ndarray:
    """Codes (codebooks, frames) of a recording, as a memory map. Raises ValueError where they cannot be read."""
    path = codes_path(folder, file)
    try:
        codes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}, the codes of {file}, cannot be read: {error}. Run mert-hf label again.") from error
    if codes.ndim != 2 or not (codes.dtype.kind == "u" or codes.dtype == VALUES):
        raise ValueError(
            f"{path} holds {codes.dtype} of shape {codes.shape}, which are no targets. Run mert-hf label again."
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
    return codes.dtype == index["dtype"] and len(codes) == rows_of(index)


def rows_of(index: dict[str, Any]) -> int:
    """Codebooks or values of each frame."""
    return len(index["codebook_sizes"]) if "codebook_sizes" in index else index["num_bins"]


def _start_index(folder: Path, teacher: Teacher) -> dict[str, Any]:
    """The index of the folder, a new one where there is none, marked as incomplete."""
    index = {"format": FORMAT, "complete": False, **codes_of(teacher), "statistics": [], "files": {}, "failed": {}}
    index["dtype"] = (np.min_scalar_type(teacher.codebook_size - 1) if gives_codes(teacher) else VALUES).name
    if (folder / INDEX).is_file():
        found = read_index(folder)
        check_teacher(str(folder), found["teacher"], teacher)
        index |= {name: found[name] for name in ("statistics", "files", "failed")}
    for leftover in folder.glob("codes/*/.*.partial"):
        leftover.unlink(missing_ok=True)
    write_json(folder / INDEX, index)
    return index


def _add(index: dict[str, Any], counts: CodeCounts | None, file: str, codes: np.ndarray) -> None:
    """Adds the codes of a recording to the histogram, and the recording to the index."""
    if counts is not None:
        counts.add(codes)
    index["files"][file] = codes.shape[1]
    index["failed"].pop(file, None)


def _finish_index(folder: Path, index: dict[str, Any], counts: CodeCounts | None, files: Sequence[str]) -> None:
    """Writes the index as complete, unless a codebook is dead."""
    if not index["files"]:
        raise ValueError(
            f"None of {len(files)} recordings could be labeled. {' '.join(list(index['failed'].values())[:1])}"
        )
    if counts is not None:
        index["statistics"] = counts.summary()
        write_json(folder / INDEX, index)
        counts.check()
    write_json(folder / INDEX, {**index, "complete": True})


def read_index(folder: Path) -> dict[str, Any]:
    """`labels.json` of a folder. Raises ValueError where there is none of this format."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"{folder} has no {INDEX}. Make labels with mert-hf label.")
    index = read_json(path)
    needed = {"teacher", "sampling_rate", "hop_length", "files", "failed"}
    sizes = {"codebook_sizes", "num_bins"} & index.keys()
    if index.get("format") != FORMAT or not needed <= index.keys() or not sizes:
        raise ValueError(f"{path} is not an index of labels of format {FORMAT}. Make labels with mert-hf label.")
    return index


class LabelCache:
    """Targets of crops, cut out of those of whole recordings.

    Args:
        directory: folder that `label_files` filled.
        teacher: if given, labels of another teacher are refused.
        root: folder that holds the recordings now, in place of their common folder when they were labeled.

    Attributes:
        num_codebooks: number of codebooks.
        codebook_size: number of codes in the largest codebook.
        codebook_sizes: number of codes in each codebook; empty for values.
        num_bins: values in a frame; 0 for codes.
        teacher: kind, fingerprint and settings of the teacher that made them.
        sampling_rate: sampling rate in Hz at which the recordings were labeled.
        hop_length: samples from one frame to the next.
        frame_rate: frames per second, in Hz.

    Raises:
        ValueError: there are no labels, they are unfinished, or they are of another teacher.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        teacher: Teacher | None = None,
        root: str | os.PathLike | None = None,
    ):
        self.directory = Path(directory).absolute()
        index = read_index(self.directory)
        if teacher is not None:
            check_teacher(str(self.directory), index["teacher"], teacher)
        if index.get("complete") is not True:
            raise ValueError(
                f"The labels in {directory} are not finished. Run the same mert-hf label again: it resumes."
            )
        self.codebook_sizes, self.num_bins = tuple(index.get("codebook_sizes", ())), index.get("num_bins", 0)
        self.num_codebooks, self.codebook_size = len(self.codebook_sizes), max(self.codebook_sizes, default=0)
        self.teacher, self._rows = index["teacher"], rows_of(index)
        self.sampling_rate, self.hop_length = index["sampling_rate"], index["hop_length"]
        self.frame_rate = self.sampling_rate / self.hop_length
        self._frames, self._failed = index["files"], index["failed"]
        self._root = None if root is None else os.path.abspath(root)
        self._root_before = os.path.commonpath([os.path.dirname(file) for file in self._frames])

    @property
    def recordings(self) -> list[str]:
        """Absolute paths of the labeled recordings at the time of labeling."""
        return list(self._frames)

    def __call__(self, source: str, first_frame: int, num_frames: int) -> np.ndarray:
        """Codes, or values, of a part of a recording.

        Args:
            source: path of the recording.
            first_frame: first frame of the part: its first sample divided by `hop_length`.
            num_frames: number of frames of the part.

        Returns:
            (num_codebooks, num_frames) int64, or (num_bins, num_frames) float32.

        Raises:
            ValueError: the recording has no codes, or fewer frames.
        """
        file = self._labeled_as(source)
        if file not in self._frames:
            reason = self._failed.get(file, f"it is not among the {len(self._frames)} labeled recordings").rstrip(".")
            raise ValueError(f"There are no codes of {source} in {self.directory}: {reason}. {self._remedy}")
        codes = load_codes(self.directory, file)
        last = first_frame + num_frames
        if codes.shape != (self._rows, self._frames[file]) or not 0 <= first_frame <= last <= codes.shape[1]:
            raise ValueError(
                f"{source} has codes of shape {codes.shape}, which do not hold the frames {first_frame} to {last} of "
                f"{self._rows} rows. If it has changed since, run mert-hf label again."
            )
        return codes[:, first_frame:last].astype(np.int64 if self.codebook_sizes else np.float32)

    def failures(self, sources: Sequence[str]) -> dict[str, str]:
        """Those of the recordings that could not be labeled, with the reason."""
        labeled_as = {source: self._labeled_as(source) for source in sources}
        return {source: self._failed[file] for source, file in labeled_as.items() if file in self._failed}

    def check(self, sources: Sequence[str]) -> None:
        """Raises ValueError for recordings that were never labeled, so that they do not end a run amid training."""
        known = self._frames.keys() | self._failed.keys()
        if missing := [source for source in sources if self._labeled_as(source) not in known]:
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

    def _labeled_as(self, source: str) -> str:
        """The path under which a recording was labeled."""
        file = os.path.abspath(source)
        if self._root is None:
            return file
        return os.path.normpath(os.path.join(self._root_before, os.path.relpath(file, self._root)))
