"""Curves of a finished evaluation: training with few recordings, and test recordings that are deformed.

With few recordings, layer and learning rate are chosen anew for each random part of the training recordings, on the
whole validation split. A deformation follows from the recording's id and a seed alone, so it is the same on every
machine with the same versions of libsndfile and soxr.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import soundfile

from ...audio import audio_info
from ...audio.effects import add_noise, change_gain, compress_mp3, low_pass, mp3_compression
from ...recordings.recordings import Recording, TaskData
from ...utils.settings import ALL
from .evaluation import Evaluation
from .results import over_seeds
from .settings import Deformation

CLASS_KINDS = ("classification", "key")
DRAWS = 3  # of each number of shots: which recordings are drawn matters as much as the seed of a probe


def draw_shots(data: TaskData, kind: str, shots: int, seed: int) -> TaskData:
    """A random part of the training recordings.

    Args:
        data: all recordings.
        kind: classification and key: `shots` of each class, or all where there are fewer; multilabel: recordings in
            random order until each tag has `shots`, where that many have it; any other kind: `shots` recordings, two at
            least.
        shots: number of recordings.
        seed: seed of the draw.
    """
    training = data.split("train")
    order = np.random.default_rng(seed).permutation(len(training))
    drawn = [training[index] for index in order]
    kept = {recording.id for recording in _kept(drawn, kind, shots)}
    return data.with_recordings(r for r in data.recordings if r.split != "train" or r.id in kept)


def _kept(drawn: list[Recording], kind: str, shots: int) -> Iterable[Recording]:
    if kind not in (*CLASS_KINDS, "multilabel"):
        yield from drawn[: max(shots, 2)]
        return
    seen: Counter = Counter()
    for recording in drawn:
        answers = np.flatnonzero(recording.target).tolist() if kind == "multilabel" else [recording.target]
        if any(seen[answer] < shots for answer in answers):
            seen.update(answers)
            yield recording


def few_shot_results(evaluation: Evaluation, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Test metrics of probes that are trained with a part of the training recordings.

    Args:
        evaluation: after its run.
        results: results of the run; they are the point of "all".

    Returns:
        One entry for each number of shots of the settings: `shots`, `recordings` (mean number over draws), and
        `metrics` over draws and seeds.
    """
    return [_shot_entry(evaluation, results, shots) for shots in evaluation.settings.shots]


def _shot_entry(evaluation: Evaluation, results: Mapping[str, Any], shots: int | str) -> dict[str, Any]:
    if shots == ALL:
        count = results["data"]["recordings"]["train"]
        return {"shots": shots, "recordings": count, "metrics": over_seeds(_by_seed([results]))}
    drawn = [draw_shots(evaluation.data, evaluation.task.kind, shots, seed) for seed in range(DRAWS)]
    found = [replace(evaluation, data=data).run()[0] for data in drawn]
    count = sum(len(data.split("train")) for data in drawn) / DRAWS
    return {"shots": shots, "recordings": count, "metrics": over_seeds(_by_seed(found))}


def _by_seed(results: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The metrics of each seed of each result."""
    scores = []
    for result in results:
        values = {name: metric["values"] for name, metric in result["metrics"].items()}
        scores += [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return scores


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
        samples = self.source.read(rate)
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
        replace(recording, path=DeformedAudio(recording, deformation), channels="mean")
        if recording.split == split
        else recording
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
    other.archive = evaluation.archive  # the probes were trained on the recordings as they are
    if evaluation.task.kind == "retrieval":  # deformed queries, candidates as they are
        return [evaluation.scores(evaluation.retrieved(evaluation.features(), layer, "test", queries=other))]
    found = other.predictions(evaluation.archive.read(layer), other.features(), "test")
    return [other.scores(predictions) for predictions in found.values()]
