"""MERT2ForPreTraining through the same collator, masks, label cache and trainer as the first generation."""

from __future__ import annotations

import json

import pytest
import torch
from test_distributed import in_processes, train_and_write
from tiny_pretraining import RATE, losses_of, make_collator, make_trainer, near, tiny_config2

from mert_hf import MERT2ForPreTraining, SpanMasking
from mert_hf.pretraining.arguments import (
    MERTTrainingArguments,
    PretrainingDataArguments,
    PretrainingModelArguments,
)
from mert_hf.pretraining.run import build_masking, build_model, build_trainer
from mert_hf.teachers import FeatureSet, KMeansTeacher


def batch_of(config, clips: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    waves = [0.2 * torch.randn(RATE - 300 * row, generator=generator) for row in range(clips)]
    return dict(make_collator(config, mixture=None)(waves))


@pytest.mark.parametrize("prediction", ["linear", "cosine"])
def test_losses_follow_their_definition(prediction):
    """Against a plain second implementation, frame by frame."""
    torch.manual_seed(0)
    config = tiny_config2(
        codebook_sizes=[8, 13], codebook_prediction=prediction, unmasked_loss_weight=0.25, cqt_loss_weight=3.0
    )
    model = MERT2ForPreTraining(config).eval()
    batch = batch_of(config)
    with torch.no_grad():
        outputs = model(**batch)
        encoded = model.mert(
            batch["input_values"], batch["attention_mask"], mask_time_indices=batch["mask_time_indices"]
        )
    states, valid, masked = encoded[0], encoded.feature_attention_mask, batch["mask_time_indices"]
    sums, weights, masked_ce = 0.0, 0.0, [[], []]
    for row, frame in valid.nonzero().tolist():
        weight = 1.0 if masked[row, frame] else 0.25
        state, parts = states[row, frame], 0.0
        for k in range(2):
            if prediction == "linear":
                logits = model.codebook_heads[k](state)
            else:
                projected = model.codebook_projections[k](state)
                logits = torch.cosine_similarity(projected[None], model.codebook_embeddings[k], dim=1) / 0.1
            entropy = -logits.log_softmax(dim=0)[batch["codes"][row, k, frame]].item()
            parts += entropy
            if masked[row, frame]:
                masked_ce[k].append(entropy)
        parts += 3.0 * (model.cqt_head(state) - batch["cqt"][row, frame]).square().mean().item()
        sums, weights = sums + weight * parts, weights + weight
    assert outputs.loss.item() == pytest.approx(sums / weights, rel=1e-4)
    expected = torch.tensor([sum(values) / len(values) for values in masked_ce])
    torch.testing.assert_close(outputs.codebook_losses, expected, rtol=1e-4, atol=1e-5)
    assert outputs.feature_penalty is None and outputs.codebook_accuracies.shape == (2,)


@pytest.mark.parametrize("sizes", [[8, 13, 5], [8], [9, 13]], ids=["more", "fewer", "larger"])
@pytest.mark.parametrize("prediction", ["linear", "cosine"])
def test_a_run_continues_with_other_codebooks(tmp_path, prediction, sizes):
    """The encoder and the heads that fit keep their weights; the others start anew."""
    first = MERT2ForPreTraining(tiny_config2(codebook_sizes=[8, 13], codebook_prediction=prediction))
    first.save_pretrained(tmp_path)
    config = tiny_config2(codebook_sizes=sizes, codebook_prediction=prediction)
    second = build_model(config, PretrainingModelArguments(model_name_or_path=str(tmp_path)))
    before, after = first.state_dict(), second.state_dict()
    assert after.keys() == MERT2ForPreTraining(config).state_dict().keys()
    for name in before.keys() & after.keys():
        assert after[name].shape != before[name].shape or torch.equal(after[name], before[name]), name
    assert all(torch.isfinite(weight).all() for weight in after.values())


def test_codes_past_the_end_of_their_own_codebook_are_refused():
    config = tiny_config2(codebook_sizes=[8, 4])
    batch = batch_of(tiny_config2())
    batch["codes"][0, 1, 0] = 5
    with pytest.raises(IndexError, match="out of bounds"):  # what a collator makes has been checked before
        MERT2ForPreTraining(config)(**batch)
    with pytest.raises(ValueError, match=r"'codebook_sizes': \[8, 8\]"):
        make_collator(tiny_config2(codebook_sizes=[8, 4]))


def test_losses_fall_and_the_log_has_every_part(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, make_config=tiny_config2, max_steps=30, learning_rate=3e-3)
    trainer.train()
    losses = losses_of(trainer)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    entry = trainer.state.log_history[0]
    total = entry["codebook_0_loss"] + entry["codebook_1_loss"] + entry["cqt_loss"]
    assert [total] == near([entry["loss"]]) and "feature_penalty" not in entry
    trainer.save_model(str(tmp_path / "final"))
    again = MERT2ForPreTraining.from_pretrained(tmp_path / "final")
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight)


@pytest.mark.parametrize("crop_seconds, unmasked", [(1, 0.0), (5, 0.5)], ids=["even", "padded"])
def test_accumulated_batches_equal_one_large_batch(recordings, tmp_path, crop_seconds, unmasked):
    results = []
    for accumulation, size in ((1, 4), (4, 1)):
        trainer = make_trainer(
            recordings,
            tmp_path,
            make_config=tiny_config2,
            model_fields={"unmasked_loss_weight": unmasked},
            crop_length=crop_seconds * RATE,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=2,
        )
        trainer.train()
        results.append(losses_of(trainer))
    assert results[0] == near(results[1], rel=1e-4)


def test_two_processes_equal_one_with_twice_the_batch(recordings, tmp_path):
    # One implementation of Adam on every transformers: a first gradient of 2e5 amplifies how they round.
    arguments = {"make_config": tiny_config2, "max_steps": 4, "max_grad_norm": 1.0, "optim": "adamw_torch_fused"}
    in_processes(train_and_write, 2, recordings, tmp_path / "two", {**arguments, "per_device_train_batch_size": 2})
    train_and_write(0, recordings, tmp_path / "one", {**arguments, "per_device_train_batch_size": 4})
    two, one = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("two", "one"))
    assert len(one) == 4 and two == near(one, rel=1e-4)  # sums over threads differ from run to run


def test_a_run_from_its_arguments(recordings, tmp_path):
    """Heads of the teacher's sizes, the mel statistics of the recordings, spans in seconds."""
    generator = torch.Generator().manual_seed(0)
    clips = [0.2 * torch.randn(2 * RATE, generator=generator) for _ in range(4)]
    sets = [FeatureSet("log_mel", 6), FeatureSet("log_mel", 4)]
    KMeansTeacher.fit(clips, sets, seed=0, sampling_rate=RATE, hop_length=40).save_pretrained(tmp_path / "teacher")
    fields = tiny_config2().to_dict()
    sizes = {name: fields[name] for name in fields if name.startswith(("subsampling", "num_", "conv", "hidden_size"))}
    settings = {"intermediate_size": 32, "n_fft": 64, "win_length": 64, "hop_length": 10, "sampling_rate": RATE}
    trainer = build_trainer(
        PretrainingModelArguments(
            model_config={"model_type": "mert2", **sizes, **settings},
            acoustic_teacher={"type": "kmeans", "path": str(tmp_path / "teacher")},
        ),
        PretrainingDataArguments(
            train_data=[str(recordings)], crop_length=RATE, min_duration=0.5, mask_seconds=0.4, mask_aligned=True,
            mask_probability=0.6, mixture_length=[200, 400],
        ),
        MERTTrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, max_steps=2, report_to="none"),
    )  # fmt: skip
    model, masking = trainer.model, trainer.data_collator.masking
    assert isinstance(model, MERT2ForPreTraining) and model.config.codebook_sizes == [6, 4]
    assert (masking.length, masking.aligned, masking.probability) == (20, True, 0.6)
    front_end = model.mert.feature_extractor
    frames = torch.cat([front_end(crop.waveform[None])[0] for crop in trainer.train_dataset])
    torch.testing.assert_close(frames.mean(dim=0), torch.zeros(8), atol=1e-3, rtol=0)
    trainer.train()
    assert build_masking(model.config, PretrainingDataArguments(mask_length=7)).length == 7
    with pytest.raises(ValueError, match="model_type='mert3' must be one of mert_model, mert2"):
        build_trainer(
            PretrainingModelArguments(model_config={"model_type": "mert3"}),
            PretrainingDataArguments(train_data=[str(recordings)]),
            MERTTrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none"),
        )


def test_aligned_spans_lie_on_a_grid():
    masking = SpanMasking(0.6, length=10, min_masks=1, aligned=True)
    mask = masking([200, 65, 3] * 300, torch.Generator().manual_seed(0))
    assert mask.shape == (900, 200)
    grid = mask[::3].unflatten(1, (20, 10))
    assert torch.equal(grid.all(dim=2), grid.any(dim=2)) and abs(grid.float().mean() - 0.6) < 0.02
    assert not mask[1::3, 65:].any() and mask[2::3, :3].all() and not mask[2::3, 3:].any()
