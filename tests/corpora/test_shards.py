"""Shards: whole recordings in Parquet, found again by their content, opened by the `datasets` library."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from mert_hf.audio import read_audio
from mert_hf.corpora import shards
from mert_hf.corpora.sharding import write_shards
from mert_hf.corpora.shards import AudioItem, ShardSettings, find_shards, part_of, read_footer

RATE, HOP = 8000, 80
SETTINGS = ShardSettings(RATE, HOP, seconds=1.0, codebook_sizes=(300, 70000 // 2))


def write_files(folder, count=6):
    """Noise of 0.7, 1.4, ... seconds, quiet enough not to be clipped."""
    random = np.random.default_rng(0)
    for index in range(count):
        samples = random.uniform(-0.5, 0.5, round(0.7 * RATE * (index + 1)))
        soundfile.write(folder / f"r{index}.wav", samples.astype(np.float32), RATE, subtype="FLOAT")
    return [AudioItem(path.name, path=str(path)) for path in sorted(folder.glob("*.wav"))]


def whole_codes(waveform, name):
    """Codes that differ at each frame and in each recording."""
    frames = np.arange(-(-len(waveform) // HOP)) * 7 + len(waveform)
    return np.stack([frames % 300, frames % 35000])


def write(items, folder, **arguments):
    return write_shards(items, folder, SETTINGS, whole_codes, show_progress_bar=False, **arguments)


def rows_of(folder):
    return [row for path in find_shards(folder) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def items(tmp_path):
    (tmp_path / "music").mkdir()
    return write_files(tmp_path / "music")


def test_segments_and_codes_are_cuts_of_whole_recordings(items, tmp_path):
    summary = write(items, tmp_path / "out", shard_size=20000)
    assert (summary.written, summary.kept, summary.failed) == (6, 0, {})
    assert summary.shards == len(find_shards(tmp_path / "out")) > 1
    rows = rows_of(tmp_path / "out")
    for item in items:
        own = sorted((row for row in rows if row["name"] == item.name), key=lambda row: row["offset"])
        waveform = read_audio(item.path, RATE)
        samples = np.concatenate([read_audio(io.BytesIO(row["audio"]["bytes"]), RATE) for row in own])
        np.testing.assert_allclose(samples, waveform, atol=2**-15)
        np.testing.assert_array_equal(
            np.concatenate([np.array(row["codes"]) for row in own], axis=1), whole_codes(waveform, item.name)
        )
        assert [row["offset"] for row in own] == list(range(len(own)))
        assert sum(row["duration"] for row in own) == pytest.approx(len(waveform) / RATE)


def test_datasets_opens_and_streams_the_folder(items, tmp_path):
    from datasets import Audio, load_dataset

    write(items, tmp_path / "out", shard_size=20000)
    for streaming in (False, True):
        dataset = load_dataset(
            str(tmp_path / "out"), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
        )
        assert dataset.features["audio"] == Audio(sampling_rate=RATE)
        rows = list(dataset.cast_column("audio", Audio(decode=False)))
        assert Counter(row["name"] for row in rows) == Counter(row["name"] for row in rows_of(tmp_path / "out"))


def test_a_second_call_writes_what_is_new_or_has_changed(items, tmp_path):
    out = tmp_path / "out"
    write(items[:4], out)
    before = {path: path.read_bytes() for path in find_shards(out)}
    os.utime(items[0].path)  # touched, with the same content
    assert write(items, out).text().startswith("2 recordings written to 1 shards, 4 existed already, 0 failed.")
    assert before.items() <= {path: path.read_bytes() for path in find_shards(out)}.items()
    soundfile.write(items[1].path, np.zeros(RATE), RATE)
    assert (write(items, out).written, write(items, out).kept) == (1, 6)
    rows = rows_of(out)
    assert Counter(row["name"] for row in rows) == Counter(
        {f"r{index}.wav": -(-7 * (index + 1) // 10) for index in range(6)} | {"r1.wav": 1}
    )
    footers = {path: read_footer(path) for path in find_shards(out)}
    recordings = [recording.name for footer in footers.values() for recording in footer.recordings]
    assert sorted(recordings) == [item.name for item in items]
    for path, footer in footers.items():
        with pq.ParquetFile(path) as file:
            for group, samples in enumerate(footer.groups):
                durations = file.read_row_group(group, columns=["duration"])["duration"].to_pylist()
                assert [duration * RATE for duration in durations] == pytest.approx(samples)


def test_parts_share_the_recordings_out(items, tmp_path):
    counts = [write(items, tmp_path / "out", part=(part, 3)).written for part in range(3)]
    assert counts == [sum(part_of(item.name, 3) == part for item in items) for part in range(3)]
    assert {row["name"] for row in rows_of(tmp_path / "out")} == {item.name for item in items}
    assert write(items, tmp_path / "out", part=(0, 1)).kept == 6  # another number of parts finds what is there


def test_damaged_recordings_are_reported_and_the_others_written(items, tmp_path):
    (tmp_path / "music" / "r2.wav").write_bytes(b"RIFF and nothing else")
    missing = AudioItem("gone.wav", path=str(tmp_path / "gone.wav"))
    summary = write([*items, missing], tmp_path / "out")
    assert sorted(summary.failed) == ["gone.wav", "r2.wav"] and summary.written == 5
    assert "r2.wav" in summary.failed["r2.wav"]


def test_a_recording_that_fails_within_the_writer_leaves_nothing(items, tmp_path):
    def refuse(waveform, name):
        if name == "r3.wav":
            raise ValueError("no codes")
        return whole_codes(waveform, name)

    with pytest.raises(ValueError, match="no codes"):
        write_shards(items, tmp_path / "out", SETTINGS, refuse, show_progress_bar=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_other_settings_foreign_files_and_equal_names_are_refused(items, tmp_path):
    out = tmp_path / "out"
    write(items[:1], out)
    with pytest.raises(ValueError, match="seconds: 1.0, now 2.0"):
        write_shards(items, out, ShardSettings(RATE, HOP, 2.0, "flac", SETTINGS.codebook_sizes), whole_codes)
    with pytest.raises(ValueError, match="Two recordings have the name"):
        write([items[1], items[1]], tmp_path / "other")
    pq.write_table(pq.read_table(find_shards(out)[0]).replace_schema_metadata(None), out / "train-x.parquet")
    with pytest.raises(ValueError, match="was not written by mert-hf shard"):
        write(items, out)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"codec": "mp3"}, "codec must be one of flac, opus, original"),
        ({"codec": "opus", "sampling_rate": 44100}, "Opus works at"),
        ({"seconds": 0.001}, "must be at least a hop"),
        ({"codebook_sizes": (70000,)}, "uint16"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShardSettings(**{"sampling_rate": RATE, "hop_length": HOP, **arguments})


@pytest.mark.parametrize("codec", ["opus", "original"])
def test_other_codecs(items, tmp_path, codec):
    settings = ShardSettings(RATE, HOP, 1.0, codec)
    write_shards(items[:3], tmp_path, settings, show_progress_bar=False)
    rows = rows_of(tmp_path)
    if codec == "original":
        assert sorted(row["audio"]["bytes"] for row in rows) == sorted(item.read() for item in items[:3])
    for row in rows:
        assert len(read_audio(io.BytesIO(row["audio"]["bytes"]), RATE)) == round(row["duration"] * RATE)


def test_sizes_and_parts_are_parsed():
    assert [shards.parse_size(text) for text in ("500MB", "2gb", "1000")] == [500_000_000, 2_000_000_000, 1000]
    assert shards.parse_part("2/4") == (1, 4)
    for text in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(ValueError, match="number of a part"):
            shards.parse_part(text)
    with pytest.raises(ValueError, match="such as 500MB"):
        shards.parse_size("much")


def test_tars_of_webdataset_are_read(items, tmp_path, monkeypatch):
    from mert_hf.corpora.sharding import find_items

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "music.tar", "w") as tar:
        for item in items[:3]:
            tar.add(item.path, item.name)
    found = list(find_items([str(tmp_path / "music.tar")]))
    assert [item.name for item in found] == ["music.tar/r0", "music.tar/r1", "music.tar/r2"]
    assert [item.read() for item in found] == [item.read() for item in items[:3]]
