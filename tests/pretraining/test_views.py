"""Two views of a clip: their inputs, targets and masks; the consistency against its formula; off is as before."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_pretraining import RATE, losses_of, make_collator, make_dataset, tiny_config, tiny_config2, write_recordings
from transformers import AutoModelForPreTraining

from mert_hf.modeling.modeling_mert import view_consistency
from mert_hf.pretraining import run
from mert_hf.pretraining.student_input import InputAugmentation, SpanMasking

GENERATIONS = pytest.mark.parametrize("config", [tiny_config(layerdrop=0.0), tiny_config2()], ids=["v1", "v2"])
CHANGES = InputAugmentation(1.0, lowest_rate=1000, shift=0.01)


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("views")
    write_recordings(folder, [2.0, 3.0, 0.8])
    dataset = make_dataset(folder)
    return [dataset[index] for index in range(len(dataset))]


def loss_before(model, batch) -> torch.Tensor:
    """The objective without views and parts, written out in the order of its terms as it was first computed."""
    outputs = model(**batch)
    config, mask = model.config, batch["mask_time_indices"]
    valid = model.frame_mask(batch["attention_mask"]) if "attention_mask" in batch else torch.ones_like(mask)
    mask, others = mask & valid, ~mask & valid
    states = model.mert(
        batch["input_values"], batch.get("attention_mask"), mask_time_indices=batch["mask_time_indices"]
    ).last_hidden_state

    def prediction(frames):
        target = batch["codes"].transpose(0, 1)[:, frames]
        losses, _ = model._codebook_losses(states[frames], target)
        errors = (model.cqt_head(states[frames]) - batch["cqt"][frames]).square()
        return losses.sum() + config.cqt_loss_weight * (errors.sum() / errors.numel())

    counts = torch.stack([mask.sum(), valid.sum()]).float()
    weight = config.unmasked_loss_weight
    loss = counts[0] * prediction(mask) + weight * (counts[1] - counts[0]) * prediction(others)
    loss = loss / (counts[0] + weight * (counts[1] - counts[0]))
    if outputs.feature_penalty is not None:
        loss = loss + config.feature_penalty_weight * outputs.feature_penalty
    return loss


@GENERATIONS
def test_off_is_the_loss_of_before_to_the_bit(config, crops):
    config.unmasked_loss_weight = 0.5
    torch.manual_seed(0)
    model = AutoModelForPreTraining.from_config(config).eval()  # dropout aside, the training loss
    batch = make_collator(config)(crops)
    expected = loss_before(model, batch)
    assert torch.equal(model(**batch).loss, expected) and model(**batch).view_loss is None
    model.cqt_loss_parts = ((config.cqt_bins, 1.0, "squared"),)
    assert torch.equal(model(**batch).loss, expected)


def test_new_changes_draw_nothing_where_they_are_off(crops):
    """The changes that came later leave the draws of the others as they were."""
    plain = InputAugmentation(1.0, room=0.0)
    clip, generators = crops[0].waveform, [torch.Generator().manual_seed(3) for _ in range(2)]
    first = plain(clip, RATE, generators[0])
    late = InputAugmentation(1.0, room=0.0, lowest_rate=RATE, shift=1e-9)(clip, RATE, generators[1])
    assert torch.allclose(first, late, atol=1e-3)
    assert torch.rand((), generator=generators[0]) != torch.rand((), generator=generators[1])


@GENERATIONS
def test_batches_of_two_views(config, crops):
    """Both halves have the targets of the clean clips; inputs and masks differ; teachers hear each clip once."""
    collator = make_collator(config, mixture=None, augmentation=CHANGES, two_views=True)
    heard = []
    collator.musical_teacher.register_forward_pre_hook(lambda _, inputs: heard.append(len(inputs[0])))
    batch, clean = collator(crops), make_collator(config, mixture=None)(crops)
    half = len(crops)
    assert heard == [half] and batch["input_values"].shape[0] == 2 * half
    for name in ("codes", "cqt"):
        assert torch.equal(batch[name][:half], clean[name]) and torch.equal(batch[name][half:], clean[name])
    assert torch.equal(batch["mask_time_indices"][:half], clean["mask_time_indices"])
    assert not torch.equal(batch["mask_time_indices"][half:], clean["mask_time_indices"])
    assert not torch.allclose(batch["input_values"][:half], batch["input_values"][half:], atol=1e-2)
    assert torch.equal(batch["attention_mask"][:half], batch["attention_mask"][half:])
    assert collator.for_evaluation()(crops)["input_values"].shape[0] == half
    with pytest.raises(ValueError, match="need an augmentation"):
        make_collator(config, two_views=True)
    with pytest.raises(ValueError, match="less than a frame"):
        make_collator(config, augmentation=InputAugmentation(shift=0.02))


def test_consistency_is_the_cross_entropy_of_finding_the_other_view():
    states = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(6, 5, dtype=torch.bool)
    valid[1, 3:] = False
    means = [states[row][valid[row]].mean(dim=0) for row in range(6)]
    expected = 0.0
    for row in range(6):
        cosines = {k: float(torch.cosine_similarity(means[row], means[k], dim=0)) for k in range(6) if k != row}
        total = sum(math.exp(value / 0.1) for value in cosines.values())
        expected -= math.log(math.exp(cosines[(row + 3) % 6] / 0.1) / total) / 6
    assert float(view_consistency(states, valid)) == pytest.approx(expected, rel=1e-5)
    assert float(view_consistency(states[:2], valid[:2])) == 0.0


def test_some_clips_are_masked():
    mask = SpanMasking(clips=0.5)(torch.full((400,), 50), torch.Generator().manual_seed(0))
    assert 150 < mask.any(dim=1).sum() < 250
    with pytest.raises(ValueError, match="clips must lie between 0 and 1"):
        SpanMasking(clips=0.5, require_same_masks=True)


def test_a_run_with_two_views(tiny_run, recordings, tmp_path):
    """Trained, logged, and resumed to the bit."""
    options = ["--view_consistency_weight", "1.0", "--augmentation", '{"probability": 0.8, "shift": 0.005}']
    straight = run.main([*tiny_run, *options, "--output_dir", str(tmp_path / "straight")])
    assert all("view_loss" in entry for entry in straight.state.log_history if "loss" in entry)
    (tmp_path / "resumed").mkdir()
    (tmp_path / "straight" / "checkpoint-3").rename(tmp_path / "resumed" / "checkpoint-3")
    resumed = run.main([*tiny_run, *options, "--output_dir", str(tmp_path / "resumed")])
    assert losses_of(resumed) == losses_of(straight)
