"""FusedEncoderTeacher: alignment of frames, residual codes, saving, fingerprint, labels live and cached."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mert_hf.teachers import EncoderLayer, FusedEncoderTeacher, load_teacher
from mert_hf.teachers.fitting import parse_encoder
from mert_hf.teachers.frozen_encoders import frame_weights

pytest.importorskip("sklearn", reason="the train extra is not installed")


def clips(count: int = 6, seconds: float = 3.0) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    times = np.arange(round(24000 * seconds)) / 24000
    return [
        (0.3 * np.sin(2 * np.pi * pitch * times) + 0.05 * generator.standard_normal(len(times))).astype(np.float32)
        for pitch in 220 * 2 ** (np.arange(count) / 3)
    ]


@pytest.fixture(scope="module")
def teacher(tiny_checkpoint, tiny_checkpoint2):
    """Layers of a model with 75 and of one with 25 frames a second."""
    encoders = [EncoderLayer(str(tiny_checkpoint), 2), EncoderLayer(str(tiny_checkpoint2), 3)]
    return FusedEncoderTeacher.fit(clips(), encoders, (8, 5), components=16, show_progress_bar=False)


def test_codes_fit_the_audio_better_with_each_codebook(teacher):
    waves = torch.from_numpy(np.stack(clips()))
    codes = teacher(waves)
    assert codes.shape == (6, 2, 75) and codes.dtype == torch.int64
    assert codes[:, 0].max() < 8 and codes[:, 1].max() < 5 and (teacher.num_codebooks, teacher.codebook_size) == (2, 8)
    features = torch.cat([encoder.features(waves, 24000, 960) for encoder in teacher._encoders], dim=-1)
    rest = ((features - teacher.mean) / teacher.scale) @ teacher.projection
    errors = [rest.square().mean()]
    for k in range(2):
        centers = teacher.get_buffer(f"centers_{k}")
        nearest = torch.cdist(rest.flatten(0, 1), centers).argmin(dim=1).view(6, 75)
        assert (nearest == codes[:, k]).float().mean() > 0.999
        rest = rest - centers[codes[:, k]]
        errors.append(rest.square().mean())
    assert errors[0] > errors[1] > errors[2]


def test_equal_codes_live_cached_and_reloaded(teacher, tmp_path):
    wave = torch.from_numpy(clips()[0])
    live = teacher(wave[None])[0]
    teacher.save_pretrained(tmp_path)
    again = load_teacher(tmp_path)
    assert torch.equal(teacher.label_recording(wave), live) and torch.equal(again(wave[None])[0], live)
    assert again.fingerprint() == teacher.fingerprint() and (tmp_path / "teacher.safetensors").is_file()
    long = torch.cat([torch.from_numpy(clip) for clip in clips(12, 4.0)])  # 48 s: two blocks
    whole, blocks = teacher(long[None])[0], teacher.label_recording(long)
    assert blocks.shape == whole.shape and (blocks[0] == whole[0]).float().mean() > 0.8  # norms hear the whole clip
    settings = json.loads((tmp_path / "teacher_config.json").read_text())
    settings["encoders"][0]["fingerprint"] = "0" * 64
    (tmp_path / "teacher_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="are not those that the teacher was fitted with"):
        load_teacher(tmp_path)


def test_frames_are_averaged_over_the_student_s():
    """75 to 25 frames a second averages three, 12.5 to 25 repeats; every row sums to 1."""
    three = frame_weights((np.arange(9) + 0.5) / 75, 3, 1 / 25)
    np.testing.assert_allclose(three, np.kron(np.eye(3), np.full((1, 3), 1 / 3)), atol=1e-6)
    twice = frame_weights((np.arange(2) + 0.5) / 12.5, 4, 1 / 25)
    np.testing.assert_allclose(twice, np.repeat(np.eye(2), 2, axis=0), atol=1e-6)
    odd = frame_weights((np.arange(50) + 0.3) / 49.95, 27, 1 / 25)
    np.testing.assert_allclose(odd.sum(axis=1), 1.0, atol=1e-5)


def test_impossible_requests_are_refused(tiny_checkpoint2):
    with pytest.raises(ValueError, match="has the layers 0 to 3, given 4"):
        FusedEncoderTeacher.fit(clips(1), [EncoderLayer(str(tiny_checkpoint2), 4)], (4,), show_progress_bar=False)
    with pytest.raises(ValueError, match="75 frames cannot fill a codebook of 100 codes"):
        FusedEncoderTeacher.fit(clips(1), [EncoderLayer(str(tiny_checkpoint2), 3)], (100,), show_progress_bar=False)
    with pytest.raises(ValueError, match="At least one EncoderLayer is needed"):
        FusedEncoderTeacher.fit(clips(1), [], (4,), show_progress_bar=False)
    assert parse_encoder("m-a-p/MERT-v1-95M:9") == EncoderLayer("m-a-p/MERT-v1-95M", 9)
    with pytest.raises(ValueError, match="NAME:LAYER"):
        parse_encoder("m-a-p/MERT-v1-95M")
