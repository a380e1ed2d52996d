"""Computations of the app: checks of an upload, embeddings, labels, similar recordings, similarity of layers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import Pipeline

from mert_hf import MERTEmbedder
from mert_hf.audio import audio_info, read_audio, stream_windows
from mert_hf.search import MusicIndex
from mert_hf.search.store import is_index

WINDOW_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """The limit of an upload; a recording may have any length.

    Attributes:
        megabytes: largest file, in units of 10^6 bytes.
    """

    megabytes: float = 200.0

    def check(self, path: str | None) -> float:
        """The length of the recording in seconds.

        Raises:
            ValueError: no file, one that is too large, or not audio; the message is for the visitor.
        """
        if not path:
            raise ValueError("Choose a recording first.")
        megabytes = Path(path).stat().st_size / 1e6
        if megabytes > self.megabytes:
            raise ValueError(f"This file has {megabytes:.1f} MB; at most {self.megabytes:g} MB are taken.")
        return audio_info(path).duration


def embed(embedder: MERTEmbedder, path: str | Path) -> np.ndarray:
    """Mean over time of every layer in windows of 5 s, float32 (windows, layers, hidden)."""
    return embedder.encode(path, window=WINDOW_SECONDS, show_progress_bar=False).embeddings


def open_library(folder: str | Path, model: str, cache: str | Path) -> MusicIndex:
    """An index of a music library: `folder` itself, or one of its recordings that is made in `cache`.

    Raises:
        ValueError: no recordings in the folder.
    """
    if is_index(folder):
        return MusicIndex(folder)
    MusicIndex.update([folder], cache, model)
    return MusicIndex(cache)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Names for visitors, without the folder that all paths share -> paths."""
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return {os.path.relpath(path, root): path for path in paths}


def projection(vectors: np.ndarray) -> np.ndarray:
    """(recordings, hidden) -> (recordings, 2): the first two principal components."""
    centered = vectors - vectors.mean(axis=0)
    left, scales, _ = np.linalg.svd(centered, full_matrices=False)
    points = np.zeros((len(vectors), 2), vectors.dtype)
    points[:, : min(2, len(scales))] = left[:, :2] * scales[:2]
    return points


def layer_similarity(embedder: MERTEmbedder, path: str | Path) -> np.ndarray:
    """Linear CKA between all layers over the frames of the first 5 seconds, float64 (layers, layers) in [0, 1]."""
    clip = read_audio(path, embedder.sampling_rate, duration=WINDOW_SECONDS)
    options = {"pooling": "frames", "window": None, "show_progress_bar": False}
    return linear_cka(embedder.encode(clip, sampling_rate=embedder.sampling_rate, **options).embeddings)


def linear_cka(states: np.ndarray) -> np.ndarray:
    """Linear centered kernel alignment (Kornblith et al. 2019, arXiv 1905.00414, section 3).

    Args:
        states: (frames, layers, hidden).

    Returns:
        float64 (layers, layers); 0 where a layer does not change over time.
    """
    layers = np.moveaxis(states.astype(np.float64), 1, 0)
    layers = layers - layers.mean(axis=1, keepdims=True)
    grams = np.stack([(layer @ layer.T).ravel() for layer in layers])
    norms = np.linalg.norm(grams, axis=1)
    products = norms[:, None] * norms
    return np.divide(grams @ grams.T, products, out=np.zeros_like(products), where=products > 0)


def label(classify: Pipeline, path: str | Path) -> dict[str, float]:
    """Scores of a fine-tuned head, label -> score, mean over the 5 s windows of the recording."""
    rate, count = classify.feature_extractor.sampling_rate, classify.model.config.num_labels
    scores, windows = Counter(), 0
    for window in stream_windows(path, rate, WINDOW_SECONDS):
        if window.start == 0 or len(window.samples) >= rate:
            windows += 1
            for entry in classify({"array": window.samples, "sampling_rate": rate}, top_k=count):
                scores[entry["label"]] += entry["score"]
    return {name: score / windows for name, score in scores.items()}
