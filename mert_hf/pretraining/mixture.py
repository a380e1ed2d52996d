"""In-batch noise mixture: snippets of the other clips of a batch, added to each clip (MERT, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..corpora.crops import draw_integer


def check_range(name: str, value: tuple[int, int], lowest: int) -> tuple[int, int]:
    """The pair (minimum, maximum) of integers with lowest <= minimum <= maximum; raises ValueError otherwise."""
    pair = tuple(int(bound) for bound in value)
    if len(pair) != 2 or pair != tuple(value) or not lowest <= pair[0] <= pair[1]:
        raise ValueError(
            f"{name} must be two integers (minimum, maximum) with {lowest} <= minimum <= maximum, got {value!r}."
        )
    return pair


@dataclass
class NoiseMixture:
    """Adds snippets cut from the other clips of the batch to a clip.

    Each clip is mixed with `probability`; a mixed clip receives `count` snippets, each of `length` samples (cut shorter
    where source or target is shorter), from another clip of the batch, at a random position, times `volume`. The
    defaults are the authors' fairseq recipe for 95M. Targets must come from the clean waveforms.

    Args:
        probability: probability of each clip to be mixed, 0 to 1.
        count: minimum and maximum number of snippets added to a mixed clip, both included.
        length: minimum and maximum number of samples of a snippet, both included.
        volume: factor by which the snippets are multiplied.
    """

    probability: float = 0.5
    count: tuple[int, int] = (1, 3)
    length: tuple[int, int] = (12000, 24000)
    volume: float = 1.0

    def __post_init__(self):
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability must lie between 0 and 1, got {self.probability!r}.")
        self.count = check_range("count", self.count, lowest=0)
        self.length = check_range("length", self.length, lowest=1)

    def __call__(
        self,
        waveforms: torch.Tensor,
        generator: torch.Generator | None = None,
        lengths: Sequence[int] | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mixes a batch. A batch of one clip has no other clips and is returned as an unchanged copy.

        Args:
            waveforms: (batch, samples), floating point, zero padded on the right; they are not changed.
            generator: source of randomness; torch's default generator if None.
            lengths: true number of samples of each clip; snippets are neither cut from padding nor added to it.

        Returns:
            A new tensor (batch, samples).

        Raises:
            ValueError: waveforms is not a batch of floating point clips, or lengths do not fit it.
        """
        sizes = _true_sizes(waveforms, lengths)
        mixed = waveforms.clone()
        if len(sizes) > 1:
            for row in range(len(sizes)):
                self._mix_row(mixed, waveforms, row, sizes, generator)
        return mixed

    def _mix_row(self, mixed, clean, row, sizes, generator) -> None:
        """Adds snippets of other clips to mixed[row]."""
        chance = torch.rand((), generator=generator, device=generator.device if generator is not None else None)
        if chance >= self.probability:
            return
        for _ in range(draw_integer(*self.count, generator)):
            other = draw_integer(0, len(sizes) - 2, generator)
            other += other >= row  # uniform over all clips but this one
            size = min(draw_integer(*self.length, generator), sizes[other], sizes[row])
            source = draw_integer(0, sizes[other] - size, generator)
            target = draw_integer(0, sizes[row] - size, generator)
            mixed[row, target : target + size] += self.volume * clean[other, source : source + size]


def _true_sizes(waveforms: torch.Tensor, lengths: Sequence[int] | torch.Tensor | None) -> list[int]:
    """Number of samples of each clip without its padding; checks both arguments."""
    if waveforms.dim() != 2 or not waveforms.is_floating_point():
        raise ValueError(
            "NoiseMixture takes floating point waveforms of shape (batch, samples), "
            f"got {waveforms.dtype} of shape {tuple(waveforms.shape)}."
        )
    batch, samples = waveforms.shape
    sizes = [samples] * batch if lengths is None else [int(size) for size in lengths]
    if len(sizes) != batch or any(not 0 <= size <= samples for size in sizes):
        raise ValueError(f"lengths must be {batch} numbers from 0 to {samples}, got {sizes}.")
    return sizes
