"""What the app computes: checks of an upload, embeddings, labels, similar recordings, similarity of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import Pipeline

from mert_hf import MERTEmbedder
from mert_hf.audio import audio_info, find_audio_files, read_audio

WINDOW_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """The limits of an upload.

    Attributes:
        seconds: longest recording.
        megabytes: largest file, in units of 10^6 bytes.
    """

    seconds: float = 120.0
    megabytes: float = 30.0

    def check(self, path: str | None) -> float:
        """The length of the recording in seconds.

        Raises:
            ValueError: no file, one that is too large or too long, or not audio; the message is for the visitor.
        """
        if not path:
            raise ValueError("Choose a recording first.")
        megabytes = Path(path).stat().st_size / 1e6
        if megabytes > self.megabytes:
            raise ValueError(f"This file has {megabytes:.1f} MB; at most {self.megabytes:g} MB are taken.")
        seconds = audio_info(path).duration
        if seconds > self.seconds:
            raise ValueError(
                f"This recording has {seconds:.0f} seconds; at most {self.seconds:g} are taken. Cut out a part of it."
            )
        return seconds


@dataclass(frozen=True)
class Library:
    """Embeddings of a folder of recordings, to find similar ones.

    Attributes:
        names: file names, relative to the folder.
        mean: (hidden,) mean over the recordings, which does not distinguish them.
        directions: (recordings, hidden) unit vectors from the mean.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    directions: np.ndarray

    @classmethod
    def index(cls, folder: str | Path, embedder: MERTEmbedder) -> Library:
        """Embeds every recording of a folder.

        Raises:
            ValueError: no recordings, or one that cannot be read.
        """
        paths = find_audio_files([folder])
        if not paths:
            raise ValueError(f"{folder} holds no recordings")
        vectors = np.stack([song_vector(embedder, path) for path in paths])
        mean = vectors.mean(axis=0)
        names = tuple(str(Path(path).relative_to(folder)) for path in paths)
        return cls(names, mean, _unit(vectors - mean))

    def most_similar(self, vector: np.ndarray, count: int = 5) -> list[tuple[str, float]]:
        """The nearest recordings and their cosine similarity, nearest first."""
        similarity = self.directions @ _unit(vector - self.mean)
        order = np.argsort(-similarity, kind="stable")[:count]
        return [(self.names[index], round(float(similarity[index]), 4)) for index in order]


def embed(embedder: MERTEmbedder, path: str | Path) -> np.ndarray:
    """Mean over time of every layer in windows of 5 s, float32 (windows, layers, hidden)."""
    return embedder.encode(path, window=WINDOW_SECONDS, show_progress_bar=False).embeddings


def song_vector(embedder: MERTEmbedder, path: str | Path) -> np.ndarray:
    """One vector for a recording: the middle layer's mean over time, float32 (hidden,)."""
    return middle_layer(embed(embedder, path))


def middle_layer(embeddings: np.ndarray) -> np.ndarray:
    """(windows, layers, hidden) -> mean over windows of the middle layer (hidden,)."""
    return embeddings[:, embeddings.shape[1] // 2].mean(axis=0)


def layer_similarity(embedder: MERTEmbedder, path: str | Path) -> np.ndarray:
    """Linear CKA between all layers over the frames of the first 5 seconds, float64 (layers, layers) in [0, 1]."""
    clip = read_audio(path, embedder.sampling_rate, duration=WINDOW_SECONDS)
    options = {"pooling": "frames", "window": None, "show_progress_bar": False}
    return linear_cka(embedder.encode(clip, sampling_rate=embedder.sampling_rate, **options).embeddings)


def linear_cka(states: np.ndarray) -> np.ndarray:
    """Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414, section 3).

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
    rate = classify.feature_extractor.sampling_rate
    audio = read_audio(path, rate)
    size = round(WINDOW_SECONDS * rate)
    windows = [audio[start : start + size] for start in range(0, len(audio), size)]
    windows = [window for window in windows if len(window) >= rate] or windows[:1]
    count = classify.model.config.num_labels
    answers = [classify({"array": window, "sampling_rate": rate}, top_k=count) for window in windows]
    return _mean_scores(answers)


def _mean_scores(answers: Sequence[Sequence[dict]]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for answer in answers:
        for entry in answer:
            scores[entry["label"]] = scores.get(entry["label"], 0.0) + entry["score"] / len(answers)
    return scores


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
