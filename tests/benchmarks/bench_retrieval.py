"""Which layer, pooling and whitening finds other parts of a recording, and other recordings of its album, best?

    python tests/benchmarks/bench_retrieval.py MUSIC... [--model mert2-nano]

Files whose names begin alike up to the first `__`, or else whose folder is the same, are an album. Recordings are cut
in parts of 30 s. For each part, all others are ranked by cosine similarity. Columns: mean average precision of the
other parts of the recording; share of parts whose nearest neighbor is of the same recording; mean average precision
of parts of other recordings of the album; 1st and 99th percentile of the similarity of parts of different albums.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mert_hf import MERTEmbedder
from mert_hf.audio import find_audio_files
from mert_hf.search.store import unit
from mert_hf.utils.text import markdown_table

WINDOWS = 6  # of 5 s in a part


def album_of(path: Path) -> str:
    return path.name.split("__")[0] if "__" in path.name else str(path.parent)


def embed_parts(paths: list[Path], model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows (parts, windows, layers, hidden), and the recordings (parts,) and albums (parts,) of the parts."""
    embedder = MERTEmbedder.from_pretrained(model, device="cpu")
    parts, recordings, albums = [], [], []
    for number, path in enumerate(paths):
        windows = embedder.encode(path, show_progress_bar=False).embeddings
        for start in range(0, len(windows) - WINDOWS + 1, WINDOWS):
            parts.append(windows[start : start + WINDOWS])
            recordings.append(number)
            albums.append(album_of(path))
    return np.stack(parts), np.array(recordings), np.array(albums)


def poolings(parts: np.ndarray) -> dict[str, np.ndarray]:
    """name -> vectors (parts, values)."""
    layers = parts.shape[2]
    found = {f"{layer}": parts[:, :, layer].mean(axis=1) for layer in range(layers)}
    last = parts[:, :, -1]
    found[f"{layers - 1}, mean and deviation"] = np.concatenate([last.mean(axis=1), last.std(axis=1)], axis=1)
    found["all layers"] = parts.mean(axis=1).reshape(len(parts), -1)
    return found


def whitenings(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """name -> vectors; PCA to the power p divides each principal component by its deviation to the power p."""
    centered = vectors - vectors.mean(axis=0)
    _, deviations, axes = np.linalg.svd(centered, full_matrices=False)
    deviations, rotated = deviations / len(vectors) ** 0.5, centered @ axes.T
    return {
        "none": vectors,
        "centered": centered,
        "standardized": centered / (centered.std(axis=0) + 1e-9),
        "PCA to the power 0.5": rotated / (deviations + 1e-6) ** 0.5,
        "PCA to the power 1": rotated / (deviations + 1e-6),
    }


def mean_average_precision(similarity: np.ndarray, relevant: np.ndarray, ranked: np.ndarray) -> float:
    """Over queries (rows) with something relevant among what is ranked."""
    scores = []
    for row, good, taken in zip(similarity, relevant, ranked, strict=True):
        hits = good[taken][np.argsort(-row[taken], kind="stable")]
        if hits.any():
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            scores.append((precision * hits).sum() / hits.sum())
    return float(np.mean(scores))


def scores(vectors: np.ndarray, recordings: np.ndarray, albums: np.ndarray) -> list[str]:
    similarity = unit(vectors) @ unit(vectors).T
    same, album = recordings[:, None] == recordings, albums[:, None] == albums
    others = ~np.eye(len(vectors), dtype=bool)
    nearest = np.where(others, similarity, -2).argmax(axis=1)
    top = (recordings[nearest] == recordings)[(same & others).any(axis=1)].mean()
    found = mean_average_precision(similarity, same, others), top, mean_average_precision(similarity, album, ~same)
    low, high = np.percentile(similarity[~album], [1, 99])
    return [*(f"{value:.3f}" for value in found), f"{low:.2f} to {high:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", nargs="+", help="Files, folders and globs.")
    parser.add_argument("--model", default="mert2-nano", help="Hub id, folder, or name of a bundled checkpoint.")
    arguments = parser.parse_args()
    parts, recordings, albums = embed_parts(find_audio_files(arguments.music), arguments.model)
    rows = [
        [pooling, whitening, *scores(vectors, recordings, albums)]
        for pooling, pooled in poolings(parts).items()
        for whitening, vectors in whitenings(pooled).items()
    ]
    print(markdown_table(["layer", "whitening", "same recording", "top 1", "same album", "strangers"], rows))


if __name__ == "__main__":
    main()
