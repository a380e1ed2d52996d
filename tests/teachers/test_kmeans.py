"""Clusters: found again, separated, saved and loaded to the bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mert_hf.encoders import handmade as kmeans_features
from mert_hf.teachers import FeatureSet, KMeansTeacher, features, load_teacher
from mert_hf.teachers.quantizers import choose_frames, cluster


def fit(clips, sets=({"name": "chroma", "num_clusters": 4},), **arguments) -> KMeansTeacher:
    return KMeansTeacher.fit(clips, sets, show_progress_bar=False, **arguments)


def tone(pitch: int, samples: int = 24000) -> torch.Tensor:
    time = torch.arange(samples) / 24000
    return 0.5 * torch.sin(2 * torch.pi * 440 * 2 ** ((pitch - 69) / 12) * time)


def test_four_pitch_classes_are_four_clusters():
    pitches = (60, 63, 66, 69)
    teacher = fit([tone(pitch) for pitch in pitches])
    codes = [teacher(tone(pitch + 12)[None])[0, 0, 5:-5].unique() for pitch in pitches]
    assert all(len(code) == 1 for code in codes)
    assert len({int(code) for code in codes}) == 4


def test_points_find_their_clusters_again():
    draw = np.random.default_rng(0)
    centers = draw.normal(size=(5, 7)) * 10
    points = (centers[draw.integers(0, 5, 4000)] + draw.normal(size=(4000, 7)) * 0.1).astype(np.float32)
    found = cluster(choose_frames(points, 5, seed=0, max_frames=1000), 5, seed=0).numpy()
    distances = np.linalg.norm(found[:, None] - centers[None], axis=-1)
    assert sorted(distances.argmin(axis=1)) == list(range(5)) and distances.min(axis=1).max() < 0.1


def test_each_feature_set_gives_a_codebook(kmeans, sounds):
    codes = kmeans(sounds)
    assert (kmeans.num_codebooks, kmeans.codebook_size, kmeans.codebook_sizes) == (4, 40, (20, 6, 40, 12))
    assert codes.shape == (3, 4, 113) and codes.dtype == torch.int64 and codes.min() >= 0
    for book, size in zip(codes.transpose(0, 1), kmeans.codebook_sizes, strict=True):
        assert book.max() < size and len(book.unique()) > size / 2


def test_codes_are_the_nearest_centres(kmeans, sounds):
    for k, feature_set in enumerate(kmeans.feature_sets):
        values = features.extract([feature_set], sounds, 24000, 320)[0].double()
        values = (values - kmeans.get_buffer(f"mean_{k}")) / kmeans.get_buffer(f"scale_{k}")
        distances = torch.cdist(values, kmeans.get_buffer(f"centres_{k}").double()[None])
        chosen = distances.gather(-1, kmeans(sounds)[:, k, :, None])[..., 0]
        assert torch.allclose(chosen, distances.min(dim=-1).values, atol=1e-4)


def test_the_papers_dimensions_and_clusters(sounds):
    """MERT-v0: 300 clusters of log-mel with 229 dimensions, 200 of chroma with 264 (METHOD.md, section 3)."""
    sets = [FeatureSet("log_mel", 30, dimensions=229), FeatureSet("chroma", 20, dimensions=264)]
    teacher = fit(sounds, sets)
    assert teacher.centres_0.shape == (30, 229) and teacher.centres_1.shape == (20, 264)
    assert teacher.codebook_sizes == (30, 20)
    reference = librosa_chroma(sounds[1], 264)
    ours = sets[1].extract(sounds[1:2], 24000, 320)[0].numpy()
    assert ours.shape == reference.shape and np.abs(ours - reference).max() < 1e-4


def librosa_chroma(clip: torch.Tensor, bins: int) -> np.ndarray:
    """A plain second implementation: Gaussians around the pitch of each frequency on the circle of the octave."""
    size = kmeans_features.window_size(24000, 320)
    frames = np.pad(clip.double().numpy(), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(frames, size)[::320]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    octaves = np.log2(np.arange(1, size) * 24000 / size / (440.0 / 16))
    pitch = bins * np.concatenate([[octaves[0] - 1.5], octaves])
    width = np.concatenate([np.maximum(np.diff(pitch), 1.0), [1.0]])
    distance = pitch[None] - np.arange(bins)[:, None]
    half = round(bins / 2)
    distance = np.remainder(distance + half + 10 * bins, bins) - half
    weights = np.exp(-0.5 * (2 * distance / width) ** 2)
    weights = weights / np.linalg.norm(weights, axis=0)
    weights = weights * np.exp(-0.5 * ((pitch / bins - 5.0) / 2.0) ** 2)
    weights = np.roll(weights, -3 * (bins // 12), axis=0)[:, : size // 2 + 1]
    energy = power @ weights.T
    return energy / np.maximum(energy.sum(axis=1, keepdims=True), 1e-6)


def test_fingerprints_from_before_dimensions_existed(kmeans):
    """Label caches name the teacher by its fingerprint, into which defaults of new fields must not go."""
    assert all("dimensions" not in settings for settings in kmeans.settings()["feature_sets"])


def test_context_makes_codes_slower(sounds):
    melody = [torch.cat([tone(60 + step, 3000) for step in steps]) for steps in ((0, 4, 7) * 4, (1, 5, 8) * 4)]
    changes = {}
    for context in (0.0, 1.0):
        codes = fit(melody, [FeatureSet("chroma", 4, context)])(torch.stack(melody))[:, 0]
        changes[context] = int((codes[:, 1:] != codes[:, :-1]).sum())
    assert changes[1.0] < changes[0.0] / 2


def test_a_long_recording_in_blocks(kmeans, sounds, monkeypatch):
    recording = torch.cat([sounds.flatten(), sounds[1, :555]])
    whole = kmeans(recording[None])[0]
    for size in (1, 40, 1000):
        monkeypatch.setattr(kmeans, "block_frames", size, raising=False)
        clip = recording[: 20 * 320] if size == 1 else recording
        expected = whole if size > 1 else kmeans(clip[None])[0]
        blocks = kmeans.label_recording(clip)
        assert blocks.shape == expected.shape
        assert (blocks != expected).float().mean() < 2e-3  # rounding decides between centers that are as near


def test_saved_and_loaded_to_the_bit(kmeans, sounds, tmp_path):
    kmeans.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"teacher_config.json", "teacher.safetensors"}
    for loaded in (load_teacher(tmp_path), KMeansTeacher.from_pretrained(tmp_path)):
        assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in kmeans.state_dict().items())
        assert loaded.settings() == kmeans.settings() and loaded.fingerprint() == kmeans.fingerprint()
        assert torch.equal(loaded(sounds), kmeans(sounds))


def test_the_seed_decides(sounds):
    sets = [{"name": "mfcc", "num_clusters": 16}]
    prints = [fit(sounds, sets, seed=seed, max_frames=200).fingerprint() for seed in (3, 3, 4)]
    assert prints[0] == prints[1] != prints[2]


def test_other_rates(sounds):
    teacher = fit(sounds, [FeatureSet("log_cqt", 5), FeatureSet("mfcc", 5)], sampling_rate=16000, hop_length=640)
    assert teacher.frame_rate == 25.0 and teacher(sounds).shape == (3, 2, 57)


def test_numpy_clips_and_frozen(sounds):
    teacher = fit([clip.numpy() for clip in sounds])
    assert torch.equal(teacher(sounds), fit(sounds)(sounds))
    assert not list(teacher.parameters()) and not teacher.training and not teacher.train().training


def test_autocast_changes_nothing(kmeans, sounds):
    with torch.autocast("cpu", torch.bfloat16):
        codes = kmeans(sounds)
    assert torch.equal(codes, kmeans(sounds))


def test_too_few_frames(sounds):
    with pytest.raises(ValueError, match="113 frames cannot fill a codebook of 500 codes. Give more audio"):
        fit(sounds[:1], [FeatureSet("mfcc", 500)])
    with pytest.raises(ValueError, match="0 frames cannot fill"):
        fit([])


def test_silence_standardises(sounds):
    teacher = fit([torch.zeros(24000), *sounds], [FeatureSet("log_mel", 3)])
    assert torch.isfinite(teacher.centres_0).all()


@pytest.mark.parametrize(
    ("feature_sets", "text"),
    [
        ([], "At least one FeatureSet is needed"),
        (5, "has the fields name, num_clusters, context"),
        ("mfcc", "has the fields name, num_clusters, context"),
        (
            [{"name": "pitch"}],
            "There is no feature 'pitch'. Choose from log_mel, mfcc, chroma, chroma_cqt, log_cqt, temp",
        ),
        ([{"name": ["mfcc"]}], "has the fields"),
        ([{"name": "mfcc", "size": 3}], "has the fields"),
        ([{"name": "mfcc", "num_clusters": 1}], "num_clusters=1 must be an integer of at least 2"),
        ([{"name": "mfcc", "num_clusters": 2.5}], "must be an integer"),
        ([{"name": "mfcc", "context": -1}], "context=-1 must be between 0 and 60"),
        ([{"name": "mfcc", "context": float("nan")}], "must be between 0 and 60"),
        ([{"name": "mfcc", "context": "x"}], "has the fields"),
        ([{"name": "mfcc", "dimensions": 20}], "dimensions=20 is given for mfcc, whose size is fixed"),
        ([{"name": "chroma", "dimensions": 0}], "dimensions=0 must be a positive integer"),
    ],
)
def test_feature_sets_that_make_no_sense(kmeans, tmp_path, feature_sets, text):
    kmeans.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "teacher_config.json").read_text())
    (tmp_path / "teacher_config.json").write_text(json.dumps({**config, "feature_sets": feature_sets}))
    with pytest.raises(ValueError, match=text):
        load_teacher(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("mean_0", None, "needs the weights"),
        ("centres_4", lambda tensor: torch.zeros(3, 3), "needs the weights"),
        ("centres_1", lambda tensor: tensor[:-1], r"centres_1 must have shape \(6, 24\)"),
        ("mean_0", lambda tensor: tensor[:-1], r"mean_0 must have shape \(39,\)"),
        ("scale_2", lambda tensor: tensor * torch.nan, "finite values"),
        ("scale_3", torch.zeros_like, "scale_3 must be positive"),
    ],
)
def test_weights_that_do_not_fit(kmeans, tmp_path, name, change, text):
    kmeans.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "teacher.safetensors")
    tensor = weights.pop(name, None)
    if change is not None:
        weights[name] = change(tensor).contiguous()
    save_file(weights, tmp_path / "teacher.safetensors")
    with pytest.raises(ValueError, match=text):
        load_teacher(tmp_path)


@pytest.mark.parametrize("field", ["sampling_rate", "hop_length"])
@pytest.mark.parametrize("value", [0, -320, "320", 1.5, None, True])
def test_rates_that_make_no_sense(kmeans, tmp_path, field, value):
    kmeans.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "teacher_config.json").read_text())
    (tmp_path / "teacher_config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(ValueError, match=f"{field}=.* must be a positive integer"):
        load_teacher(tmp_path)
