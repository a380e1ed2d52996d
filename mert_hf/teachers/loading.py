"""Opening a teacher of any kind, also several as one, whose codebooks or values follow one another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..hub.names import checkpoint_folder
from ..utils.settings import check_choice
from .base import CONFIG_NAME, TEACHER_FILES, AcousticTeacher, MusicalTeacher, Teacher, read_config
from .encodec import EncodecTeacher, MetaEncodecTeacher
from .features import CQTTeacher, FeatureTeacher, KMeansTeacher, LogMelTeacher
from .frozen_encoders import EncoderTeacher, FusedEncoderTeacher
from .music2vec import Music2VecTeacher
from .quantizers import MelRVQTeacher, RandomProjectionTeacher

MEMBER_FOLDER = "teacher_{}"
LOSSES = ("squared", "cosine")  # of a musical teacher


class Combination(Teacher):
    """Base of several teachers of equal rates as one, with a factor of each in the loss; 1 for all by default."""

    loss_settings: tuple[str, ...] = ("weights",)  # attributes that belong to the loss

    def __init__(self, members: Sequence[Teacher], weights: Sequence[float] | None = None):
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

    def settings(self) -> dict[str, Any]:
        """Kinds and fingerprints of the members, and licenses; what belongs to the loss does not change the targets."""
        members = [{"kind": member.kind, "fingerprint": member.fingerprint()} for member in self.members]
        return {"members": members, **({"licenses": self.licenses} if self.licenses else {})}

    @property
    def licenses(self) -> dict[str, str]:
        """Licenses of the weights of the members' encoders by their names."""
        return {name: stated for member in self.members for name, stated in getattr(member, "licenses", {}).items()}

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Targets of all members for clips (batch, samples) float32, one after another, cut to the fewest frames."""
        return self._join([member(waveforms) for member in self.members])

    @torch.no_grad()
    def label_recording(self, waveform: torch.Tensor, file: str | os.PathLike | None = None) -> torch.Tensor:
        """Targets of a recording (samples,), as each teacher labels it."""
        return self._join([member.label_recording(waveform, file) for member in self.members])

    def _join(self, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        frames = min(part.shape[self.frame_dim] for part in targets)
        return torch.cat([part.narrow(self.frame_dim, 0, frames) for part in targets], dim=-3 - self.frame_dim)

    def _decisive_parts(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return {"members": self.settings()["members"]}, {}

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes each teacher into a folder of its own, and what belongs to their losses."""
        for index, member in enumerate(self.members):
            member.save_pretrained(Path(directory) / MEMBER_FOLDER.format(index))
        self._write_config(directory, **{name: getattr(self, name) for name in self.loss_settings})

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **overrides: Any) -> Combination:
        """Loads what `save_pretrained` wrote; `weights` and other settings of the losses may be given anew."""
        config = read_config(Path(name_or_path))
        members = config.pop("members", [])
        kept = {name: value for name, value in config.items() if name in cls.loss_settings}
        folders = [Path(name_or_path) / MEMBER_FOLDER.format(index) for index in range(len(members))]
        return cls([load_teacher(folder) for folder in folders], **{**kept, **overrides})


class CombinedTeacher(Combination, AcousticTeacher):
    """The codes of several acoustic teachers of equal rates, in their order; see `Combination`."""

    kind, made_by = "combined", "CombinedTeacher.save_pretrained"

    def __init__(self, members: Sequence[AcousticTeacher], weights: Sequence[float] | None = None):
        super().__init__(members, weights)
        self.codebook_sizes = tuple(size for member in members for size in member.codebook_sizes)

    @property
    def codebook_weights(self) -> tuple[float, ...]:
        """Factor of each codebook in the loss."""
        pairs = zip(self.members, self.weights, strict=True)
        return tuple(weight for member, weight in pairs for _ in range(member.num_codebooks))


class CombinedMusicalTeacher(Combination, MusicalTeacher):
    """The values of several musical teachers of equal rates, in their order; see `Combination`.

    The loss of each is "squared" (by default) or "cosine".
    """

    kind, made_by = "combined_musical", "CombinedMusicalTeacher.save_pretrained"
    loss_settings = ("weights", "losses")

    def __init__(
        self,
        members: Sequence[MusicalTeacher],
        weights: Sequence[float] | None = None,
        losses: Sequence[str] | None = None,
    ):
        super().__init__(members, weights)
        self.losses = tuple(losses) if losses is not None else (LOSSES[0],) * len(members)
        for loss in self.losses:
            check_choice("loss", loss, LOSSES)
        self.num_bins = sum(member.num_bins for member in members)

    @property
    def loss_parts(self) -> tuple[tuple[int, float, str], ...]:
        """For each teacher its number of values, weight and loss."""
        sizes = (member.num_bins for member in self.members)
        return tuple(zip(sizes, self.weights, self.losses, strict=True))


TEACHERS: dict[str, type[Teacher]] = {
    teacher.kind: teacher
    for teacher in (
        EncodecTeacher,
        MetaEncodecTeacher,
        KMeansTeacher,
        RandomProjectionTeacher,
        MelRVQTeacher,
        FusedEncoderTeacher,
        CombinedTeacher,
        CQTTeacher,
        LogMelTeacher,
        FeatureTeacher,
        EncoderTeacher,
        CombinedMusicalTeacher,
        Music2VecTeacher,
    )
}


def load_teacher(name_or_path: str | os.PathLike, **settings: Any) -> Teacher:
    """Opens a teacher of any kind.

    Args:
        name_or_path: a kind that is built from `settings`, such as "cqt"; "encodec" (facebook/encodec_24khz); or the
            folder or Hub id of a saved teacher or of an EncodecModel.
        settings: arguments of the constructor or of `from_pretrained`; None leaves the default.

    Raises:
        ValueError: the kind does not exist, or the teacher must be fitted first.
        OSError: there is no such folder or Hub repository, or it holds no teacher.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    teacher = TEACHERS.get(str(name_or_path))
    if teacher is EncodecTeacher:
        return teacher.from_pretrained(**settings)
    if teacher is not None and teacher.made_by is not None:
        raise ValueError(f"A {name_or_path} teacher is made first, by `{teacher.made_by}`: give the folder of it.")
    if teacher is not None:
        return teacher(**settings)
    folder = checkpoint_folder(name_or_path, files=TEACHER_FILES)
    if not (folder / CONFIG_NAME).is_file():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} holds neither {CONFIG_NAME} nor config.json, so it is not a teacher. Give a folder that "
                "`mert-hf fit-kmeans`, `fit-features` or `fit-rvq` wrote, or an EnCodec model."
            )
        return EncodecTeacher.from_pretrained(folder, **settings)
    kind = read_config(folder).get("teacher")
    if kind not in TEACHERS:
        raise ValueError(f"{folder / CONFIG_NAME} names the teacher {kind!r}. Known are {', '.join(TEACHERS)}.")
    return TEACHERS[kind].from_pretrained(folder, **settings)
