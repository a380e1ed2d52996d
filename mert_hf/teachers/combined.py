"""Several acoustic teachers as one, whose codebooks follow one another."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .base import CONFIG_NAME, AcousticTeacher, read_config

MEMBER_FOLDER = "teacher_{}"


class CombinedTeacher(AcousticTeacher):
    """The codes of several acoustic teachers of equal rates, in their order.

    Args:
        members: the teachers.
        weights: factor of each teacher's codebooks in the loss; 1 for all by default.

    Raises:
        ValueError: there is no teacher, their rates differ, or the number of weights does.
    """

    kind = "combined"

    def __init__(self, members: Sequence[AcousticTeacher], weights: Sequence[float] | None = None):
        super().__init__()
        self.weights = tuple(float(weight) for weight in weights) if weights is not None else (1.0,) * len(members)
        rates = {(member.sampling_rate, member.hop_length) for member in members}
        if len(rates) != 1:
            raise ValueError(
                f"Teachers that are combined must have equal rates; given (Hz, hop length) {sorted(rates)}."
            )
        if len(self.weights) != len(members) or any(not weight >= 0 for weight in self.weights):
            raise ValueError(f"Give one weight of 0 or more for each of {len(members)} teachers, got {self.weights}.")
        self.members = nn.ModuleList(members)
        ((self.sampling_rate, self.hop_length),) = rates
        self.codebook_sizes = tuple(size for member in members for size in member.codebook_sizes)

    @property
    def codebook_weights(self) -> tuple[float, ...]:
        """Factor of each codebook in the loss."""
        pairs = zip(self.members, self.weights, strict=True)
        return tuple(weight for member, weight in pairs for _ in range(member.num_codebooks))

    def settings(self) -> dict[str, Any]:
        """Kinds and fingerprints of the members. Weights of the loss do not change the codes and are not among them."""
        return {"members": [{"kind": member.kind, "fingerprint": member.fingerprint()} for member in self.members]}

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) floating point in [-1, 1] -> (batch, num_codebooks, frames) int64."""
        return join([member(waveforms) for member in self.members])

    @torch.no_grad()
    def label_recording(self, waveform: torch.Tensor) -> torch.Tensor:
        """Codes (num_codebooks, frames) of a recording (samples,), as each teacher labels it."""
        return join([member.label_recording(waveform) for member in self.members])

    def _decisive_parts(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return self.settings(), {}

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes each teacher into a folder of its own, and their weights in the loss."""
        for index, member in enumerate(self.members):
            member.save_pretrained(Path(directory) / MEMBER_FOLDER.format(index))
        config = {"teacher": self.kind, **self.settings(), "weights": self.weights}
        (Path(directory) / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **overrides: Any) -> CombinedTeacher:
        """Loads what `save_pretrained` wrote; `weights` may be given anew."""
        from . import load_teacher

        config = read_config(Path(name_or_path))
        folders = [Path(name_or_path) / MEMBER_FOLDER.format(index) for index in range(len(config.get("members", [])))]
        return cls([load_teacher(folder) for folder in folders], **{"weights": config.get("weights"), **overrides})


def join(codes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Codes (..., codebooks, frames) of several teachers as one tensor, cut to the smallest number of frames."""
    frames = min(part.shape[-1] for part in codes)
    return torch.cat([part[..., :frames] for part in codes], dim=-2)
