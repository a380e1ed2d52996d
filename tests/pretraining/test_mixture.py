"""In-batch noise mixture: what is added, where, how often, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

from mert_hf.pretraining.student_input import NoiseMixture


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_returns_a_new_tensor_and_leaves_the_clean_clips_alone(generator):
    clean = torch.randn(4, 2000, generator=generator)
    kept = clean.clone()
    mixed = NoiseMixture(probability=1.0, length=(100, 200))(clean, generator)
    assert torch.equal(clean, kept)
    assert mixed.shape == clean.shape and mixed.data_ptr() != clean.data_ptr()
    assert all(not torch.equal(mixed[row], clean[row]) for row in range(4))


def test_equal_seeds_give_equal_mixtures(generator):
    clean = torch.randn(4, 2000, generator=generator)
    mixture = NoiseMixture(length=(100, 200))
    assert torch.equal(mixture(clean, seeded()), mixture(clean, seeded()))
    assert not torch.equal(mixture(clean, seeded()), mixture(clean, seeded(1)))


def test_what_is_added_is_a_snippet_of_another_clip_times_the_volume():
    # Each clip is a ramp of its own range, so a sample shows where it was cut from.
    clean = torch.stack([1000.0 * row + torch.arange(500.0) for row in range(1, 4)])
    mixture = NoiseMixture(probability=1.0, count=(1, 1), length=(50, 80), volume=0.5)
    for seed in range(50):
        added = (mixture(clean, seeded(seed)) - clean) / 0.5
        for row in range(3):
            places = added[row].nonzero()[:, 0]
            snippet = added[row, places]
            assert 50 <= len(places) <= 80
            assert places[-1] - places[0] == len(places) - 1, "one contiguous snippet"
            assert torch.equal(snippet.diff(), torch.ones(len(snippet) - 1)), "a stretch of one clip"
            assert int(snippet[0] // 1000) - 1 != row, "never of the clip itself"


def test_probability_and_number_of_snippets_follow_the_arguments():
    # A single sample of value 1 in every clip, added at one of many places: the sum counts the snippets.
    clean = torch.ones(200, 400)
    mixture = NoiseMixture(probability=0.5, count=(1, 3), length=(1, 1))
    counts = torch.cat([(mixture(clean, seeded(seed)) - clean).sum(dim=1) for seed in range(10)])
    shares = [(counts == number).float().mean().item() for number in range(4)]
    # 2000 draws: four standard errors are 0.045 at a share of one half and 0.033 at one sixth.
    assert shares == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.045)
    assert sum(shares) == pytest.approx(1.0)


def test_snippet_lengths_include_both_bounds():
    clean = torch.ones(2, 100)
    mixture = NoiseMixture(probability=1.0, count=(1, 1), length=(3, 5))
    sizes = {int((mixture(clean, seeded(seed))[0] - 1).sum()) for seed in range(60)}
    assert sizes == {3, 4, 5}


def test_snippets_reach_the_first_and_the_last_sample():
    clean = torch.ones(2, 8)
    mixture = NoiseMixture(probability=1.0, count=(1, 1), length=(2, 2))
    hit = sum(mixture(clean, seeded(seed))[0] - 1 for seed in range(100))
    assert (hit > 0).all()


def test_padding_is_neither_cut_out_nor_written_to():
    lengths = [1000, 300, 40, 0]
    clean = torch.zeros(4, 1000)
    for row, size in enumerate(lengths):
        clean[row, :size] = 1.0
    mixture = NoiseMixture(probability=1.0, count=(2, 2), length=(100, 500))
    for seed in range(20):
        added = mixture(clean, seeded(seed), lengths=lengths) - clean
        for row, size in enumerate(lengths):
            assert (added[row, size:] == 0).all()
        # With true lengths only ones are cut: what is added is a whole number, and nothing longer than its source.
        assert torch.equal(added, added.round())


def test_a_batch_of_one_comes_back_unchanged_as_a_copy():
    clean = torch.randn(1, 100)
    mixed = NoiseMixture(probability=1.0, length=(10, 20))(clean)
    assert torch.equal(mixed, clean) and mixed.data_ptr() != clean.data_ptr()


def test_probability_zero_changes_nothing():
    clean = torch.randn(3, 100)
    assert torch.equal(NoiseMixture(probability=0.0)(clean), clean)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": 1.5}, "probability must lie between 0 and 1, got 1.5"),
        ({"count": (3, 1)}, r"count must be two integers \(minimum, maximum\).*got \(3, 1\)"),
        ({"length": (0, 10)}, r"length must be two integers .* 1 <= minimum <= maximum, got \(0, 10\)"),
        ({"length": (10.5, 20)}, "length must be two integers"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseMixture(**arguments)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"floating point waveforms of shape \(batch, samples\)"):
        NoiseMixture()(torch.zeros(100))
    with pytest.raises(ValueError, match="floating point waveforms"):
        NoiseMixture()(torch.zeros(2, 100, dtype=torch.int16))
    with pytest.raises(ValueError, match=r"lengths must be 2 numbers from 0 to 100, got \[50, 101\]"):
        NoiseMixture()(torch.zeros(2, 100), lengths=[50, 101])
