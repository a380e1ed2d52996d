"""Span masking: which frames are hidden from the student (fairseq, data_utils.compute_mask_indices, static spans)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

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
    """

    probability: float = 0.8
    length: int = 5
    min_masks: int = 2
    require_same_masks: bool = False
    aligned: bool = False

    def __post_init__(self):
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
