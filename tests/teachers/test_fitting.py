"""Fitting teachers to recordings: the choice of clips, bad recordings, the texts of a command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_pretraining import RATE, write_recordings

from mert_hf.teachers import FeatureSet, load_teacher
from mert_hf.teachers.fitting import RandomClips, fit_teacher, parse_feature_sets
from mert_hf.teachers.settings import FitSettings, KMeansSettings

# The few bands between 0 and 1 kHz leave some of the 80 mel filters empty, which is of no concern here.
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder, [2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 5.5, 6.0])
    return folder


def test_random_clips_are_the_same_each_time_and_as_long_as_asked(recordings):
    files = sorted(map(str, recordings.iterdir()))
    clips, again = (RandomClips(files, FitSettings(sampling_rate=RATE, max_minutes=0.2, seed=seed)) for seed in (1, 2))
    first, second = list(clips), list(clips)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert 12.0 * RATE <= sum(map(len, first)) < 18.1 * RATE
    assert [len(clip) for clip in again] != [len(clip) for clip in first]
    with pytest.raises(ValueError, match="max_minutes must be more than 0, got 0"):
        RandomClips(files, FitSettings(max_minutes=0))


def test_fitting_bears_a_share_of_bad_recordings(recordings, tmp_path):
    (broken := tmp_path / "broken.wav").write_bytes(b"RIFF")
    settings = {"sampling_rate": RATE, "hop_length": 40, "features": ("mfcc:8", "chroma:5")}
    settings["show_progress_bar"] = False
    with pytest.raises(ValueError, match="1 of 9 recordings cannot be used"):
        fit_teacher([recordings, broken], tmp_path / "teacher", KMeansSettings(**settings))
    assert not (tmp_path / "teacher").exists()
    settings["max_bad_files"] = "20%"
    fit_teacher([recordings, broken], tmp_path / "teacher", KMeansSettings(**settings))
    assert load_teacher(tmp_path / "teacher").num_codebooks == 2


def test_a_rest_of_less_than_a_sample_is_not_read(recordings, caplog):
    """One recording and a rest: the next one is not asked for nothing, which counted as unreadable."""
    files = [min(map(str, recordings.iterdir()))] * 3
    settings = FitSettings(sampling_rate=RATE, max_bad_files=0, max_minutes=(2.0 + 1e-7) / 60)
    assert sum(map(len, RandomClips(files, settings))) == 2 * RATE and not caplog.records


def test_feature_sets_of_a_command_line():
    expected = (FeatureSet("mfcc", 300), FeatureSet("chroma", 200, 2.5))
    assert parse_feature_sets(["mfcc:300", "chroma:200:2.5"]) == expected
    assert parse_feature_sets(["mfcc:300,chroma:200:2.5"]) == expected
    for text in ("mfcc", "mfcc:x", "pitch:3", "mfcc:3:1:2", "mfcc:1", "log_mel:3:1:20:5"):
        with pytest.raises(ValueError, match="Write name:clusters"):
            parse_feature_sets([text])
    regressed = (FeatureSet("mfcc"), FeatureSet("log_mel", context=3.0, dimensions=40))
    assert parse_feature_sets(["mfcc,log_mel:3:40"], with_clusters=False) == regressed
    with pytest.raises(ValueError, match="Write name, name:seconds"):
        parse_feature_sets(["mfcc:3:1:2"], with_clusters=False)
