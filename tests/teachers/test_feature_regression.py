"""Features as targets of regression: standardized, each set with the same weight, saved and loaded to the bit."""

from __future__ import annotations

import pytest
import soundfile
import torch
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.encoders import handmade as features
from mert_hf.teachers import FeatureTeacher, load_teacher

SETS = ({"name": "mfcc"}, {"name": "chroma"}, {"name": "chroma", "context": 0.5})
SIZES = (39, 12, 24)


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(24000, generator=generator) * level for level in (0.02, 0.1, 0.4)]


@pytest.fixture(scope="module")
def teacher(clips) -> FeatureTeacher:
    return FeatureTeacher.fit(clips, SETS)


def test_values_are_the_features_with_mean_zero(teacher, clips):
    values = torch.cat([teacher(clip[None])[0] for clip in clips])
    assert teacher.num_bins == values.shape[1] == sum(SIZES)
    assert values.mean(0).abs().max() < 1e-3
    plain = torch.cat([features.mfcc(clip[None], 24000, 320)[0] for clip in clips])
    expected = (plain - plain.mean(0)) / plain.std(0, correction=0)
    ratio = values[:, :39] / expected
    assert ratio.std() < 1e-3 * ratio.mean().abs()  # standardized up to one factor for the set


def test_each_set_has_the_same_weight_in_the_mean_square(teacher, clips):
    squares = torch.cat([teacher(clip[None])[0] for clip in clips]).square().mean(0)
    shares = torch.stack([part.sum() for part in squares.split(SIZES)])
    assert torch.allclose(shares, shares.mean(), rtol=1e-3)
    assert squares.mean() == pytest.approx(1.0, rel=1e-3)


def test_saved_and_loaded(teacher, clips, tmp_path):
    teacher.save_pretrained(tmp_path)
    again = load_teacher(tmp_path)
    assert again.fingerprint() == teacher.fingerprint()
    assert torch.equal(again(clips[0][None]), teacher(clips[0][None]))


def test_fitted_by_its_command(clips, tmp_path):
    for index, clip in enumerate(clips):
        soundfile.write(tmp_path / f"{index}.wav", clip.numpy(), 24000, subtype="FLOAT")
    arguments = ["--data", str(tmp_path), "--output", str(tmp_path / "teacher"), "--quiet"]
    result = CliRunner().invoke(
        app, ["fit-features", *arguments, "--features", "mfcc,chroma", "--features", "chroma:0.5"]
    )
    assert result.exit_code == 0 and "75 values a frame, 75 frames a second" in result.output
    fitted = load_teacher(tmp_path / "teacher")
    expected = FeatureTeacher.fit(clips, SETS)
    assert torch.allclose(fitted(clips[0][None]), expected(clips[0][None]), atol=1e-4)
    refused = CliRunner().invoke(app, ["fit-features", *arguments, "--features", "pitch"])
    assert refused.exit_code == 1 and "Cannot read the feature set 'pitch'" in refused.output
    with pytest.raises(ValueError, match="made first, by `mert-hf fit-features`"):
        load_teacher("features")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": torch.zeros(3)}, "mean must have shape .75,."),
        ({"scale": torch.full((75,), float("nan"))}, "finite"),
        ({"scale": torch.zeros(75)}, "scale must be positive"),
    ],
)
def test_refuses_weights_that_do_not_fit(change, message):
    weights = {"mean": torch.zeros(75), "scale": torch.ones(75)}
    with pytest.raises(ValueError, match=message):
        FeatureTeacher(SETS, **{**weights, **change})


def test_needs_audio():
    with pytest.raises(ValueError, match="at least two frames"):
        FeatureTeacher.fit([], SETS)
