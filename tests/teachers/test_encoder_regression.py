"""Layers of any encoder as targets: against a plain projection, live and made ahead, own objects, features in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.corpora.labels import LabelCache, label_files
from mert_hf.encoders import open_encoder
from mert_hf.teachers import (
    CombinedMusicalTeacher,
    EncoderTeacher,
    FeatureTeacher,
    FusedEncoderTeacher,
    LogMelTeacher,
    load_teacher,
)
from mert_hf.teachers.frozen_encoders import EncoderLayer, FrozenLayer

MFCC = {"name": "mfcc", "layer": 0}


class OwnEncoder:
    """Two layers: the mean magnitude of each 40 ms, and its square."""

    sampling_rate, fingerprint, license = 8000, "magnitudes", "CC-BY-NC-4.0"

    def encode(self, clips):
        frames = [np.abs(clip[: len(clip) // 320 * 320].reshape(-1, 320)).mean(axis=1) for clip in clips]
        return [np.stack([values, values**2])[..., None] for values in frames]


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Two recordings of 4 s and one of 70 s, which is labeled in three blocks."""
    generator = np.random.default_rng(0)
    slow = [np.repeat(generator.uniform(0.02, 0.4, size), 2400)[: round(24000 * size / 10)] for size in (40, 40, 700)]
    return [(level * generator.standard_normal(len(level))).astype(np.float32) for level in slow]


@pytest.fixture(scope="module")
def music(clips, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for index, clip in enumerate(clips):
        (folder / f"part{index % 2}").mkdir(exist_ok=True)
        soundfile.write(folder / f"part{index % 2}" / f"{index}.wav", clip, 24000, subtype="FLOAT")
    return folder


def fit(kind=EncoderTeacher, clips=(), encoders=(MFCC,), **settings):
    return kind.fit(clips, list(encoders), hop_length=960, show_progress_bar=False, **settings)


def test_values_are_the_principal_components_of_the_averaged_frames(clips):
    teacher = fit(clips=clips[:2], components=5)
    targets = torch.cat([teacher(torch.from_numpy(clip)[None])[0] for clip in clips[:2]]).numpy()
    frames = []
    for clip in clips[:2]:
        states = open_encoder("mfcc").hidden_states([clip], [0])[0][:, 0].astype(np.float64)
        centers = np.arange(len(states)) / 75  # seconds; 25 frames a second of the student
        rows = []
        for k in range(len(clip) // 960):  # what of [k/25, (k+1)/25) is nearest to each frame, on a fine grid
            grid = k / 25 + (np.arange(3000) + 0.5) / 75000
            rows.append(states[np.minimum(np.rint(grid * 75).astype(int), len(centers) - 1)].mean(axis=0))
        frames += rows
    frames = np.stack(frames)
    standardized = (frames - frames.mean(0)) / frames.std(0, ddof=1)
    _, _, axes = np.linalg.svd(standardized, full_matrices=False)
    expected = standardized @ axes[:5].T
    expected /= np.sqrt(np.mean(expected**2))
    signs = np.sign((expected * targets).sum(0))
    np.testing.assert_allclose(targets, expected * signs, atol=5e-3)
    assert np.mean(targets**2) == pytest.approx(1.0, rel=1e-3) and teacher.num_bins == 5


def test_equal_live_and_made_ahead(clips, music, tmp_path):
    """The same values for a whole file up to float16, in blocks too; another teacher is refused."""
    teacher = CombinedMusicalTeacher(
        [fit(clips=clips[:2], components=4), FeatureTeacher.fit(clips[:2], [{"name": "chroma"}], hop_length=960)]
    )
    files = sorted(music.rglob("*.wav"))
    summary = label_files(files, teacher, tmp_path / "labels", show_progress_bar=False)
    assert summary.text().startswith("3 recordings labeled")
    cache = LabelCache(tmp_path / "labels", load_after_saving(teacher, tmp_path / "teacher"))
    assert (cache.num_bins, cache.num_codebooks, cache.frame_rate) == (16, 0, 25.0)
    for file, clip in zip(sorted(files, key=lambda file: file.name), clips, strict=True):
        live = teacher(torch.from_numpy(clip)[None])[0].numpy()
        stored = cache(str(file), 0, len(live)).T
        assert stored.dtype == np.float32
        np.testing.assert_allclose(stored, live, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(cache(str(file), 20, 30).T, stored[20:50])
    again = label_files(files, teacher, tmp_path / "labels", show_progress_bar=False)
    assert (again.written, again.kept) == (0, 3)
    with pytest.raises(ValueError, match="were made by another teacher"):
        LabelCache(tmp_path / "labels", LogMelTeacher(hop_length=960))


def load_after_saving(teacher, folder: Path):
    teacher.save_pretrained(folder)
    return load_teacher(folder)


def test_own_objects_and_licenses(clips, tmp_path):
    """An object of your own is fitted; its saved teacher is opened with that object, whose license it states."""
    teacher = fit(
        clips=clips[:2], encoders=[{"name": OwnEncoder(), "layer": 1}, {"name": "random:mert2-nano", "layer": 2}]
    )
    assert teacher.licenses == {"OwnEncoder": "cc-by-nc-4.0", "random:mert2-nano": "apache-2.0"}
    teacher.save_pretrained(tmp_path)
    sources = [{"name": OwnEncoder(), "layer": 1}, {"name": "random:mert2-nano", "layer": 2}]
    again = load_teacher(tmp_path, encoders=sources)
    wave = torch.from_numpy(clips[0])[None]
    assert again.fingerprint() == teacher.fingerprint() and torch.equal(again(wave), teacher(wave))


def test_long_clips_are_computed_in_blocks_of_the_encoder_s_context(clips):
    """Values of 12 s with a context of 3 s are those of the whole, where the encoder does not look far."""

    class Short(type(open_encoder("mfcc"))):
        context_seconds, longest = 3.0, 0.0

        def hidden_states(self, clips, layers, normalize="clip"):
            self.longest = max(self.longest, *(len(clip) / 24000 for clip in clips))
            return super().hidden_states(clips, layers, normalize)

    wave = torch.from_numpy(clips[2][: 24000 * 12 + 500])[None]
    short, plain = FrozenLayer(EncoderLayer(Short("mfcc"), 0)), FrozenLayer(EncoderLayer("mfcc", 0))
    found = short.features(wave, 24000, 960)
    assert found.shape == (1, 300, 39) and short.encoder.longest <= 3.0
    torch.testing.assert_close(found, plain.features(wave, 24000, 960), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("suffix", [":0", ""])
def test_features_in_files(suffix, clips, music, tmp_path):
    """A teacher of features that another environment wrote gives nearly the codes of the encoder itself."""
    stored = tmp_path / "features"
    for file in music.rglob("*.wav"):
        states = open_encoder("mfcc").hidden_states([soundfile.read(file, dtype="float32")[0]], [0])[0]
        place = stored / file.relative_to(music).with_suffix(".npy")
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, states)
    arguments = ["--data", str(music), "--hop-length", "960", "--quiet", "--codebooks", "1", "--codebook-size", "4"]
    arguments += ["--components", "2", "--output", str(tmp_path / "teacher")]
    result = CliRunner().invoke(app, ["fit-rvq", *arguments, "--features", f"{stored}{suffix}"])
    assert result.exit_code == 0, result.output
    teacher = load_teacher(tmp_path / "teacher")
    assert isinstance(teacher, FusedEncoderTeacher)
    with pytest.raises(ValueError, match="belong to whole recordings"):
        teacher(torch.zeros(1, 24000))
    files = sorted(music.rglob("*.wav"), key=lambda file: file.name)
    label_files(files, teacher, tmp_path / "labels", show_progress_bar=False)
    cache = LabelCache(tmp_path / "labels", teacher)
    live = FusedEncoderTeacher([MFCC], [4], 24000, 960, **dict(teacher.named_buffers()))
    for file, clip in zip(files, clips, strict=True):
        codes = live.label_recording(torch.from_numpy(clip)).numpy()
        assert (cache(str(file), 0, codes.shape[1]) == codes).mean() > 0.85  # evenly divided, half a frame off
    with pytest.raises(ValueError, match="cannot be fused"):
        fit(encoders=[MFCC, {"name": f"features:{stored}", "layer": 0}])


def test_combinations_keep_what_belongs_to_their_losses(clips, tmp_path):
    members = [fit(clips=clips[:2], components=4), LogMelTeacher(num_bins=10, hop_length=960)]
    teacher = load_after_saving(CombinedMusicalTeacher(members, [0.5, 2.0], ["cosine", "squared"]), tmp_path)
    assert teacher.loss_parts == ((4, 0.5, "cosine"), (10, 2.0, "squared"))
    with pytest.raises(ValueError, match="loss='angle' must be one of squared, cosine"):
        CombinedMusicalTeacher(members, losses=["angle", "cosine"])
    with pytest.raises(ValueError, match="one weight of 0 or more for each of 2"):
        CombinedMusicalTeacher(members, [1.0])


def test_one_of_features_and_encoders(music, tmp_path):
    for options in ([], ["--features", "mfcc", "--encoder", "mfcc:0"]):
        arguments = ["fit-features", "--data", str(music), "--output", str(tmp_path / "teacher"), *options]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1 and "Give one of --features and --encoder" in result.output
