"""Fits the clusters of a k-means teacher to recordings, with scikit-learn's MiniBatchKMeans."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mert_hf.audio import AudioReadError, audio_info, find_audio_files, read_audio
from mert_hf.teachers.kmeans import KMeansTeacher
from mert_hf.teachers.statistics import CodeCounts

logger = logging.getLogger(__name__)

CLIP_SECONDS = 10.0
BATCH_FRAMES = 10_000  # of an update of the centroids, as HuBERT's


def fit_kmeans(
    data: str | os.PathLike | Iterable[str | os.PathLike],
    feature_sets: Mapping[str, int] | None = None,
    sampling_rate: int = 24000,
    hop_length: int = 320,
    max_minutes: float = 45.0,
    max_bad_fraction: float = 0.01,
    seed: int = 0,
    progress: bool = True,
) -> KMeansTeacher:
    """Fits a k-means teacher to a random choice of recordings.

    Args:
        data: files, folders and globs.
        feature_sets: number of clusters by feature set, see `KMeansTeacher`.
        sampling_rate: Hz.
        hop_length: samples between frames.
        max_minutes: minutes of audio to use, spread evenly over the recordings. All frames are held in memory: about
            20 MB a minute for all four feature sets together at 75 frames a second.
        max_bad_fraction: share of unreadable recordings that is borne.
        seed: of the choice of clips and of the centroids' start.
        progress: show progress bars.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: no or too many unreadable recordings, too few frames for the clusters, or a codebook that says
            nothing (silent recordings).
    """
    teacher = KMeansTeacher(feature_sets, sampling_rate, hop_length)
    files = find_audio_files(data)
    generator = torch.Generator().manual_seed(seed)
    collected: dict[str, list[torch.Tensor]] = {name: [] for name in teacher.feature_sets}
    clips = read_clips(files, sampling_rate, 60 * max_minutes, max_bad_fraction, generator, progress)
    for clip in clips:
        with torch.no_grad():
            for name, values in teacher.features(torch.from_numpy(clip)[None]).items():
                collected[name].append(values[0])
    frames = {name: torch.cat(values) for name, values in collected.items()}
    counts = CodeCounts(teacher.codebook_sizes)
    codes = []
    for name, clusters in tqdm(teacher.feature_sets.items(), desc="clusters", disable=not progress):
        mean, deviation, centroids, labels = fit_centroids(frames.pop(name), clusters, seed)
        teacher.set_clusters(name, mean, deviation, centroids)
        codes.append(labels)
    counts.add(np.stack(codes))
    if counts.dead():
        raise ValueError(f"Codebooks {counts.dead()} say nothing; are the recordings silent?\n{counts.table()}")
    logger.info("%d frames of %d recordings\n%s", len(codes[0]), len(files), counts.table())
    return teacher


def read_clips(
    files: Sequence[Path],
    sampling_rate: int,
    seconds: float,
    max_bad_fraction: float,
    generator: torch.Generator,
    progress: bool,
) -> Iterator[np.ndarray]:
    """Random clips (samples,) of at most 10 s, `seconds` in all, of as many recordings as possible.

    Raises:
        ValueError: too many recordings cannot be read.
    """
    share = max(seconds / len(files), CLIP_SECONDS)  # seconds of a recording
    order = torch.randperm(len(files), generator=generator).tolist()
    bad, remaining = 0, seconds
    with tqdm(total=round(seconds), desc="features", unit="s", disable=not progress) as bar:
        for index in order:
            if remaining < 1:
                break
            try:
                part = read_part(files[index], sampling_rate, min(share, remaining), generator)
            except (AudioReadError, OSError) as error:
                bad += 1
                logger.warning("Cannot use %s: %s", files[index], error)
                if bad > max_bad_fraction * len(files):
                    raise ValueError(
                        f"{bad} of {len(files)} recordings cannot be read, more than max_bad_fraction="
                        f"{max_bad_fraction} allows; the last is {files[index]}: {error}"
                    ) from error
                continue
            remaining -= len(part) / sampling_rate
            bar.update(round(len(part) / sampling_rate))
            clip = round(CLIP_SECONDS * sampling_rate)
            yield from (part[start : start + clip] for start in range(0, len(part), clip))


def read_part(path: Path, sampling_rate: int, seconds: float, generator: torch.Generator) -> np.ndarray:
    """A random part of a recording, (samples,) float32."""
    room = max(audio_info(path).duration - seconds, 0.0)
    offset = float(torch.rand((), generator=generator)) * room
    part = read_audio(path, sampling_rate, offset=offset, duration=seconds)
    if not np.isfinite(part).all():
        raise AudioReadError(str(path), "it holds values that are not finite", "Mend or remove the file")
    return part


def fit_centroids(
    frames: torch.Tensor, clusters: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
    """Clusters standardised frames.

    Args:
        frames: (frames, size).
        clusters: number of centroids.
        seed: of their start.

    Returns:
        Mean and deviation (size,) of the frames, centroids (clusters, size) of the standardised frames, and the
        cluster (frames,) of each frame.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: there are fewer frames than clusters.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise ImportError("Fitting clusters needs scikit-learn: pip install 'mert_hf[train]'.") from error
    if len(frames) < clusters:
        raise ValueError(f"{clusters} clusters need as many frames or more, got {len(frames)}: give more audio.")
    mean = frames.double().mean(dim=0).float()
    # A value that never moves would blow up its rounding noise.
    deviation = frames.double().std(dim=0, correction=0).float().clamp_min(1e-4)
    standardized = ((frames - mean) / deviation).numpy()
    # The settings of HuBERT's clusters (fairseq, learn_kmeans.py), with fewer starts.
    model = MiniBatchKMeans(
        clusters,
        init="k-means++",
        max_iter=100,
        batch_size=min(BATCH_FRAMES, len(frames)),
        tol=0.0,
        max_no_improvement=100,
        n_init=3,
        init_size=min(len(frames), max(3 * BATCH_FRAMES, 3 * clusters)),
        reassignment_ratio=0.0,
        random_state=seed,
    ).fit(standardized)
    return mean, deviation, torch.from_numpy(model.cluster_centers_).float(), model.labels_


def parse_feature_sets(text: str) -> dict[str, int]:
    """Feature sets of a command line: "mfcc:300,chroma:200" -> {"mfcc": 300, "chroma": 200}.

    Raises:
        ValueError: anything else.
    """
    sets = {}
    for part in text.split(","):
        name, _, clusters = part.strip().partition(":")
        if not clusters.isdigit() or name in sets:
            raise ValueError(f"Feature sets are written name:clusters,name:clusters, each once; got {text!r}.")
        sets[name] = int(clusters)
    return sets
