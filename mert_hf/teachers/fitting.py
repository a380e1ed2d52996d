"""Fits teachers to recordings: a random choice of clips, statistics or codebooks of their features, a check, saving."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from ..audio import AudioReadError, audio_info, read_audio
from ..corpora.code_counts import CodeCounts
from ..corpora.dataset import open_recordings
from ..utils.files import check_output_folder
from ..utils.optional import require_extra
from ..utils.settings import check_choice
from ..utils.tolerance import Tolerance, check_bad_files
from .base import AcousticTeacher, Teacher, checked_clips
from .features import FeatureSet, FeatureTeacher, KMeansTeacher
from .frozen_encoders import FEATURES_PREFIX, EncoderLayer, EncoderTeacher, FusedEncoderTeacher
from .quantizers import MelRVQTeacher, RandomProjectionTeacher, fine_log_mel, mel_statistics, residual_codes
from .settings import FeatureSettings, FitSettings, KMeansSettings, RVQSettings

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Data = str | os.PathLike | Sequence[str | os.PathLike]

DEFAULT_FEATURES = ("mfcc:300", "chroma:200")
CLIP_SECONDS = 30.0
SHORTEST_SECONDS = 0.01  # of audio that is still read
CHECKED_CLIPS = 20  # clips whose codes are counted
REVIVAL_INTERVAL = 100  # steps after which codes that did not occur get vectors of the batch


def fit_teacher(
    data: Data, output_dir: str | os.PathLike, settings: KMeansSettings | FeatureSettings | RVQSettings
) -> tuple[Teacher, CodeCounts | None]:
    """Fits a teacher to a random choice of recordings (files, folders) and saves it, unless a codebook is dead.

    For k-means memory holds all features: per minute at 75 frames a second 1.4 MB for log-mel, 0.7 for MFCC, 0.2 for
    chroma, 1.5 for log-CQT. For a quantizer of log-mel it holds the clips (5.8 MB per minute at 24 kHz) and their
    frames (2.3 MB at 128 bands).

    Returns:
        The teacher and, where it gives codes, how often each occurs in the first clips.

    Raises:
        ValueError: an unknown kind, nothing to read, too many unreadable recordings, fewer frames than codes, or a dead
            codebook.
        OSError: nothing can be written to `output_dir`; raised before any work.
    """
    check_output_folder(output_dir)
    clips, counts = RandomClips(open_recordings(data, settings.split).names, settings), None
    teacher = MAKERS[type(settings)](clips, settings)
    if isinstance(teacher, AcousticTeacher):
        counts = count_codes(teacher, clips)
        counts.check()
    teacher.save_pretrained(output_dir)
    return teacher, counts


def count_codes(teacher: AcousticTeacher, clips: RandomClips) -> CodeCounts:
    """How often each code occurs in the first clips, or recordings where features are stored."""
    counts = CodeCounts(teacher.codebook_sizes)
    if getattr(teacher, "is_stored", False):
        for file, _ in islice(clips.recordings(), CHECKED_CLIPS):
            waveform = torch.from_numpy(read_audio(file, teacher.sampling_rate))
            counts.add(teacher.label_recording(waveform, file).numpy())
    else:
        for clip in islice(clips, CHECKED_CLIPS):
            counts.add(teacher.label_recording(torch.from_numpy(clip)).numpy())
    return counts


def _fit_kmeans(clips: RandomClips, settings: KMeansSettings) -> KMeansTeacher:
    require_extra("train", "sklearn")
    sets = parse_feature_sets(settings.features or DEFAULT_FEATURES)
    return KMeansTeacher.fit(clips, sets, seed=settings.seed, **_rates(settings))


def _fit_features(clips: RandomClips, settings: FeatureSettings) -> FeatureTeacher | EncoderTeacher:
    if bool(settings.features) == bool(settings.encoder):
        raise ValueError("Give one of --features and --encoder; several teachers are a list in the recipe.")
    if settings.encoder:
        encoders = [parse_encoder(text) for text in settings.encoder]
        audio = heard(clips, encoders)
        return EncoderTeacher.fit(audio, encoders, settings.components, seed=settings.seed, **_rates(settings))
    return FeatureTeacher.fit(clips, parse_feature_sets(settings.features, with_clusters=False), **_rates(settings))


def _fit_rvq(
    clips: RandomClips, settings: RVQSettings
) -> FusedEncoderTeacher | MelRVQTeacher | RandomProjectionTeacher:
    check_choice("kind", settings.kind, ("mel_rvq", "random_projection"))
    folders = (text if text.rpartition(":")[2].isdigit() else f"{text}:0" for text in settings.features)
    encoders = [parse_encoder(text) for text in (*settings.encoder, *(FEATURES_PREFIX + text for text in folders))]
    if not encoders:
        waveforms = [batch[0] for batch in checked_clips(clips, settings.show_progress_bar)]
        return (train_mel_rvq if settings.kind == "mel_rvq" else fit_random_projection)(waveforms, settings)
    require_extra("train", "sklearn")
    sizes = (settings.codebook_size,) * (settings.codebooks or 4)
    audio, rates = heard(clips, encoders), _rates(settings)
    return FusedEncoderTeacher.fit(audio, encoders, sizes, settings.components, seed=settings.seed, **rates)


def _rates(settings: FitSettings) -> dict[str, Any]:
    """Rates and progress bar, as all classes take them; RVQSettings may leave the hop length to be MERT-v2's."""
    rates = {name: getattr(settings, name) for name in ("sampling_rate", "hop_length", "show_progress_bar")}
    return rates if settings.hop_length is not None else {**rates, "hop_length": 960}


MAKERS = {KMeansSettings: _fit_kmeans, FeatureSettings: _fit_features, RVQSettings: _fit_rvq}


def fit_random_projection(waveforms: Sequence[torch.Tensor], settings: RVQSettings) -> RandomProjectionTeacher:
    """A random-projection quantizer with the statistics of the mel bands of clips (samples,)."""
    mean, scale = mel_statistics(waveforms, **settings.mel)
    sizes = {name: getattr(settings, name) for name in ("codebook_size", "codebook_dim", "seed")}
    return RandomProjectionTeacher(
        **settings.mel, num_codebooks=settings.codebooks or 8, **sizes, mean=mean, scale=scale
    )


def heard(clips: RandomClips, encoders: Sequence[EncoderLayer]) -> RandomClips | Iterator[tuple[str, float]]:
    """The audio that a teacher is fitted to: clips, or recordings where the features of its encoders are stored."""
    return clips.recordings() if str(encoders[0].name).startswith(FEATURES_PREFIX) else clips


class RandomClips:
    """Clips (samples,) float32 of at most 30 s at random places of recordings, the same each time it is iterated.

    They last `max_minutes` together and come from as many recordings as possible.
    """

    def __init__(self, files: Sequence[str], settings: FitSettings):
        if not settings.max_minutes > 0:
            raise ValueError(f"max_minutes must be more than 0, got {settings.max_minutes}.")
        self.files, self.sampling_rate, self.seed = files, settings.sampling_rate, settings.seed
        self.seconds, self.tolerance = 60 * settings.max_minutes, Tolerance.parse(settings.max_bad_files)

    def __iter__(self) -> Iterator[np.ndarray]:
        share = max(self.seconds / len(self.files), CLIP_SECONDS)
        size = round(CLIP_SECONDS * self.sampling_rate)

        def read(file: str, remaining: float, generator: torch.Generator) -> tuple[np.ndarray, float]:
            part = self._read(file, min(share, remaining), generator)
            return part, len(part) / self.sampling_rate

        for _, part in self._usable(read):
            yield from (part[start : start + size] for start in range(0, len(part), size))

    def recordings(self) -> Iterator[tuple[str, float]]:
        """Whole recordings with their seconds, in place of clips; for features of files."""
        return self._usable(lambda file, *_: (audio_info(file).duration,) * 2)

    def _usable(self, read: Callable[..., tuple[Item, float]]) -> Iterator[tuple[str, Item]]:
        """Recordings in random order with what is read of them, until there is enough audio."""
        generator = torch.Generator().manual_seed(self.seed)
        remaining, bad = self.seconds, 0
        for index in torch.randperm(len(self.files), generator=generator).tolist():
            if remaining < SHORTEST_SECONDS:
                return
            try:
                found, seconds = read(self.files[index], remaining, generator)
            except (AudioReadError, OSError) as error:
                bad += 1
                logger.warning("Cannot use %s: %s", self.files[index], error)
                check_bad_files(bad, len(self.files), self.tolerance, str(error))
                continue
            remaining -= seconds
            yield self.files[index], found

    def _read(self, file: str, seconds: float, generator: torch.Generator) -> np.ndarray:
        room = max(audio_info(file).duration - seconds, 0.0)
        offset = float(torch.rand((), generator=generator)) * room
        return read_audio(file, self.sampling_rate, offset=offset, duration=seconds)


def parse_feature_sets(texts: Iterable[str], with_clusters: bool = True) -> tuple[FeatureSet, ...]:
    """Feature sets of texts of one or more each, separated by commas or blanks, as `mert-hf fit-kmeans` takes them.

    Each is a name, a number of clusters (unless `with_clusters` is False, for features that are regressed), and
    optionally seconds of context and dimensions, such as "mfcc:300", "chroma:200:2.5", "log_mel:300:0:229".
    """
    kinds = {"num_clusters": int, "context": float, "dimensions": int}
    form = "name:clusters, name:clusters:seconds or name:clusters:seconds:dimensions, such as log_mel:300:0:229"
    if not with_clusters:
        del kinds["num_clusters"]
        form = "name, name:seconds or name:seconds:dimensions, such as log_mel:0:229"
    sets = []
    for text in " ".join(texts).replace(",", " ").split():
        name, *numbers = text.split(":")
        try:
            if not with_clusters <= len(numbers) <= len(kinds):
                raise ValueError(f"it has {len(numbers)} numbers")
            given = zip(kinds.items(), numbers, strict=False)
            sets.append(FeatureSet(name, **{key: kind(number) for (key, kind), number in given}))
        except ValueError as error:
            message = f"Cannot read the feature set {text!r}: {str(error).rstrip('.')}. Write {form}."
            raise ValueError(message) from error
    return tuple(sets)


def parse_encoder(text: str) -> EncoderLayer:
    """NAME:LAYER as an encoder layer. Raises ValueError where there is no layer at the end."""
    name, _, layer = text.rpartition(":")
    if not name or not layer.isdigit():
        raise ValueError(f"An encoder is given as NAME:LAYER, such as m-a-p/MERT-v1-95M:9, not as {text!r}.")
    return EncoderLayer(name, int(layer))


def train_mel_rvq(waveforms: Iterable[torch.Tensor], settings: RVQSettings) -> MelRVQTeacher:
    """Trains encoder, codebooks and decoder to reconstruct the standardized log-mel frames of clips (samples,).

    The loss is the mean squared error of the reconstruction, through the straight-through estimator, plus that of the
    code vectors to the encoder's output and `commitment` times that of the output to them (VQ-VAE, arXiv 1711.00937).
    """
    waveforms = list(waveforms)
    mean, scale = mel_statistics(waveforms, **settings.mel)
    mel = [fine_log_mel(clip[None].float(), **settings.mel)[0] for clip in waveforms]
    frames = ((torch.cat(mel) - mean) / scale).flatten(start_dim=1)
    generator = torch.Generator().manual_seed(settings.seed)
    quantizer = MelRVQ(frames, settings, generator)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, settings.steps)
    for step in tqdm(range(settings.steps), "training", disable=not settings.show_progress_bar):
        batch = frames[torch.randint(len(frames), (settings.batch_frames,), generator=generator)]
        optimizer.zero_grad()
        quantizer.loss(batch, settings.commitment).backward()
        optimizer.step()
        schedule.step()
        if step % REVIVAL_INTERVAL == REVIVAL_INTERVAL - 1 and step < settings.steps // 2:
            quantizer.revive_codes(batch, generator)
    weights = {"encoder": quantizer.encoder, "bias": quantizer.bias, "codebooks": quantizer.codebooks}
    return MelRVQTeacher(
        **settings.mel, **{name: weight.detach() for name, weight in weights.items()}, mean=mean, scale=scale
    )


class MelRVQ(nn.Module):
    """Linear encoder and decoder around a residual quantizer, initialized from frames (frames, size).

    The encoder starts with the frames' principal components, and each codebook with residuals of random frames.
    """

    def __init__(self, frames: torch.Tensor, settings: RVQSettings, generator: torch.Generator):
        super().__init__()
        dim = min(settings.codebook_dim, frames.shape[1])
        center = frames.mean(dim=0)
        covariance = (frames - center).T @ (frames - center) / len(frames)
        components = torch.linalg.eigh(covariance).eigenvectors[:, -dim:]
        self.encoder = nn.Parameter(components.clone())
        self.bias = nn.Parameter(-center @ components)
        self.decoder = nn.Parameter(components.T.clone())
        self.offset = nn.Parameter(center.clone())
        residual, codebooks = (frames - center) @ components, []
        for _ in range(settings.codebooks or 8):
            chosen = torch.randint(len(residual), (settings.codebook_size,), generator=generator)
            codebooks.append(residual[chosen])
            residual = residual - residual_codes(residual, codebooks[-1][None])[1]
        self.codebooks = nn.Parameter(torch.stack(codebooks))

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """(frames, size) -> (frames, dim)."""
        return frames @ self.encoder + self.bias

    def loss(self, frames: torch.Tensor, commitment: float) -> torch.Tensor:
        """Reconstruction, codebook and commitment losses of a batch."""
        vectors = self.encode(frames)
        with torch.no_grad():
            codes, _ = residual_codes(vectors, self.codebooks)
        quantized, extra = torch.zeros_like(vectors), 0.0
        for codebook, code in zip(self.codebooks, codes.T, strict=True):
            residual = vectors - quantized
            chosen = codebook[code]
            extra = extra + (chosen - residual.detach()).square().mean()
            extra = extra + commitment * (residual - chosen.detach()).square().mean()
            quantized = quantized + chosen.detach()
        straight_through = vectors + (quantized - vectors).detach()
        return (straight_through @ self.decoder + self.offset - frames).square().mean() + extra

    @torch.no_grad()
    def revive_codes(self, frames: torch.Tensor, generator: torch.Generator) -> None:
        """Replaces code vectors that are nearest to no frame by residuals of random frames."""
        residual = self.encode(frames)
        for codebook in self.codebooks:
            codes, quantized = residual_codes(residual, codebook[None])
            unused = torch.bincount(codes[:, 0], minlength=len(codebook)) == 0
            chosen = torch.randint(len(residual), (int(unused.sum()),), generator=generator)
            codebook[unused] = residual[chosen]
            residual = residual - quantized
