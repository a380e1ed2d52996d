"""Changes of the student's input: each is what its name says, frames keep their place, targets stay clean."""

from __future__ import annotations

import pytest
import torch
from tiny_pretraining import tiny_config

from mert_hf import DataCollatorForMERTPreTraining
from mert_hf.corpora.dataset import AudioCrop
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.pretraining.student_input import InputAugmentation
from mert_hf.teachers.base import from_fields


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def test_draws_follow_the_generator_and_the_probability():
    augment = InputAugmentation(probability=0.5)
    clip = noise(24000)
    first, again, other = (augment(clip, 24000, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(clip, noise(24000))
    assert torch.equal(InputAugmentation(probability=0.0)(clip, 24000), clip)
    nothing = InputAugmentation(1.0, equalizer=0.0, room=0.0, mp3=0.0, gain=(0.0, 0.0))
    assert torch.equal(nothing(clip, 24000), clip)
    louder = InputAugmentation(1.0, equalizer=0.0, room=0.0, mp3=0.0, gain=(6.0, 6.0))
    assert torch.allclose(louder(clip, 24000), clip * 10**0.3)


@pytest.mark.parametrize("samples", [1, 10, 700])
def test_short_clips_keep_their_length(samples):
    changed = InputAugmentation(1.0)(noise(samples), 24000, torch.Generator().manual_seed(0))
    assert changed.shape == (samples,) and torch.isfinite(changed).all()


def test_the_collator_changes_the_input_and_not_the_targets():
    seen = {}

    class Teacher:
        sampling_rate, frame_rate, num_bins = 2000, 50.0, 4

        def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
            seen["waveforms"] = waveforms.clone()
            return torch.zeros(len(waveforms), waveforms.shape[1] // 40 + 1, 4)

    config = tiny_config(num_codebooks=0)
    collate = DataCollatorForMERTPreTraining(
        MERTFeatureExtractor(sampling_rate=config.sampling_rate, do_normalize=False),
        config,
        musical_teacher=Teacher(),
        mixture=None,
        augmentation=InputAugmentation(1.0),
    )
    crops = [AudioCrop(noise(4000, seed), source=str(seed), offset=0, seed=seed) for seed in range(3)]
    batch, again = collate(crops), collate(crops[1:])
    clean = torch.stack([crop.waveform for crop in crops])
    assert not torch.allclose(batch["input_values"], clean, atol=1e-2)
    assert torch.equal(batch["input_values"][1:], again["input_values"]), "a clip's changes follow from its seed"
    assert torch.equal(seen["waveforms"], clean[1:])
    assert torch.equal(collate.for_evaluation()(crops)["input_values"], clean)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 2}, "probability=2 must lie between 0 and 1"),
        ({"gain": [6, -6]}, "must be two numbers in dB"),
        ({"echo": 1}, "Each InputAugmentation has the fields probability, "),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        from_fields(InputAugmentation, [settings])
