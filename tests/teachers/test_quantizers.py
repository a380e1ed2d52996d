"""Random projections and Mel-RVQ against plain loops, fitted to audio, saved, combined with other teachers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from mert_hf.corpora.code_counts import CodeCounts
from mert_hf.encoders.handmade import log_mel
from mert_hf.teachers import CombinedTeacher, MelRVQTeacher, RandomProjectionTeacher, load_teacher
from mert_hf.teachers.fitting import fit_random_projection, fit_teacher, train_mel_rvq
from mert_hf.teachers.settings import RVQSettings

SMALL = RVQSettings(
    codebooks=3, codebook_size=16, codebook_dim=6, num_bins=20, steps=150, batch_frames=256, show_progress_bar=False
)


@pytest.fixture(scope="module")
def rvq(sounds) -> MelRVQTeacher:
    return train_mel_rvq(list(sounds), SMALL)


@pytest.fixture(scope="module")
def projection(sounds) -> RandomProjectionTeacher:
    return fit_random_projection(list(sounds), SMALL)


def plain_vectors(clip: torch.Tensor, teacher) -> np.ndarray:
    """Standardized log-mel of one clip, frame by frame."""
    frames = len(clip) // teacher.hop_length + 1
    padded = torch.cat([clip, torch.zeros(frames * teacher.hop_length - len(clip))])
    mel = log_mel(padded[None], teacher.sampling_rate, teacher.hop_length // teacher.stack, teacher.num_bins)[0].numpy()
    mel = (mel - teacher.mean.numpy()) / teacher.scale.numpy()
    return np.stack([mel[k * teacher.stack : (k + 1) * teacher.stack].reshape(-1) for k in range(frames)])


@pytest.mark.parametrize("stack", [1, 4])
def test_random_projection_equals_its_description(sounds, stack):
    """BEST-RQ, section 3.1: the code vector nearest to the projection, both of length 1."""
    teacher = RandomProjectionTeacher(num_codebooks=2, codebook_size=50, num_bins=20, stack=stack, seed=3)
    codes = teacher(sounds).numpy()
    assert codes.shape == (3, 2, 113)
    for clip, row in zip(sounds, codes, strict=True):
        for frame, vector in enumerate(plain_vectors(clip, teacher)):
            for k in range(2):
                projected = vector.astype(np.float64) @ teacher.projections[k].numpy()
                distances = np.linalg.norm(teacher.codes[k].numpy() - projected / np.linalg.norm(projected), axis=1)
                assert distances[row[k, frame]] <= distances.min() + 1e-5


def test_mel_rvq_equals_a_plain_residual_quantizer(rvq, sounds):
    codes = rvq(sounds).numpy()
    assert codes.shape == (3, 3, 113) and rvq.codebook_sizes == (16, 16, 16)
    for clip, row in zip(sounds, codes, strict=True):
        for frame, vector in enumerate(plain_vectors(clip, rvq)):
            residual = vector.astype(np.float64) @ rvq.encoder.numpy() + rvq.bias.numpy()
            for k, codebook in enumerate(rvq.codebooks.numpy()):
                distances = np.linalg.norm(residual - codebook, axis=1)
                assert distances[row[k, frame]] <= distances.min() + 1e-4
                residual = residual - codebook[row[k, frame]]


def test_training_lowers_the_error_of_each_codebook(rvq, sounds):
    """Each codebook describes what those before it left over, and most codes occur."""
    vectors = rvq.vectors(sounds) @ rvq.encoder + rvq.bias
    errors, residual = [float(vectors.square().mean())], vectors
    for codebook, codes in zip(rvq.codebooks, rvq(sounds).transpose(0, 1), strict=True):
        residual = residual - codebook[codes]
        errors.append(float(residual.square().mean()))
    assert errors[1] < 0.5 * errors[0] and errors[3] < errors[2] < errors[1]
    counts = CodeCounts(rvq.codebook_sizes)
    for clip in sounds:
        counts.add(rvq.label_recording(clip).numpy())
    assert counts.dead() == [] and all(row["used"] >= 12 for row in counts.summary())


def test_statistics_standardize(projection, sounds):
    vectors = projection.vectors(sounds).flatten(0, 1)
    assert vectors.mean(0).abs().max() < 1e-3 and (vectors.std(0, correction=0) - 1).abs().max() < 1e-3
    counts = CodeCounts(projection.codebook_sizes)
    counts.add(projection(sounds).transpose(0, 1).flatten(1).numpy())
    assert counts.dead() == []


def test_saved_and_loaded_to_the_bit(rvq, projection, sounds, tmp_path):
    for teacher in (rvq, projection, RandomProjectionTeacher(stack=2, num_bins=20)):
        teacher.save_pretrained(tmp_path / teacher.kind)
        loaded = load_teacher(tmp_path / teacher.kind)
        assert loaded.fingerprint() == teacher.fingerprint() and torch.equal(loaded(sounds), teacher(sounds))
    assert RandomProjectionTeacher(seed=1).fingerprint() != RandomProjectionTeacher(seed=2).fingerprint()
    assert load_teacher("random_projection", num_codebooks=2).codebook_sizes == (8192, 8192)
    with pytest.raises(ValueError, match="A mel_rvq teacher is made first, by `mert-hf fit-rvq`"):
        load_teacher("mel_rvq")


def test_long_recordings_in_blocks(rvq, sounds, monkeypatch):
    monkeypatch.setattr(rvq, "block_frames", 40)
    recording = torch.cat([sounds.flatten(), sounds[1, :555]])
    assert torch.equal(rvq.label_recording(recording), rvq(recording[None])[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stack": 3}, "hop_length=320 must be a multiple of stack=3"),
        ({"mean": torch.zeros(7)}, r"mean must have shape \(128,\), given \(7,\)"),
        ({"codebook_size": 0}, "codebook_size=0 must be a positive integer"),
    ],
)
def test_settings_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomProjectionTeacher(**arguments)


def test_weights_that_do_not_fit(rvq):
    weights = rvq.state_dict()
    settings = {"num_bins": 20}
    with pytest.raises(ValueError, match="needs the weights"):
        MelRVQTeacher(**settings, **{name: tensor for name, tensor in weights.items() if name != "bias"})
    with pytest.raises(ValueError, match="encoder must have shape"):
        MelRVQTeacher(**settings, **{**weights, "encoder": weights["encoder"][:-1]})


def test_several_teachers_are_one(rvq, kmeans, sounds, tmp_path):
    combined = CombinedTeacher([rvq, kmeans], weights=[1.0, 0.5])
    assert combined.codebook_sizes == (16, 16, 16, 20, 6, 40, 12)
    assert combined.codebook_weights == (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5)
    assert torch.equal(combined(sounds), torch.cat([rvq(sounds), kmeans(sounds)], dim=1))
    assert torch.equal(combined.label_recording(sounds[0]), combined(sounds[:1])[0])
    combined.save_pretrained(tmp_path)
    loaded = load_teacher(tmp_path)
    assert loaded.fingerprint() == combined.fingerprint() and loaded.weights == (1.0, 0.5)
    assert CombinedTeacher([rvq, kmeans]).fingerprint() == combined.fingerprint(), "weights do not change the codes"
    assert CombinedTeacher([kmeans, rvq]).fingerprint() != combined.fingerprint()


def test_teachers_that_cannot_be_combined(rvq):
    with pytest.raises(ValueError, match=r"must have equal rates; given .* \[\(16000, 320\), \(24000, 320\)\]"):
        CombinedTeacher([rvq, RandomProjectionTeacher(sampling_rate=16000)])
    with pytest.raises(ValueError, match="one weight of 0 or more for each of 2 teachers"):
        CombinedTeacher([rvq, rvq], weights=[1.0])
    with pytest.raises(ValueError, match="equal rates"):
        CombinedTeacher([])


@pytest.mark.parametrize("kind", ["mel_rvq", "random_projection"])
def test_fitting_from_files(sounds, tmp_path, kind):
    for index, clip in enumerate(sounds):
        soundfile.write(tmp_path / f"{index}.wav", clip.numpy(), 24000, subtype="FLOAT")
    _, counts = fit_teacher(tmp_path, tmp_path / "teacher", replace(SMALL, kind=kind))
    assert len(counts.counts) == 3 and json.loads((tmp_path / "teacher" / "teacher_config.json").read_text())
    assert load_teacher(tmp_path / "teacher").kind == kind
    with pytest.raises(ValueError, match="kind='x' must be one of mel_rvq, random_projection"):
        fit_teacher(tmp_path, tmp_path / "other", replace(SMALL, kind="x"))
