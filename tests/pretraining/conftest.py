"""Fixtures of the pre-training tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # for tiny_pretraining, in data workers and subprocesses too

from tiny_pretraining import RATE, TINY_TEACHERS, load_tiny_teacher, write_recordings
from tiny_sizes import STUDENT_SIZES

from mert_hf.pretraining import run


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """A folder of eight recordings of 2 to 6 seconds at the tiny student's rate."""
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder, [2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 5.5, 6.0])
    return folder


@pytest.fixture
def tiny_run(recordings, tmp_path, monkeypatch) -> list[str]:
    """Arguments of a run of six steps with the tiny teachers, from a YAML file."""
    monkeypatch.setattr(run.teachers, "TEACHERS", TINY_TEACHERS)
    monkeypatch.setattr(run.teachers, "load_teacher", load_tiny_teacher)
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
