"""The student's input: masked spans, snippets of other clips, another sound. Targets come from the clean clips.

Span masking: fairseq, data_utils.compute_mask_indices, static spans. Noise mixture: MERT, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..audio.effects import compress_mp3, equalize, limit_band, move, reverberate
from ..corpora.crops import draw_integer
from ..modeling.modeling_mert import draw_span_mask, length_mask


@dataclass
class SpanMasking:
    """Draws masked spans for each row from the row's true number of frames.

    A row of n frames gets floor(probability * n / length + u) spans, u uniform in [0, 1), at least `min_masks`, whose
    starts are distinct and uniform over the first n - length frames. Spans may overlap, so fewer than probability * n
    frames end up masked (about 58% at the defaults). Where n - length does not exceed the number of spans s, the starts
    come from the first s + 1 frames and spans are cut at the end of the row, as in fairseq; a row with any frame at all
    gets at least one masked frame. Padding is never masked.

    Args:
        probability: share of frames to mask if spans did not overlap, 0 to 1.
        length: frames of a span.
        min_masks: minimum number of spans in a row.
        require_same_masks: drop masked frames at random until every row has as many as the row with the fewest, which
            leaves about 54% of the frames masked in a batch of 16 crops. fairseq does so by default and the authors'
            recipes do not override it. MERT's losses do not need it, and next to a short row it removes most of the
            mask from the long ones.
        aligned: spans lie on a grid of `length` frames, and each is masked with `probability`, so that they do not
            overlap and the share of masked frames is the probability (MusicFM, arXiv 2311.03318; MuQ, arXiv
            2501.01108: 60% in spans of 400 ms).
        clips: share of the rows that are masked at all.
    """

    probability: float = 0.8
    length: int = 5
    min_masks: int = 2
    require_same_masks: bool = False
    aligned: bool = False
    clips: float = 1.0

    def __post_init__(self):
        if not 0.0 <= self.clips <= 1.0 or (self.clips < 1.0 and self.require_same_masks):
            raise ValueError(f"clips must lie between 0 and 1, and be 1 with require_same_masks, got {self.clips!r}.")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability must lie between 0 and 1, got {self.probability!r}.")
        if self.length < 1 or self.min_masks < 0:
            raise ValueError(
                f"length must be at least 1 and min_masks at least 0, got {self.length} and {self.min_masks}."
            )

    def __call__(
        self, frame_lengths: Sequence[int] | torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Draws a mask.

        Args:
            frame_lengths: (batch,) true number of frames of each row.
            generator: source of randomness; torch's default generator if None.

        Returns:
            (batch, frames) bool on the device of the generator (CPU without one), True where masked; frames is the
            length of the longest row.

        Raises:
            ValueError: frame_lengths is not a list of non-negative integers.
        """
        device = generator.device if generator is not None else torch.device("cpu")
        lengths = torch.as_tensor(frame_lengths, device=device)
        if lengths.dim() != 1 or len(lengths) == 0 or lengths.is_floating_point() or (lengths < 0).any():
            raise ValueError(f"frame_lengths must be one non-negative integer for each row, got {frame_lengths!r}.")
        size = int(lengths.max())
        draw = draw_aligned_mask if self.aligned else draw_span_mask
        mask = draw(lengths.long(), size, self.probability, self.length, self.min_masks, generator)
        if self.clips < 1.0:
            mask &= torch.rand((len(lengths), 1), device=device, generator=generator) < self.clips
        return self.equalize(mask, generator)

    def equalize(self, mask: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """The mask of a batch (batch, frames) after `require_same_masks`; the mask itself where that is off."""
        return drop_to_fewest(mask, generator) if self.require_same_masks else mask


def drop_to_fewest(mask: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Unmasks frames at random until every row has as many masked frames as the row with the fewest."""
    scores = torch.rand(mask.shape, generator=generator, device=mask.device, dtype=torch.float64)
    rank = scores.masked_fill(~mask, torch.inf).argsort(dim=1).argsort(dim=1)
    return mask & (rank < mask.sum(dim=1).min())


def draw_aligned_mask(
    lengths: torch.Tensor,
    size: int,
    probability: float,
    span_length: int,
    min_spans: int = 0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws masks of spans on a grid; arguments and result as with `draw_span_mask`.

    Each span within a row is masked with `probability`, and those with the `min_spans` lowest draws are always masked
    (at least one, so that every row has a frame to predict).
    """
    spans = -(-size // span_length)
    draws = torch.rand((len(lengths), spans), device=lengths.device, generator=generator)
    draws = draws.masked_fill(~length_mask(-(-lengths // span_length), spans), 2.0)
    rank = draws.argsort(dim=1).argsort(dim=1)
    masked = (draws < probability) | ((rank < max(min_spans, 1)) & (draws < 1.0))
    return masked.repeat_interleave(span_length, dim=1)[:, :size] & length_mask(lengths, size)


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


EQUALIZER_POINTS = 6


@dataclass
class InputAugmentation:
    """Changes the sound of a clip; its targets must come from the clean clip, from which it is moved less than a frame.

    Each of the changes is made with `probability`, in this order; 0 as its size turns one off.

    Args:
        probability: probability of each change, 0 to 1.
        equalizer: standard deviation in dB of the gain at six frequencies, spaced evenly in logarithm from 60 Hz to
            the Nyquist frequency; in between it is interpolated.
        room: longest reverberation in seconds (decay by 60 dB), drawn from a quarter of it upwards. White noise that
            decays exponentially follows the direct sound, 0 to 15 dB weaker in energy.
        mp3: strongest compression of MP3, from 0 (none) to 0.99 (nearly the lowest bit rate).
        gain: lowest and highest gain in dB.
        lowest_rate: lowest sampling rate in Hz to which the clip is resampled and back, which cuts its highs; drawn
            from it up to the clip's own.
        shift: largest shift in time in seconds, either way.

    Raises:
        ValueError: a size is out of range.
    """

    probability: float = 0.3
    equalizer: float = 6.0
    room: float = 0.6
    mp3: float = 0.8
    gain: Sequence[float] = (-12.0, 6.0)
    lowest_rate: float = 0.0
    shift: float = 0.0

    def __post_init__(self):
        limits = {"probability": 1.0, "equalizer": 40.0, "room": 10.0, "mp3": 0.99, "lowest_rate": 1e6, "shift": 1.0}
        for name, highest in limits.items():
            if not 0.0 <= getattr(self, name) <= highest:
                raise ValueError(f"{name}={getattr(self, name)!r} must lie between 0 and {highest:g}.")
        self.gain = tuple(float(bound) for bound in self.gain)
        if len(self.gain) != 2 or not -100.0 <= self.gain[0] <= self.gain[1] <= 100.0:
            raise ValueError(f"gain={self.gain} must be two numbers in dB, the lower one first, from -100 to 100.")

    def __call__(
        self, waveform: torch.Tensor, sampling_rate: int, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """A changed copy of a clip.

        Args:
            waveform: (samples,) float32.
            sampling_rate: in Hz.
            generator: source of randomness; torch's default generator if None.

        Returns:
            (samples,) float32; may exceed 1 in magnitude.
        """

        def draw(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        changed = waveform.clone()
        if self.equalizer and draw(0, 1) < self.probability:
            decibels = self.equalizer * torch.randn(EQUALIZER_POINTS, generator=generator)
            changed = equalize(changed, sampling_rate, decibels)
        if self.room and draw(0, 1) < self.probability:
            tail = torch.randn(round(self.room * sampling_rate), generator=generator)
            changed = reverberate(changed, sampling_rate, tail, draw(self.room / 4, self.room), draw(-15, 0))
        if self.mp3 and draw(0, 1) < self.probability:
            changed = torch.from_numpy(compress_mp3(changed.numpy(), sampling_rate, draw(0, self.mp3)))
        if any(self.gain) and draw(0, 1) < self.probability:
            changed = changed * 10 ** (draw(*self.gain) / 20)
        if self.lowest_rate and draw(0, 1) < self.probability:
            rate = draw(min(self.lowest_rate, sampling_rate), sampling_rate)
            changed = torch.from_numpy(limit_band(changed.numpy(), sampling_rate, rate))
        if self.shift and draw(0, 1) < self.probability:
            changed = move(changed, round(draw(-self.shift, self.shift) * sampling_rate))
        return changed
