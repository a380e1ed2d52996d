"""How well an answer survives deformed recordings, see `Deformation`.

A deformation follows from the recording's id and a seed alone, so it is the same on every machine with the same
versions of libsndfile and soxr.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import soundfile

from ...audio import audio_info, read_audio
from ...audio.effects import add_noise, change_gain, compress_mp3, low_pass, mp3_compression
from ...recordings.recordings import Recording, TaskData
from ...utils.settings import WEIGHTED
from .results import over_seeds
from .settings import Deformation

if TYPE_CHECKING:
    from .runner import Evaluation


@dataclass(frozen=True)
class DeformedAudio:
    """A recording that is deformed when it is opened.

    Attributes:
        source: the recording as it is.
        deformation: what is done to it.
        seed: seed of random deformations.
    """

    source: Recording
    deformation: Deformation
    seed: int = 0

    def open(self) -> BinaryIO:
        """The deformed recording, mono, as a file in memory."""
        rate = audio_info(self.source.open()).sampling_rate
        samples = read_audio(self.source.open(), rate)
        digest = hashlib.sha256(f"{self.seed} {self.source.id}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        file = io.BytesIO()
        changed = deformed(samples, rate, self.deformation, generator)
        soundfile.write(file, changed, rate, format="WAV", subtype="FLOAT")
        file.seek(0)
        return file

    def exists(self) -> bool:
        """Whether the recording is there."""
        return self.source.exists()

    def version(self) -> dict[str, Any]:
        """A value that changes when the deformed audio changes."""
        return {**self.source.version(), "deformation": str(self.deformation), "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.source.path} with {self.deformation}, seed {self.seed}"


def deformed(
    samples: np.ndarray, sampling_rate: int, deformation: Deformation, generator: np.random.Generator
) -> np.ndarray:
    """The deformed samples, float32 (samples,)."""
    amount = deformation.amount
    if deformation.kind == "noise":
        return add_noise(samples, amount, generator)
    if deformation.kind == "mp3":
        return compress_mp3(samples, sampling_rate, mp3_compression(amount, sampling_rate))
    if deformation.kind == "gain":
        return change_gain(samples, amount)
    return low_pass(samples, sampling_rate, amount)


def deform_split(data: TaskData, deformation: Deformation, split: str = "test") -> TaskData:
    """The same data with the recordings of a split deformed."""
    return data.with_recordings(
        replace(recording, path=DeformedAudio(recording, deformation)) if recording.split == split else recording
        for recording in data.recordings
    )


def deformed_results(evaluation: Evaluation, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Test metrics on deformed recordings, of the probes that the results report.

    Args:
        evaluation: after its run.
        results: results of the run.

    Returns:
        One entry for each deformation of the settings: `deformation`, `kind`, `amount`, `metrics` over seeds.
    """
    return [
        {
            "deformation": str(deformation),
            "kind": deformation.kind,
            "amount": deformation.amount,
            "metrics": over_seeds(_deformed_scores(evaluation, results["selected"]["layer"], deformation)),
        }
        for deformation in map(Deformation.parse, evaluation.settings.deformations)
    ]


def _deformed_scores(evaluation: Evaluation, layer: int | str, deformation: Deformation) -> list[dict[str, float]]:
    other = replace(evaluation, data=deform_split(evaluation.data, deformation))
    if evaluation.task.kind == "retrieval":  # deformed queries, candidates as they are
        return [evaluation.scores(evaluation.retrieved(evaluation.features(), layer, "test", queries=other))]
    features = other.features()
    grid_data = other.grid_data(features.held(other.positions([layer]), other.device))
    probes = evaluation.archive.load(evaluation.archive.read(layer), WEIGHTED if layer == WEIGHTED else 0)
    return [other.scores(grid_data.predict(probe, "test")) for probe in probes]
