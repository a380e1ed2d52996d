"""A tiny student, tiny recordings, teachers that cost nothing, and fixtures of tests that train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny_sizes import STUDENT_SIZES
from transformers import AutoModelForPreTraining, Trainer

from mert_hf import teachers
from mert_hf.corpora.dataset import AudioCropDataset
from mert_hf.modeling.configuration_mert import MERTConfig
from mert_hf.modeling.configuration_mert2 import MERT2Config
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.pretraining.arguments import MERTTrainingArguments
from mert_hf.pretraining.collator import DataCollatorForMERTPreTraining
from mert_hf.pretraining.student_input import NoiseMixture
from mert_hf.pretraining.trainer import MERTTrainer
from mert_hf.teachers import AcousticTeacher, MusicalTeacher, Teacher

RATE = 2000  # Hz: a second of audio is 50 frames of the tiny student


def frames_of(waveforms: torch.Tensor) -> torch.Tensor:
    """(batch, samples) -> (batch, samples // 40 + 1, 40): what the teachers below see of each frame."""
    return torch.nn.functional.pad(waveforms, (20, 60)).unfold(1, 40, 40)


class TinyTeacher:
    """Rates of the tiny student, and no settings."""

    sampling_rate, hop_length = RATE, 40

    def settings(self) -> dict:
        return {}


class LoudnessTeacher(TinyTeacher, AcousticTeacher):
    """Two codebooks of 8 codes: the loudness and the slope of each frame."""

    kind = "loudness"
    codebook_sizes = (8, 8)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        frames = frames_of(waveforms)
        loudness, slope = frames.abs().mean(dim=2), frames[..., -1] - frames[..., 0]
        return torch.stack([(loudness * 16).long(), (slope * 4 + 4).long()], dim=1).clamp(0, 7)


class BandTeacher(TinyTeacher, MusicalTeacher):
    """Four bins: mean magnitudes of the quarters of each frame."""

    kind = "bands"
    num_bins = 4

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return frames_of(waveforms).abs().unflatten(2, (4, 10)).mean(dim=3)


TINY_TEACHERS = {"loudness": LoudnessTeacher, "bands": BandTeacher}


def load_tiny_teacher(kind: str, **settings) -> Teacher:
    """In place of `mert_hf.teachers.load_teacher`."""
    return TINY_TEACHERS[kind](**settings)


def tiny_config(**fields) -> MERTConfig:
    """A student of some thousand parameters, hop 40, without dropout and with layerdrop."""
    settings = {
        **STUDENT_SIZES,
        "hidden_dropout": 0.0,
        "activation_dropout": 0.0,
        "attention_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "layerdrop": 0.3,
        "num_codebooks": 2,
        "codebook_size": 8,
        "codebook_dim": 8,
        "cqt_bins": 4,
    }
    return MERTConfig(**{**settings, **fields})


def tiny_config2(**fields) -> MERT2Config:
    """A student of the second generation for the same teachers: 50 frames a second of 2000 Hz, no noise in masks."""
    settings = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_mel_bins": 8,
        "sampling_rate": RATE,
        "n_fft": 64,
        "win_length": 64,
        "hop_length": 10,
        "subsampling_channels": [8, 12, 16],
        "subsampling_depths": [1, 1, 1],
        "conv_depthwise_kernel_size": 5,
        "codebook_sizes": [8, 8],
        "cqt_bins": 4,
        "mask_noise_std": 0.0,
    }
    return MERT2Config(**{**settings, **fields})


def make_collator(config: MERTConfig | MERT2Config | None = None, **arguments) -> DataCollatorForMERTPreTraining:
    """A collator with the teachers above and snippets that fit the tiny clips."""
    config = config or tiny_config()
    settings = {
        "feature_extractor": MERTFeatureExtractor(sampling_rate=RATE, do_normalize=False),
        "config": config,
        "acoustic_teacher": LoudnessTeacher(),
        "musical_teacher": BandTeacher(),
        "mixture": NoiseMixture(length=(200, 400)),
    }
    return DataCollatorForMERTPreTraining(**{**settings, **arguments})


def write_recordings(folder: Path, durations: list[float], rate: int = RATE) -> list[Path]:
    """Sweeping tones as WAV files; each has its own pitch, so that a crop shows its file."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, duration in enumerate(durations):
        time = np.arange(round(duration * rate)) / rate
        wave = 0.4 * np.sin(2 * np.pi * (60 + 37 * index + 5 * time) * time) * (0.6 + 0.4 * np.sin(3 * time))
        paths.append(folder / f"clip_{index:02d}.wav")
        soundfile.write(paths[-1], wave.astype(np.float32), rate, subtype="FLOAT")
    return paths


def make_dataset(folder: Path, **arguments) -> AudioCropDataset:
    """Crops of one second."""
    settings = {"crop_length": RATE, "sampling_rate": RATE, "hop_length": 40, "min_duration": 0.5}
    return AudioCropDataset(folder, **{**settings, **arguments})


def make_trainer(
    folder: Path,
    output_dir: Path,
    collator: DataCollatorForMERTPreTraining | None = None,
    trainer: type[Trainer] = MERTTrainer,
    model_fields: dict | None = None,
    make_config: Callable[..., MERTConfig | MERT2Config] = tiny_config,
    crop_length: int = RATE,
    **arguments,
) -> Trainer:
    """A trainer of the tiny student, the same each time: batches of 4 without mixture, every step logged."""
    settings = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "max_steps": 6,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = make_config(**(model_fields or {}))
        model = AutoModelForPreTraining.from_config(config)
    return trainer(
        model=model,
        args=MERTTrainingArguments(**{**settings, **arguments}),
        data_collator=collator or make_collator(config, mixture=None),
        train_dataset=make_dataset(folder, crop_length=crop_length),
    )


def losses_of(trainer) -> list[float]:
    """The loss of each logged step."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def near(losses: list[float], rel: float = 1e-5):
    """Equal to losses that were logged, which transformers 4 rounds to four digits after the point."""
    rounded = all(round(loss, 4) == loss for loss in losses)
    return pytest.approx(losses, rel=rel, abs=1.01e-4 if rounded else None)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """A folder of eight recordings of 2 to 6 seconds at the tiny student's rate."""
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder, [2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 5.5, 6.0])
    return folder


@pytest.fixture
def tiny_run(recordings, tmp_path, monkeypatch) -> list[str]:
    """Arguments of a run of six steps with the tiny teachers, from a YAML file."""
    monkeypatch.setattr(teachers, "TEACHERS", TINY_TEACHERS)
    monkeypatch.setattr(teachers, "load_teacher", load_tiny_teacher)
    settings = {
        "output_dir": str(tmp_path / "out"),
        "model_config": STUDENT_SIZES,
        "acoustic_teacher": {"type": "loudness"},
        "musical_teacher": {"type": "bands"},
        "train_data": [str(recordings)],
        "crop_length": RATE,
        "min_duration": 0.5,
        "mixture_length": [200, 400],
        "per_device_train_batch_size": 4,
        "learning_rate": "1e-3",  # text to YAML 1.1
        "max_steps": 6,
        "save_steps": 3,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return [str(path)]
