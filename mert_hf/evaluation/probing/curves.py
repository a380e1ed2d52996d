"""Curves of a finished evaluation: training with few recordings, and test recordings that are deformed.

With few recordings, layer and learning rate are chosen anew for each random part of the training recordings, on the
whole validation split. A deformation follows from the recording's id and a seed alone, so it is the same on every
machine with the same versions of libsndfile and soxr.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
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

DRAWS = 3  # of each number of shots: which recordings are drawn matters as much as the seed of a probe


def draw_shots(data: TaskData, kind: str, shots: int, seed: int) -> TaskData:
    """The data with a random part of the training recordings.

    Of classification and key that is `shots` of each class, or all where there are fewer; of multilabel recordings in
    random order until each tag has `shots`, where that many have it; of any other kind `shots`, two at least.
    """
    training = data.split("train")
    drawn = [training[index] for index in np.random.default_rng(seed).permutation(len(training))]
    by_answer, seen = kind in ("classification", "key", "multilabel"), Counter()
    kept = set() if by_answer else {recording.id for recording in drawn[: max(shots, 2)]}
    for recording in drawn if by_answer else ():
        answers = np.flatnonzero(recording.target).tolist() if kind == "multilabel" else [recording.target]
        if any(seen[answer] < shots for answer in answers):
            seen.update(answers)
            kept.add(recording.id)
    return data.with_recordings(r for r in data.recordings if r.split != "train" or r.id in kept)


def few_shot_results(evaluation: Evaluation, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Test metrics of probes that are trained with a part of the training recordings, after a run and its results,
    which are the point of "all". One entry for each number of shots: `shots`, `recordings` (mean number over draws),
    and `metrics` over draws and seeds."""
    entries = []
    for shots in evaluation.settings.shots:
        count, found = results["data"]["recordings"]["train"], [results]
        if shots != ALL:
            drawn = [draw_shots(evaluation.data, evaluation.task.kind, shots, seed) for seed in range(DRAWS)]
            found = [replace(evaluation, data=data).run()[0] for data in drawn]
            count = sum(len(data.split("train")) for data in drawn) / DRAWS
        entries.append({"shots": shots, "recordings": count, "metrics": over_seeds(_by_seed(found))})
    return entries


def _by_seed(results: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    scores = []
    for result in results:
        values = {name: metric["values"] for name, metric in result["metrics"].items()}
        scores += [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return scores


@dataclass(frozen=True)
class DeformedAudio:
    """A recording that is deformed when it is opened; `seed` is that of random deformations."""

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
        return self.source.exists()

    def version(self) -> dict[str, Any]:
        """A value that changes when the deformed audio changes."""
        return {**self.source.version(), "deformation": str(self.deformation), "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.source.path} with {self.deformation}, seed {self.seed}"


def deformed(
    samples: np.ndarray, sampling_rate: int, deformation: Deformation, generator: np.random.Generator
) -> np.ndarray:
    amount = deformation.amount
    if deformation.kind == "noise":
        return add_noise(samples, amount, generator)
    if deformation.kind == "mp3":
        return compress_mp3(samples, sampling_rate, mp3_compression(amount, sampling_rate))
    return change_gain(samples, amount) if deformation.kind == "gain" else low_pass(samples, sampling_rate, amount)


def deform_split(data: TaskData, deformation: Deformation) -> TaskData:
    """The same data with the test recordings deformed."""
    return data.with_recordings(
        replace(recording, path=DeformedAudio(recording, deformation), channels="mean")
        if recording.split == "test"
        else recording
        for recording in data.recordings
    )


def deformed_results(evaluation: Evaluation, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Test metrics on deformed recordings, of the probes that the results of a run report: one entry for each
    deformation, `deformation`, `kind`, `amount` and `metrics` over seeds."""
    entries, layer = [], results["selected"]["layer"]
    for deformation in map(Deformation.parse, evaluation.settings.deformations):
        other = replace(evaluation, data=deform_split(evaluation.data, deformation))
        other.archive = evaluation.archive  # the probes were trained on the recordings as they are
        if evaluation.task.kind == "retrieval":  # deformed queries, candidates as they are
            found = {0: evaluation.retrieved(evaluation.features(), layer, "test", queries=other)}
        else:
            found = other.predictions(evaluation.archive.read(layer), other.features(), "test")
        metrics = over_seeds([evaluation.scores(predictions) for predictions in found.values()])
        entries.append({"deformation": str(deformation), **vars(deformation), "metrics": metrics})
    return entries
