"""Checkpoints, teachers and label caches of an earlier version still open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mert_hf import MERTEmbedder, MERTForPreTraining, MERTModel
from mert_hf.corpora.labels import LabelCache
from mert_hf.teachers import KMeansTeacher

WRITTEN = Path(__file__).resolve().parent / "fixtures" / "written_by_0_1"


@pytest.fixture
def recording() -> np.ndarray:
    """(samples,) float32 at 2000 Hz."""
    return soundfile.read(WRITTEN / "recordings" / "0.wav", dtype="float32")[0]


def test_checkpoint(recording):
    model = MERTModel.from_pretrained(WRITTEN / "checkpoint").eval()
    with torch.no_grad():
        hidden = model(torch.from_numpy(recording)[None]).last_hidden_state
    np.testing.assert_allclose(hidden.numpy(), np.load(WRITTEN / "hidden.npy"), atol=1e-5)
    _, info = MERTForPreTraining.from_pretrained(WRITTEN / "checkpoint", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert MERTEmbedder.from_pretrained(WRITTEN / "checkpoint", device="cpu").sampling_rate == 2000


def test_labels_of_recordings_that_have_moved(recording):
    teacher = KMeansTeacher.from_pretrained(WRITTEN / "teacher")
    cache = LabelCache(WRITTEN / "labels", teacher=teacher, root=WRITTEN / "recordings")
    frames = len(recording) // cache.hop_length
    expected = teacher.label_recording(torch.from_numpy(recording))[:, :frames]
    np.testing.assert_array_equal(cache(str(WRITTEN / "recordings" / "0.wav"), 0, frames), expected)
