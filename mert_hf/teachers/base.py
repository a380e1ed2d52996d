"""What all teachers share: rates, saving, loading, a fingerprint of all that decides their output."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..hub.names import checkpoint_folder
from ..utils.hashing import hash_tensors
from ..utils.json_files import read_json

CONFIG_NAME = "teacher_config.json"
WEIGHTS_NAME = "teacher.safetensors"
TEACHER_FILES = ("*.json", "*.safetensors")  # of a Hub repository


class Teacher(nn.Module, ABC):
    """A frozen map from clean waveforms to targets.

    Acoustic teachers give codes (batch, num_codebooks, frames) int64 and have `num_codebooks` and `codebook_size`;
    musical teachers give spectra (batch, frames, num_bins) float32 and have `num_bins`. Buffers are the weights.

    Attributes:
        kind: name of the teacher in `teacher_config.json`.
        sampling_rate: of the waveforms, in Hz.
        hop_length: samples between frames.
    """

    kind: ClassVar[str]
    sampling_rate: int
    hop_length: int

    def __init__(self):
        super().__init__()
        self.training = False

    @property
    def frame_rate(self) -> float:
        """Frames in a second, in Hz."""
        return self.sampling_rate / self.hop_length

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the constructor needs to build this teacher again, weights aside; JSON types only."""

    @torch.no_grad()
    def label_recording(self, waveform: torch.Tensor) -> torch.Tensor:
        """Targets of a whole recording (samples,), as `forward` gives them for a batch of it, up to rounding.

        Teachers that can work through it in blocks, so that memory beyond the waveform does not grow with its length.
        """
        return self(waveform[None])[0]

    def train(self, mode: bool = True) -> Teacher:
        """Teachers stay in evaluation, also inside a model that is trained."""
        return super().train(False)

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes `teacher_config.json` and, if there are weights, `teacher.safetensors`."""
        self._write_config(directory)
        if weights := {name: tensor.contiguous() for name, tensor in self.state_dict().items()}:
            save_file(weights, Path(directory) / WEIGHTS_NAME, {"format": "pt"})

    def _write_config(self, directory: str | os.PathLike) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        config = {"teacher": self.kind, **self.settings()}
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
                f"{folder / CONFIG_NAME} is no {cls.kind} teacher. mert_hf.teachers.load_teacher opens any."
            )
        return cls._from_parts({**config, **overrides}, read_weights(folder))

    @classmethod
    def _from_parts(cls, settings: dict[str, Any], weights: dict[str, torch.Tensor]) -> Teacher:
        try:
            return cls(**settings, **weights)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"The settings {settings} do not fit {cls.__name__}: {error}.") from error

    def fingerprint(self) -> str:
        """SHA-256 of kind, settings and weights: equal for teachers that give equal targets."""
        settings, weights = self._decisive_parts()
        digest = hashlib.sha256(json.dumps({"teacher": self.kind, **settings}, sort_keys=True).encode())
        hash_tensors(digest, weights)
        return digest.hexdigest()

    def _decisive_parts(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Settings and weights on which the targets depend."""
        return self.settings(), self.state_dict()


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
    """`teacher_config.json` of a folder.

    Raises:
        ValueError: the file is missing or does not hold a JSON object.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise ValueError(f"{folder} has no {CONFIG_NAME}, so it is not a saved teacher.")
    return read_json(folder / CONFIG_NAME)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """`teacher.safetensors` of a folder; none where there is no such file.

    Raises:
        ValueError: the file is damaged.
    """
    if not (folder / WEIGHTS_NAME).is_file():
        return {}
    try:
        return load_file(folder / WEIGHTS_NAME)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_NAME} is damaged: {error}. Save the teacher again.") from error


def check_sizes(**sizes: Any) -> None:
    """ValueError where a size is no positive integer."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} must be a positive integer.")


def check_waveforms(waveforms: torch.Tensor) -> torch.Tensor:
    """Waveforms as float32.

    Raises:
        TypeError: no floating-point tensor.
        ValueError: not (batch, samples) with samples.
    """
    if not isinstance(waveforms, torch.Tensor) or not waveforms.is_floating_point():
        given = waveforms.dtype if isinstance(waveforms, torch.Tensor) else type(waveforms).__name__
        raise TypeError(f"waveforms must be a floating-point tensor, given {given}. Convert PCM to [-1, 1] first.")
    if waveforms.ndim != 2 or waveforms.shape[1] == 0:
        raise ValueError(f"waveforms must be (batch, samples) with samples, given {tuple(waveforms.shape)}.")
    return waveforms.float()
