"""Fits teachers that quantize log-mel frames to recordings: MuQ's Mel-RVQ, statistics for random projections."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from ..corpora.dataset import open_recordings
from ..utils.files import check_output_folder
from . import MelRVQTeacher, RandomProjectionTeacher
from .kmeans_fitting import RandomClips, save_checked
from .mel_frames import MelQuantizerTeacher, fine_log_mel, mel_statistics
from .residual import residual_codes
from .statistics import CodeCounts

REVIVAL_INTERVAL = 100  # steps after which codes that did not occur get vectors of the batch


@dataclass(frozen=True)
class RVQSettings:
    """Sizes and training of a Mel-RVQ; the sizes are MuQ's (arXiv 2501.01108, section 3.2).

    Attributes:
        sampling_rate: sampling rate of the student in Hz.
        hop_length: samples from one frame of the student to the next.
        num_codebooks: codebooks.
        codebook_size: codes of a codebook.
        codebook_dim: dimension of the code vectors.
        num_bins: mel bands.
        stack: log-mel frames in a frame of the student.
        steps: training steps.
        batch_frames: frames in a step.
        learning_rate: of Adam, falling linearly to zero.
        commitment: weight of the commitment loss.
        seed: seed of initialization and batches.
    """

    sampling_rate: int = 24000
    hop_length: int = 320
    num_codebooks: int = 8
    codebook_size: int = 1024
    codebook_dim: int = 16
    num_bins: int = 128
    stack: int = 1
    steps: int = 2000
    batch_frames: int = 4096
    learning_rate: float = 2e-3
    commitment: float = 0.25
    seed: int = 0

    @property
    def mel(self) -> dict[str, int]:
        """The settings of the log-mel frames."""
        names = ("sampling_rate", "hop_length", "num_bins", "stack")
        return {name: getattr(self, name) for name in names}


def fit_mel_quantizer(
    data: str | os.PathLike | Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    kind: str = "mel_rvq",
    settings: RVQSettings = RVQSettings(),
    max_minutes: float = 120.0,
    split: str | None = None,
    max_bad_files: int | str = "1%",
    show_progress_bar: bool = True,
) -> CodeCounts:
    """Fits a teacher to a random choice of recordings and saves it.

    Args:
        data: files and folders, with or without metadata.csv.
        output_dir: folder of the teacher.
        kind: "mel_rvq", or "random_projection", of which only the statistics of the mel bands are computed.
        settings: sizes and training.
        max_minutes: minutes of audio to use, spread evenly over the recordings. Memory holds them (5.8 MB per minute at
            24 kHz) and their log-mel frames (2.3 MB per minute at 128 bands and 75 frames a second).
        split: rows of metadata.csv to use; None uses all.
        max_bad_files: unreadable recordings tolerated: a number such as 3, or a share of all such as "1%".
        show_progress_bar: show a progress bar.

    Returns:
        How often each code occurs in the first clips.

    Raises:
        ValueError: an unknown kind, nothing to read, too many unreadable recordings, or a dead codebook.
    """
    check_output_folder(output_dir)
    files = open_recordings(data, split).names
    clips = RandomClips(files, settings.sampling_rate, 60 * max_minutes, max_bad_files, settings.seed)
    waveforms = [torch.from_numpy(clip) for clip in tqdm(clips, "reading", disable=not show_progress_bar)]
    teacher: MelQuantizerTeacher
    if kind == "mel_rvq":
        teacher = train_mel_rvq(waveforms, settings, show_progress_bar)
    elif kind == "random_projection":
        teacher = fit_random_projection(waveforms, settings)
    else:
        raise ValueError(f"kind must be 'mel_rvq' or 'random_projection', got {kind!r}.")
    return save_checked(teacher, waveforms, output_dir)


def fit_random_projection(waveforms: Sequence[torch.Tensor], settings: RVQSettings) -> RandomProjectionTeacher:
    """A random-projection quantizer with the statistics of the mel bands of clips (samples,)."""
    mean, scale = mel_statistics(waveforms, **settings.mel)
    sizes = ("num_codebooks", "codebook_size", "codebook_dim", "seed")
    return RandomProjectionTeacher(
        **settings.mel, **{name: getattr(settings, name) for name in sizes}, mean=mean, scale=scale
    )


def train_mel_rvq(
    waveforms: Iterable[torch.Tensor], settings: RVQSettings, show_progress_bar: bool = True
) -> MelRVQTeacher:
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
    for step in tqdm(range(settings.steps), "training", disable=not show_progress_bar):
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
        for _ in range(settings.num_codebooks):
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
