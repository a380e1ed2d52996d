"""Musical teachers whose spectra can be standardised bin by bin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TypeVar

import torch

from mert_hf.teachers.base import Teacher, check_waveforms

Self = TypeVar("Self", bound="StandardizedSpectrumTeacher")


class StandardizedSpectrumTeacher(Teacher):
    """A spectrum, with each bin at mean 0 and deviation 1 over the recordings shown to `fit` if `standardize` is set.

    Subclasses write `spectrum`: (batch, samples) -> (batch, frames, bins).

    Args:
        num_bins: values a frame.
        standardize: whether to; `fit` must then be called once, and what it measures is saved with the teacher.
    """

    def __init__(self, num_bins: int, standardize: bool):
        super().__init__()
        self.num_bins = num_bins
        self.standardize = standardize
        if standardize:
            self.register_buffer("mean", torch.full((num_bins,), torch.nan))
            self.register_buffer("deviation", torch.full((num_bins,), torch.nan))

    @abstractmethod
    def spectrum(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Values before standardisation."""

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        spectrum = self.spectrum(waveforms)
        if not self.standardize:
            return spectrum
        if self.mean.isnan().any():
            raise ValueError(f"{type(self).__name__}(standardize=True) knows no means yet: call fit(clips) first.")
        return (spectrum - self.mean) / self.deviation

    @torch.no_grad()
    def fit(self: Self, batches: Iterable[torch.Tensor]) -> Self:
        """Measures each bin's mean and deviation over all frames of the given clips.

        Args:
            batches: of clips (batch, samples).

        Returns:
            The teacher itself.

        Raises:
            ValueError: it was built without standardize=True, or there are no clips.
        """
        if not self.standardize:
            raise ValueError(f"Build the teacher with {type(self).__name__}(standardize=True) to fit it.")
        count, total, squares = 0, 0.0, 0.0
        for waveforms in batches:
            check_waveforms(waveforms)
            frames = self.spectrum(waveforms).double().flatten(0, 1)
            count, total, squares = count + len(frames), total + frames.sum(0), squares + frames.square().sum(0)
        if not count:
            raise ValueError("No clips were given to fit to.")
        mean = total / count
        self.mean.copy_(mean)
        # A bin that never moves (silence, or above the recordings' band) would blow up its rounding noise.
        self.deviation.copy_((squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-4))
        return self
