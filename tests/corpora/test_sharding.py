"""`mert-hf shard`: the command with a teacher, and runs that are killed."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from kills import kill_at
from tiny_pretraining import RATE, write_recordings
from typer.testing import CliRunner

from mert_hf.audio import read_audio
from mert_hf.cli.app import app
from mert_hf.corpora.labels import LabelCache, label_files
from mert_hf.corpora.settings import ShardingSettings
from mert_hf.corpora.sharding import is_dataset, shard_recordings
from mert_hf.corpora.shards import find_shards, read_footer
from mert_hf.teachers import FeatureSet, KMeansTeacher

HOP = 40
RECORDINGS = 1500  # of those that are killed: several seconds of work
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")


@pytest.fixture(scope="module")
def kmeans(recordings, tmp_path_factory) -> Path:
    clips = [read_audio(path, RATE) for path in sorted(recordings.iterdir())]
    sets = (FeatureSet("mfcc", 8), FeatureSet("chroma", 5))
    folder = tmp_path_factory.mktemp("kmeans")
    KMeansTeacher.fit(clips, sets, RATE, HOP, show_progress_bar=False).save_pretrained(folder)
    return folder


def rows_of(folder, columns=None):
    return [row for path in find_shards(folder) for row in pq.read_table(path, columns=columns).to_pylist()]


def test_the_command_stores_the_codes_of_whole_files(recordings, kmeans, tmp_path):
    words = ["shard", str(recordings), "--teacher", str(kmeans), "--seconds", "1", "--shard-size", "20KB", "--quiet"]
    for expected in ("8 recordings written", "0 recordings written to 0 shards, 8 existed already"):
        result = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out")], catch_exceptions=False)
        assert result.exit_code == 0 and expected in result.output
    assert len(find_shards(tmp_path / "out")) > 1
    label_files(sorted(recordings.iterdir()), KMeansTeacher.from_pretrained(kmeans), tmp_path / "labels")
    cache, rows = LabelCache(tmp_path / "labels"), rows_of(tmp_path / "out")
    for path in recordings.iterdir():
        own = sorted((row for row in rows if row["name"] == path.name), key=lambda row: row["offset"])
        codes = np.concatenate([np.array(row["codes"]) for row in own], axis=1)
        np.testing.assert_array_equal(codes, cache(str(path), 0, codes.shape[1]))
        assert codes.shape[1] == cache._frames[str(path)]


def test_a_damaged_recording_fails_the_command_unless_it_is_tolerated(tmp_path):
    write_recordings(tmp_path / "music", [1.0, 1.0])
    (tmp_path / "music" / "clip_00.wav").write_bytes(b"no audio")
    words = ["shard", str(tmp_path / "music"), "--output", str(tmp_path / "out"), "--sampling-rate", "2000", "--quiet"]
    result = CliRunner().invoke(app, [*words, "--hop-length", "40"])
    assert result.exit_code == 1 and "1 of 2 recordings cannot be used" in result.output
    result = CliRunner().invoke(app, [*words, "--hop-length", "40", "--max-bad-files", "50%"])
    assert result.exit_code == 0 and "0 recordings written to 0 shards, 1 existed already, 1 failed" in result.output


@pytest.mark.slow
def test_ten_kills_lose_nothing_and_write_nothing_twice(tmp_path):
    (clip,) = write_recordings(tmp_path / "clips", [20.0])
    (tmp_path / "music").mkdir()
    for index in range(RECORDINGS):
        os.link(clip, tmp_path / "music" / f"{index:04d}.wav")
    out = tmp_path / "out"
    settings = ShardingSettings(
        sampling_rate=RATE, hop_length=HOP, shard_size="200KB", seconds=5.0, show_progress_bar=False
    )
    shard = partial(shard_recordings, [str(tmp_path / "music")], str(out), settings)
    for kill in range(10):
        process = multiprocessing.get_context("fork").Process(target=shard)
        process.start()
        kill_at(kill + 1, lambda: len(find_shards(out)) if list(out.glob(".*.partial")) else 0, process)
    assert len(find_shards(out)) >= 10
    shard()
    assert list(out.glob(".*.partial")) == []
    rows = Counter((row["name"], row["offset"]) for row in rows_of(out, columns=["name", "offset"]))
    assert rows == Counter(
        (f"{index:04d}.wav", offset) for index in range(RECORDINGS) for offset in (0.0, 5.0, 10.0, 15.0)
    )
    recordings = Counter(recording.name for path in find_shards(out) for recording in read_footer(path).recordings)
    assert len(recordings) == RECORDINGS and set(recordings.values()) == {1}


def test_a_file_name_is_never_taken_for_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "music").mkdir()
    assert not is_dataset("owner/song.ogg") and not is_dataset("music/album") and is_dataset("owner/name")
    settings = ShardingSettings(show_progress_bar=False)
    summary = shard_recordings(["owner/song.ogg"], str(tmp_path / "out"), settings)
    assert list(summary.failed) == ["song.ogg"] and summary.written == 0
