"""Span masks against an independent simulation of the published description."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mert_hf.pretraining.student_input import SpanMasking, drop_to_fewest


def simulate(frames: int, rows: int, probability: float = 0.8, length: int = 5, min_masks: int = 2) -> np.ndarray:
    """Static span masks drawn one by one with numpy from their description; (rows, frames) bool."""
    rng = np.random.default_rng(7)
    masks = np.zeros((rows, frames), dtype=bool)
    for row in range(rows):
        spans = max(min_masks, int(probability * frames / length + rng.random()))
        candidates = frames - length if frames - length > spans else spans + 1
        for start in rng.permutation(candidates)[:spans]:
            masks[row, start : min(start + length, frames)] = True
    return masks


def count_runs(masks: np.ndarray) -> np.ndarray:
    """Stretches of masked frames in each row."""
    return np.diff(masks.astype(int), axis=1, prepend=0).clip(0).sum(axis=1)


@pytest.mark.parametrize("frames", [374, 74, 21, 12, 8])
def test_masks_have_the_published_distribution(frames, generator):
    rows = 4000
    ours = SpanMasking()([frames] * rows, generator).numpy()
    theirs = simulate(frames, rows)
    ours_counts, their_counts = ours.sum(axis=1), theirs.sum(axis=1)
    spread = their_counts.std() * np.sqrt(2 / rows) + 1e-9
    assert abs(ours_counts.mean() - their_counts.mean()) < 4.5 * spread
    # The same chance at every place, the last frames included (4.5 standard errors of a difference of shares).
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 4.5 * np.sqrt(2 * 0.25 / rows)
    # And the same number of separate runs of masked frames, so that it is spans that are drawn.
    runs = [
        np.diff(np.pad(masks, ((0, 0), (1, 0))).astype(int), axis=1).clip(0).sum(axis=1) for masks in (ours, theirs)
    ]
    assert abs(runs[0].mean() - runs[1].mean()) < 4.5 * runs[1].std() * np.sqrt(2 / rows) + 1e-9


def test_each_row_is_drawn_from_its_own_length(generator):
    lengths = [374, 100, 30] * 500
    mask = SpanMasking()(lengths, generator)
    assert mask.shape == (1500, 374) and mask.dtype == torch.bool
    for place, frames in enumerate([374, 100, 30]):
        rows = mask[place::3]
        assert not rows[:, frames:].any(), "padding is never masked"
        expected = simulate(frames, 2000).mean()
        assert rows[:, :frames].float().mean() == pytest.approx(expected, abs=0.02)


def test_number_of_spans_is_rounded_by_chance(generator):
    # 0.5 * 100 / 20 = 2.5 spans; far apart and short of overlapping, the masked frames tell their number.
    mask = SpanMasking(probability=0.025, length=1, min_masks=0)([100] * 4000, generator)
    counts = mask.sum(dim=1)
    assert set(counts.tolist()) == {2, 3}
    assert (counts == 3).float().mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("frames", range(1, 12))
def test_short_rows_are_masked_within_their_length(frames, generator):
    mask = SpanMasking()([frames] * 200 + [0], generator)
    assert mask.shape == (201, frames)
    assert mask[:200].any(dim=1).all() and not mask[200].any()


def test_min_masks_holds_where_the_share_gives_fewer(generator):
    mask = SpanMasking(probability=0.0, length=3, min_masks=2)([50] * 500, generator)
    counts = mask.sum(dim=1)
    assert counts.min() >= 4 and counts.max() == 6  # two distinct starts overlap by at most two of three frames


def test_equal_seeds_give_equal_masks():
    draw = [SpanMasking()([374, 200], torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])


def test_lengths_may_be_a_tensor(generator):
    assert SpanMasking()(torch.tensor([74, 50]), generator).shape == (2, 74)


@pytest.mark.parametrize(("same", "share"), [(False, 0.58), (True, 0.54)])
def test_same_masks_are_a_choice_with_the_published_share(same, share, generator):
    """METHOD.md, section 2: 58 % of the frames of 5 s crops are masked, 54 % where 16 rows must have equally many."""
    masks = [SpanMasking(require_same_masks=same)([374] * 16, generator) for _ in range(40)]
    assert all((len(set(mask.sum(dim=1).tolist())) == 1) == same for mask in masks)
    assert torch.stack(masks).float().mean() == pytest.approx(share, abs=0.01)


def test_trimming_only_unmasks_and_keeps_the_fewest(generator):
    mask = torch.rand(6, 40, generator=generator) < 0.5
    trimmed = drop_to_fewest(mask, generator)
    assert (trimmed <= mask).all()
    assert (trimmed.sum(dim=1) == mask.sum(dim=1).min()).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": -0.1}, "probability must lie between 0 and 1, got -0.1"),
        ({"length": 0}, "length must be at least 1 and min_masks at least 0, got 0 and 2"),
        ({"min_masks": -1}, "got 5 and -1"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpanMasking(**arguments)


@pytest.mark.parametrize("lengths", [[], [-1], [1.5], [[3, 4]]])
def test_bad_lengths_are_refused(lengths):
    with pytest.raises(ValueError, match="one non-negative integer for each row"):
        SpanMasking()(lengths)
