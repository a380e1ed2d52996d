"""Base classes of teachers: rates, saving, loading, and a fingerprint of everything that affects their output."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from ..encoders.base import hash_tensors
from ..hub.names import checkpoint_folder
from ..utils.files import read_json, staged_file

CONFIG_NAME = "teacher_config.json"
WEIGHTS_NAME = "teacher.safetensors"
TEACHER_FILES = ("*.json", "*.safetensors")  # of a Hub repository
BLOCK_FRAMES = 4096  # frames of a recording that are computed at a time

Item = TypeVar("Item")


class Teacher(nn.Module):
    """A frozen map from clean waveforms to targets. Buffers and parameters are its weights.

    Subclass `AcousticTeacher` (codes) or `MusicalTeacher` (spectra).
    """

    kind: ClassVar[str]  # name of the teacher in `teacher_config.json`
    made_by: ClassVar[str | None] = None  # command, such as "mert-hf fit-kmeans"; None where settings are enough
    setting_names: ClassVar[tuple[str, ...]] = ()  # attributes that are arguments of the constructor, without weights
    frame_dim: ClassVar[int]  # dimension of the frames in the targets, counted from the last
    sampling_rate: int  # of the waveforms in Hz
    hop_length: int  # samples from one frame to the next
    reach: int | None = None  # frames on either side on which a frame depends; None where there are no blocks
    block_frames = BLOCK_FRAMES  # of recordings that are labeled in blocks

    def __init__(self, **sizes: int):
        """Keeps sizes, such as those of `setting_names`, as attributes, which must be positive integers."""
        super().__init__()
        self.training = False
        check_sizes(**sizes)
        for name, size in sizes.items():
            setattr(self, name, size)

    @property
    def frame_rate(self) -> float:
        """Frames per second, in Hz."""
        return self.sampling_rate / self.hop_length

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor that build this teacher again, without the weights; JSON types only."""
        return {name: getattr(self, name) for name in self.setting_names}

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """`targets` of clips (batch, samples), floating point in [-1, 1], in float32 whatever autocast says."""
        waveforms = check_waveforms(waveforms)
        with torch.autocast(waveforms.device.type, enabled=False):
            return self.targets(waveforms)

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Targets of clips (batch, samples) float32."""
        raise NotImplementedError

    def _register(self, weights: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Keeps the weights of a fitted teacher as float32 buffers.

        Raises ValueError where one is missing, unknown, not finite, of another shape than in `shapes`, or a scale not
        positive.
        """
        if set(weights) != set(shapes):
            raise ValueError(f"The teacher needs the weights {sorted(shapes)}, given {sorted(weights)}.")
        for name, shape in shapes.items():
            tensor, given = weights[name].float(), tuple(weights[name].shape)
            if given != shape or not torch.isfinite(tensor).all():
                raise ValueError(
                    f"{name} must have shape {shape}, given {given}, and finite values. Fit the teacher again."
                )
            if name.startswith("scale") and not (tensor > 0).all():
                raise ValueError(f"{name} must be positive. Fit the teacher again.")
            self.register_buffer(name, tensor)

    @torch.no_grad()
    def label_recording(self, waveform: torch.Tensor, file: str | os.PathLike | None = None) -> torch.Tensor:
        """Targets of a whole recording (samples,), equal to `forward` of a batch that holds it, up to rounding.

        Teachers with a `reach` process it in blocks, so that memory beyond the waveform does not grow with its length.
        Some need its file rather than its samples.
        """
        if self.reach is None:
            return self(waveform[None])[0]
        blocks = (self.block_frames, self.reach)
        return in_blocks(self, waveform[None], self.hop_length, *blocks, self.frame_dim)[0]

    def train(self, mode: bool = True) -> Teacher:
        """Teachers stay in evaluation mode, also inside a model that is trained."""
        return super().train(False)

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes `teacher_config.json` and, if there are weights, `teacher.safetensors`."""
        self._write_config(directory)
        if weights := {name: tensor.contiguous() for name, tensor in self.state_dict().items()}:
            with staged_file(Path(directory) / WEIGHTS_NAME) as path:
                save_file(weights, path, {"format": "pt"})

    def _write_config(self, directory: str | os.PathLike, **more: Any) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        config = {"teacher": self.kind, **self.settings(), **more}
        (Path(directory) / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **overrides: Any) -> Teacher:
        """Loads what `save_pretrained` wrote, from a folder or a Hub repository.

        Raises:
            ValueError: the folder holds another teacher, or its weights do not fit.
        """
        folder = checkpoint_folder(name_or_path, files=TEACHER_FILES)
        config = read_config(folder)
        if config.pop("teacher", None) != cls.kind:
            raise ValueError(
                f"{folder / CONFIG_NAME} does not describe a {cls.kind} teacher. mert_hf.teachers.load_teacher opens "
                "any teacher."
            )
        settings, weights = {**config, **overrides}, read_weights(folder)
        try:
            return cls(**settings, **weights)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"The settings {settings} do not fit {cls.__name__}: {error}.") from error

    def fingerprint(self) -> str:
        """SHA-256 of kind, settings and weights: equal for teachers whose targets are equal."""
        settings, weights = self._decisive_parts()
        digest = hashlib.sha256(json.dumps({"teacher": self.kind, **settings}, sort_keys=True).encode())
        hash_tensors(digest, weights)
        return digest.hexdigest()

    def _decisive_parts(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Settings and weights on which the targets depend."""
        return self.settings(), self.state_dict()


def in_blocks(
    function: Callable[[torch.Tensor], torch.Tensor],
    waveforms: torch.Tensor,
    hop_length: int,
    block_frames: int,
    reach: int,
    frame_dim: int,
) -> torch.Tensor:
    """The result of a function of waveforms (batch, samples), with a frame for each hop and maybe one more, in blocks.

    `reach` frames are computed on either side of `block_frames` and left out; `frame_dim` counts from the last one.
    """
    blocks = []
    for first in range(0, waveforms.shape[1] // hop_length + 1, block_frames):
        start = max(first - reach, 0)
        # The center of a frame may be the first sample of the next hop, hence one hop more on the right.
        part = waveforms[:, start * hop_length : (first + block_frames + reach + 1) * hop_length]
        blocks.append(function(part).movedim(frame_dim, 0)[first - start : first - start + block_frames])
    return torch.cat(blocks).movedim(0, frame_dim)


class AcousticTeacher(Teacher):
    """A teacher that gives codes: waveforms (batch, samples) -> (batch, num_codebooks, frames) int64."""

    frame_dim = -1
    codebook_sizes: tuple[int, ...]  # number of codes in each codebook

    @property
    def num_codebooks(self) -> int:
        """Number of codebooks."""
        return len(self.codebook_sizes)

    @property
    def codebook_size(self) -> int:
        """Number of codes in each codebook; in the largest one where the sizes differ."""
        return max(self.codebook_sizes)


class MusicalTeacher(Teacher):
    """A teacher that gives a spectrum: waveforms (batch, samples) -> (batch, frames, num_bins) float32."""

    frame_dim = -2
    num_bins: int  # values in a frame


def codebook_sizes_of(teacher: Any) -> tuple[int, ...]:
    """Number of codes in each codebook of an acoustic teacher, a label cache or any callable that gives codes.

    Callables that are not an `AcousticTeacher` may have `num_codebooks` and `codebook_size` only; None has no codebook.
    """
    if teacher is None:
        return ()
    if (sizes := getattr(teacher, "codebook_sizes", None)) is not None:
        return tuple(sizes)
    return (teacher.codebook_size,) * teacher.num_codebooks


def read_config(folder: Path) -> dict[str, Any]:
    """`teacher_config.json` of a folder. Raises ValueError where it is missing or not a JSON object."""
    if not (folder / CONFIG_NAME).is_file():
        raise ValueError(f"{folder} has no {CONFIG_NAME}, so it is not a saved teacher.")
    return read_json(folder / CONFIG_NAME)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors in `teacher.safetensors` of a folder; empty where there is no such file."""
    if not (folder / WEIGHTS_NAME).is_file():
        return {}
    try:
        return load_file(folder / WEIGHTS_NAME)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_NAME} is damaged: {error}. Save the teacher again.") from error


def check_sizes(**sizes: Any) -> None:
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} must be a positive integer.")


def from_fields(kind: type[Item], items: Iterable[Item | dict[str, Any]]) -> tuple[Item, ...]:
    """Instances of a data class, at least one, from themselves or from mappings of their fields."""
    try:
        made = tuple(item if isinstance(item, kind) else kind(**item) for item in items)
    except TypeError as error:
        names = ", ".join(field.name for field in fields(kind))
        raise ValueError(f"Each {kind.__name__} has the fields {names}: {error}.") from error
    if not made:
        raise ValueError(f"At least one {kind.__name__} is needed.")
    return made


def checked_clips(
    clips: Iterable[torch.Tensor | np.ndarray], show_progress_bar: bool = False
) -> Iterator[torch.Tensor]:
    """Clips (samples,) to which a teacher is fitted, each as a batch (1, samples) float32."""
    for clip in tqdm(clips, "features", unit="clip", disable=not show_progress_bar):
        yield check_waveforms(torch.as_tensor(clip)[None])


def check_waveforms(waveforms: torch.Tensor) -> torch.Tensor:
    """Waveforms as float32. Raises TypeError or ValueError for all but floating-point tensors (batch, samples)."""
    if not isinstance(waveforms, torch.Tensor) or not waveforms.is_floating_point():
        given = waveforms.dtype if isinstance(waveforms, torch.Tensor) else type(waveforms).__name__
        raise TypeError(f"waveforms must be a floating-point tensor, given {given}. Convert PCM to [-1, 1] first.")
    if waveforms.ndim != 2 or waveforms.shape[1] == 0:
        raise ValueError(f"waveforms must be (batch, samples) with samples > 0, given {tuple(waveforms.shape)}.")
    return waveforms.float()
