"""Several musical teachers in a recipe: live and made ahead, own weights and losses, the loss written out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_pretraining import RATE, losses_of, near
from tiny_sizes import STUDENT_SIZES

from mert_hf.corpora.labels import label_files
from mert_hf.pretraining import run
from mert_hf.teachers import EncoderTeacher, FeatureTeacher

RATES = {"sampling_rate": RATE, "hop_length": 40}


class Halves:
    """An encoder at half the student's rate and frame rate: mean magnitude and its square of each frame."""

    sampling_rate, hop_length, layers, hidden_size, context_seconds = 1000, 40, (0,), 2, None
    fingerprint, license = "halves", "cc-by-nc-4.0"

    def hidden_states(self, clips, layers, normalize="clip"):
        frames = [torch.from_numpy(clip[: len(clip) // 40 * 40]).view(-1, 40).abs().mean(dim=1) for clip in clips]
        return [torch.stack([values, values**2], dim=1)[:, None].numpy() for values in frames]

    def frame_times(self, num_frames):
        return (torch.arange(num_frames).numpy() + 0.5) * 0.04


@pytest.fixture
def teachers(recordings, tmp_path, monkeypatch) -> dict[str, Path]:
    """Folders of saved teachers, and of what one of them made ahead of time."""
    files = sorted(Path(recordings).iterdir())
    from mert_hf.audio import read_audio

    clips = [torch.from_numpy(read_audio(file, RATE)) for file in files]
    monkeypatch.setattr("mert_hf.teachers.frozen_encoders.open_encoder", lambda name, device: Halves())
    encoders = EncoderTeacher.fit(clips, [{"name": "halves", "layer": 0}], 2, **RATES, show_progress_bar=False)
    features = FeatureTeacher.fit(clips, [{"name": "mfcc"}], **RATES)
    for name, teacher in {"encoders": encoders, "features": features}.items():
        teacher.save_pretrained(tmp_path / name)
    label_files(files, encoders, tmp_path / "labels", show_progress_bar=False)
    return {name: tmp_path / name for name in ("encoders", "features", "labels")}


def arguments(recordings, output: Path, musical: list | dict, *more: str) -> list[str]:
    student = {**STUDENT_SIZES, "layerdrop": 0.0, "unmasked_loss_weight": 0.5}
    words = {"train_data": recordings, "output_dir": output, "musical_teacher": json.dumps(musical)}
    words |= {"model_config": json.dumps(student), "crop_length": RATE, "min_duration": 0.5, "max_steps": 4}
    words |= {"mixture_probability": 0, "logging_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    words |= {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_steps": 2}
    return [text for name, value in words.items() for text in (f"--{name}", str(value))] + list(more)


def test_the_loss_is_the_weighted_sum_of_the_parts(recordings, teachers, tmp_path):
    musical = [
        {"path": str(teachers["features"]), "weight": 2.0},
        {"path": str(teachers["encoders"]), "weight": 0.5, "loss": "cosine"},
    ]
    trainer = run.build_trainer(*run.parse_arguments(arguments(recordings, tmp_path / "out", musical)))
    assert trainer.model.cqt_loss_parts == ((39, 2.0, "squared"), (2, 0.5, "cosine"))
    assert trainer.teacher_licenses == {"halves": "cc-by-nc-4.0"}
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    model = trainer.model.eval()
    states = model.mert(batch["input_values"], mask_time_indices=batch["mask_time_indices"]).last_hidden_state
    mask = batch["mask_time_indices"]
    predicted, target = model.cqt_head(states[mask]), batch["cqt"][mask]
    squared = ((predicted - target)[:, :39] ** 2).mean()
    ours, theirs = (part[:, 39:] / part[:, 39:].norm(dim=1, keepdim=True) for part in (predicted, target))
    expected = 2.0 * squared + 0.5 * (1 - (ours * theirs).sum(dim=1)).mean()
    assert model(**batch).cqt_loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_training_on_values_made_ahead(recordings, teachers, tmp_path):
    """The losses are nearly those of live teachers, which do not hear what surrounds a crop."""
    parts = {"path": str(teachers["features"])}, {"path": str(teachers["encoders"]), "loss": "cosine"}
    live = run.main(arguments(recordings, tmp_path / "live", list(parts)))
    cached = [{**parts[1], "labels": str(teachers["labels"])}, parts[0]]  # live ones come first in any case
    ahead = run.main(arguments(recordings, tmp_path / "ahead", cached))
    assert ahead.data_collator.value_caches[0].num_bins == 2 and ahead.teacher_licenses == live.teacher_licenses
    assert losses_of(ahead) == near(losses_of(live), rel=0.02)
    alone = run.main(arguments(recordings, tmp_path / "alone", [{"labels": str(teachers["labels"]), "loss": "cosine"}]))
    assert alone.data_collator.musical_teacher is None and alone.model.config.cqt_bins == 2
    assert alone.teacher_licenses == {"halves": "cc-by-nc-4.0"}
    card = (tmp_path / "alone" / "pretraining.json").read_text()
    assert json.loads(card)["teacher_licenses"] == {"halves": "cc-by-nc-4.0"}


def test_labels_of_another_teacher_and_unknown_losses(recordings, teachers, tmp_path):
    for entry, message in (
        ({"path": str(teachers["features"]), "labels": str(teachers["labels"])}, "were made by another teacher"),
        ({"path": str(teachers["features"]), "loss": "angle"}, "loss='angle' must be one of squared, cosine"),
        ({"weight": 2.0}, "musical_teacher needs a 'type'"),
    ):
        with pytest.raises(ValueError, match=message):
            run.build_trainer(*run.parse_arguments(arguments(recordings, tmp_path / "out", [entry])))


def test_one_plain_teacher_trains_as_before(recordings, teachers, tmp_path):
    """A list of one is the same as a mapping, to the bit, and both have no parts."""
    entry = {"type": "log_mel", "num_bins": 10}
    losses = [
        losses_of(run.main(arguments(recordings, tmp_path / name, given)))
        for name, given in (("mapping", entry), ("list", [entry]))
    ]
    assert losses[0] == losses[1]


def test_values_are_no_codes(recordings, teachers, tmp_path):
    words = arguments(recordings, tmp_path / "out", {"type": "log_mel", "num_bins": 10})
    with pytest.raises(ValueError, match="holds values. Codes are given as label_cache, values as labels"):
        run.build_trainer(*run.parse_arguments([*words, "--label_cache", str(teachers["labels"])]))
