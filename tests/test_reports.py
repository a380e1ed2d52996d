"""Kinds of faults that users of other audio software reported, see docs/results/reports-tried.md."""

from __future__ import annotations

import json
import logging
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sounds import melody, set_in_ogg_page, sweep, write
from tiny_pretraining import make_trainer, write_recordings

from mert_hf import MERTEmbedder, MERTFeatureExtractor, MERTModel
from mert_hf.audio import read_audio
from mert_hf.audio.decoders import warn
from mert_hf.embedding.dataset import embed_dataset
from mert_hf.finetuning import FineTuningTrainingArguments
from mert_hf.recordings.audiofolder import read_folder, write_metadata
from mert_hf.recordings.targets import parse_segments, read_beats, read_segments

RATE = 24000
QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def embedder(tiny_checkpoint2) -> MERTEmbedder:
    return MERTEmbedder.from_pretrained(tiny_checkpoint2, device="cpu")


@pytest.fixture(autouse=True)
def each_warning_again():
    """Warnings are logged once for each text; tests must not depend on their order."""
    warn.cache_clear()
    logging.getLogger("mert_hf.modeling.feature_extraction_mert").warning_once.cache_clear()


def encoded(embedder: MERTEmbedder, *clips: np.ndarray, **options) -> list[np.ndarray]:
    return [one.embeddings for one in embedder.encode(list(clips), sampling_rate=RATE, **QUIET, **options)]


def write_folder(folder: Path, rows: list[dict], seconds: float = 1.0) -> Path:
    """Recordings of different noise, and their metadata.csv."""
    folder.mkdir()
    for number, row in enumerate(rows):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, round(seconds * RATE))
        write(folder / row["file_name"], noise.astype(np.float32), RATE)
    write_metadata(folder, rows)
    return folder


# The same result for the same recording


def test_a_clip_embeds_the_same_each_time_alone_and_among_others(embedder):
    clips = [melody(number, seconds) for number, seconds in enumerate((6.0, 0.7, 3.3))]
    together = encoded(embedder, *clips)
    for found, again, clip in zip(together, encoded(embedder, *clips), clips, strict=True):
        np.testing.assert_array_equal(found, again)
        np.testing.assert_allclose(found, encoded(embedder, clip)[0], atol=1e-5)
    for found, small in zip(together, encoded(embedder, *clips, batch_size=1), strict=True):
        np.testing.assert_allclose(found, small, atol=1e-5)


def test_a_model_in_training_mode_is_set_to_evaluation(tiny_config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MERTModel(tiny_config(hidden_dropout=0.5, layerdrop=0.5)).train()
    embedder = MERTEmbedder(model, MERTFeatureExtractor())
    first, second = (encoded(embedder, melody(0, 1.0))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_callers_default_dtype_and_random_state_do_not_matter(tiny_checkpoint2, embedder):
    state = torch.get_rng_state()
    expected = encoded(embedder, melody(0, 1.0))[0]
    torch.set_default_dtype(torch.float64)
    try:
        other = MERTEmbedder.from_pretrained(tiny_checkpoint2, device="cpu")
        np.testing.assert_array_equal(encoded(other, melody(0, 1.0))[0], expected)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


# Masks


def test_masks_of_any_type_are_equal_and_padding_is_not_heard(tiny_config, tiny_checkpoint2):
    models = [MERTModel(tiny_config()).eval(), MERTEmbedder.from_pretrained(tiny_checkpoint2, device="cpu").model]
    values = torch.from_numpy(np.stack([melody(0, 1.0), melody(1, 1.0)]))
    mask = torch.ones(2, RATE, dtype=torch.long)
    mask[1, 15000:] = 0
    other_padding = values.masked_fill(mask == 0, 7.0)
    for model in models:
        with torch.no_grad():
            expected = model(values, attention_mask=mask).last_hidden_state
            for dtype in (torch.bool, torch.int32, torch.float32):
                assert torch.equal(model(values, attention_mask=mask.to(dtype)).last_hidden_state, expected)
            assert torch.equal(model(other_padding, attention_mask=mask).last_hidden_state, expected)


@pytest.mark.parametrize("values", ["twice", "negative", "empty row", "too short"])
def test_a_mask_that_is_no_mask_is_refused(tiny_config, tiny_config2, values):
    from mert_hf import MERT2Model

    mask = torch.ones(2, RATE, dtype=torch.long)
    mask[1, 15000:] = 0
    wrong = {"twice": 2 * mask, "negative": -mask, "empty row": mask.clone(), "too short": mask.clone()}[values]
    if values in ("empty row", "too short"):
        wrong[1, 5 if values == "too short" else 0 :] = 0
    for model in (MERTModel(tiny_config()), MERT2Model(tiny_config2())):
        with pytest.raises(ValueError, match="attention_mask must hold 0 and 1, and in each row at least"):
            model(torch.zeros(2, RATE), attention_mask=wrong)


# Scale, channels, rates


def test_the_callers_array_stays_as_it_is(embedder):
    samples = melody(0, 1.0)
    before = samples.copy()
    for normalize in (True, False):
        MERTFeatureExtractor(do_normalize=normalize)(samples, sampling_rate=RATE)["input_values"][0][:] = 0
    encoded(embedder, samples)
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", ">f4", "<f8", "u1"])
def test_every_type_of_samples_has_the_same_gain(dtype):
    samples = melody(0, 1.0)
    kind, bits = np.dtype(dtype), 8 * np.dtype(dtype).itemsize
    scaled = (
        samples if kind.kind == "f" else np.round(samples * (2.0 ** (bits - 1) - 1)) + (128 if dtype == "u1" else 0)
    )
    found = MERTFeatureExtractor(do_normalize=False)(scaled.astype(kind), sampling_rate=RATE)["input_values"][0]
    np.testing.assert_allclose(found, samples, atol=1e-7 if kind.itemsize > 2 else 0.01)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (melody(0, 0.1) * 32768, "Samples are far beyond"),
        ((melody(0, 0.1) * (2**23 - 1)).astype(np.int32), "as 24-bit audio does"),
        (melody(0, 0.1) * 8, None),
        ((melody(0, 0.1) * (2**31 - 1)).astype(np.int32), None),
    ],
)
def test_integers_of_another_scale_are_noticed(samples, message, monkeypatch):
    logged: list[str] = []
    module = "mert_hf.modeling.feature_extraction_mert.logger"
    monkeypatch.setattr(f"{module}.warning_once", logged.append)
    MERTFeatureExtractor(do_normalize=False)(samples, sampling_rate=RATE)
    assert [message in text for text in logged] == ([True] if message else [])


def test_a_file_of_floats_with_the_scale_of_integers_is_noticed(tmp_path, caplog):
    write(tmp_path / "loud.wav", melody(0, 0.2) * 8, RATE, subtype="FLOAT")
    write(tmp_path / "scaled.wav", melody(0, 0.2) * 32768, RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "loud.wav", RATE), melody(0, 0.2) * 8, rtol=1e-6)
    assert not caplog.records
    read_audio(tmp_path / "scaled.wav", RATE)
    assert "scaled.wav: samples are far beyond [-1, 1]" in caplog.text


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"])
def test_every_coding_of_a_wav_has_the_same_gain(tmp_path, subtype):
    samples = melody(0, 1.0)
    found = read_audio(write(tmp_path / "song.wav", samples, RATE, subtype=subtype), RATE)[: len(samples)]
    assert found @ samples / (samples @ samples) == pytest.approx(1, abs=0.02)


def test_six_channels_are_mixed_alike_whatever_their_order_in_the_file(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, (4800, 6)).astype(np.float32)
    for name, format in {"a.wav": "WAVEX", "a.flac": "FLAC"}.items():
        found = read_audio(write(tmp_path / name, samples, RATE, format, "PCM_24"), RATE)
        np.testing.assert_allclose(found, samples.mean(axis=1), atol=1e-6)


def test_recordings_of_different_rates_in_one_call_keep_their_lengths(tmp_path, embedder):
    paths = []
    for rate in (32000, 16000, 44100, 22050):
        paths.append(tmp_path / f"{rate}.mp3")
        write(paths[-1], sweep(2.0, rate, 1), rate, "MP3", "MPEG_LAYER_III")
    ends = [one.end[-1] for one in embedder.encode(paths, **QUIET)]
    np.testing.assert_allclose(ends, 2.0, atol=1 / RATE)


def test_the_gain_in_the_header_of_an_opus_file_is_applied(tmp_path):
    path = write(tmp_path / "song.opus", sweep(1.0, 48000, 1), 48000, "OGG", "OPUS")
    before = read_audio(path, 48000)
    data = bytearray(path.read_bytes())
    set_in_ogg_page(data, 0, "<h", data.find(b"OpusHead") + 16, -6 * 256)
    path.write_bytes(data)
    assert np.linalg.norm(read_audio(path, 48000)) / np.linalg.norm(before) == pytest.approx(10 ** (-6 / 20), rel=0.01)


# Headers and tags


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000, 0xFFFFFFDB])
def test_a_wav_that_was_written_to_a_pipe_is_read_to_its_end(tmp_path, size):
    path = write(tmp_path / "song.wav", melody(0, 1.0), RATE)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"data") + 4, size)
    path.write_bytes(data)
    assert len(read_audio(path, RATE)) == RATE


@pytest.mark.parametrize("extension", ["flac", "mp3"])
def test_tags_around_the_audio_change_nothing(tmp_path, extension):
    format = {"flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III")}[extension]
    path = write(tmp_path / f"song.{extension}", melody(0, 1.0), RATE, *format)
    expected, data = read_audio(path, RATE), path.read_bytes()
    header = b"ID3\x03\x00\x00" + bytes([0, 1, 0, 0])  # of 16384 bytes
    for changed in (header + bytes(16384) + data, data + b"TAG" + b"a" * 125):
        path.write_bytes(changed)
        np.testing.assert_array_equal(read_audio(path, RATE), expected)


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.mp3"])
def test_the_content_counts_and_not_the_name(tmp_path, name):
    samples = melody(0, 0.5)
    source = write(tmp_path / "source.flac", samples, RATE, "FLAC", "PCM_16")
    np.testing.assert_allclose(read_audio(shutil.move(source, tmp_path / name), RATE), samples, atol=1e-4)


def test_a_decoded_mp3_begins_and_ends_where_the_music_did(tmp_path):
    samples = sweep(2.0, 44100, 2)
    found = read_audio(write(tmp_path / "song.mp3", samples, 44100, "MP3", "MPEG_LAYER_III"), 44100)
    assert len(found) == len(samples)
    lags = np.correlate(found[:6000], samples[1000:4000].mean(axis=1), "valid")
    assert int(np.argmax(lags)) == 1000


# Data that leaks, and annotations


def test_copies_of_a_file_in_different_splits_are_named(tmp_path, caplog):
    rows = [
        {"file_name": f"{i}.wav", "genre": "ab"[i % 2], "split": ("train", "train", "valid", "test")[i % 4]}
        for i in range(8)
    ]
    folder = write_folder(tmp_path / "songs", rows)
    read_folder(folder, ["genre"], "classification")
    assert "copies" not in caplog.text
    shutil.copy(folder / "0.wav", folder / "2.wav")
    shutil.copy(folder / "1.wav", folder / "5.wav")  # both are in training
    read_folder(folder, ["genre"], "classification")
    assert "copies of 1 files are in several splits: 0.wav (train) = 2.wav (valid). " in caplog.text


def test_names_that_tables_take_for_missing_values_are_classes(tmp_path):
    names = ["NA", "nan", "None", "null", "1e5", "007", "7"]
    rows = [{"file_name": f"{i}.wav", "genre": names[i % 7]} for i in range(21)]
    assert set(read_folder(write_folder(tmp_path / "songs", rows, 0.1), ["genre"], "classification").labels) == set(
        names
    )


@pytest.mark.parametrize("kind", ["beats", "structure"])
def test_annotations_in_milliseconds_are_refused(tmp_path, kind):
    cell = {"beats": [[10, 1], [500, 2], [1000, 3]], "structure": [[0, 500, "verse"], [500, 1000, "chorus"]]}[kind]
    rows = [
        {"file_name": f"{i}.wav", kind: json.dumps(cell), "split": split}
        for i, split in enumerate(["train", "valid", "test"])
    ]
    folder = write_folder(tmp_path / "songs", rows)
    with pytest.raises(ValueError, match="most annotated times of 0.wav lie past its end at 1.00 s, the last at 1000"):
        read_folder(folder, [kind], kind)


@pytest.mark.parametrize(
    ("text", "intervals", "labels"),
    [
        ("0.0\t1.5\tA\n1.5\t3.0\t\n3.0\t4.0\tB\n", [[0, 1.5], [1.5, 3], [3, 4]], ("A", "", "B")),
        ("0.0\t1.5\n1.5\t3.0\n", [[0, 1.5], [1.5, 3]], ("", "")),
        ("0.0\t1\n5.0\t2\n9.0\tend\n", [[0, 5], [5, 9]], ("1", "2")),
        ("\ufeff0.0 1.5 verse 2\n1.5 3 B\n", [[0, 1.5], [1.5, 3]], ("verse 2", "B")),
    ],
)
def test_segments_without_a_name_keep_their_times(tmp_path, text, intervals, labels):
    (tmp_path / "song.lab").write_text(text, encoding="utf-8")
    found = read_segments(tmp_path / "song.lab")
    assert (found.intervals.tolist(), found.labels) == (intervals, labels)


def test_a_segment_that_ends_before_it_starts_is_refused_but_for_rounding():
    assert parse_segments([[0, 2, "A"], [162.922, 162.907, "silence"]], "song").labels == ("A",)
    with pytest.raises(ValueError, match="song hold one that ends before it starts"):
        parse_segments([[0, 1, "verse"], [5, 2, "chorus"]], "song")


def test_beat_files_of_other_systems(tmp_path):
    path = tmp_path / "song.beats"
    for text in ("\ufeff0.5 1\n1.0 2\n", "0.5\t1\r\n1.0\t2\r\n"):
        path.write_bytes(text.encode())
        assert read_beats(path).downbeats.tolist() == [0.5]


# Training and what is kept from an earlier run


def test_fine_tuning_logs_losses_that_are_not_finite(tmp_path):
    assert not FineTuningTrainingArguments(output_dir=str(tmp_path), use_cpu=True).logging_nan_inf_filter


def test_probes_are_trained_anew_where_a_file_has_changed(tmp_path):
    from mert_hf.evaluation import EvaluationSettings, evaluate

    splits = ["train"] * 4 + ["valid"] * 4 + ["test"] * 4
    rows = [{"file_name": f"{i:02d}.wav", "pitch": "ab"[i % 2], "split": split} for i, split in enumerate(splits)]
    folder = write_folder(tmp_path / "songs", rows)

    def write_class(number: int, high: bool) -> None:
        tone = np.sin(2 * np.pi * (2000 if high else 200) * (1 + 0.01 * number) * np.arange(RATE) / RATE)
        write(folder / f"{number:02d}.wav", (0.3 * tone).astype(np.float32), RATE)

    for number in range(12):
        write_class(number, high=number % 2 == 1)
    settings = EvaluationSettings(learning_rates=(1e-1,), seeds=(0,), max_epochs=20, progress=False)

    def accuracy() -> float:
        options = {"settings": settings, "cache_dir": tmp_path / "cache", "target": "pitch", "device": "cpu"}
        return evaluate("audiofolder", folder, "mfcc", **options)["metrics"]["accuracy"]["mean"]

    assert accuracy() == 1.0
    for number in range(8, 12):
        write_class(number, high=number % 2 == 0)
    assert accuracy() == 0.0


def test_a_resumed_run_keeps_its_schedule_and_says_which_settings_it_ignores(tmp_path, caplog):
    recordings = tmp_path / "recordings"
    write_recordings(recordings, [2.0, 2.5, 3.0, 3.5])

    def rates(resumed: bool, **settings) -> list[float]:
        trainer = make_trainer(
            recordings, tmp_path / "run", save_strategy="steps", save_steps=2, warmup_steps=1, **settings
        )
        trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2") if resumed else None)
        return [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]

    undisturbed = rates(resumed=False, max_steps=4)
    assert rates(resumed=True, max_steps=4) == pytest.approx(undisturbed)
    assert "learning rate" not in caplog.text
    assert rates(resumed=True, max_steps=4, learning_rate=0.1) == pytest.approx(undisturbed)
    assert "The learning rate stays 0.001, that of the checkpoint; learning_rate=0.1 has no effect" in caplog.text


def test_recordings_that_have_changed_are_embedded_again(tmp_path, tiny_checkpoint2, caplog):
    (tmp_path / "songs").mkdir()
    for number in range(2):
        write(tmp_path / "songs" / f"{number}.wav", melody(number, 1.0), RATE)

    def end_of_second() -> float:
        embed_dataset([tmp_path / "songs"], tmp_path / "out", tiny_checkpoint2, device="cpu", **QUIET)
        tables = [pq.read_table(path).to_pylist() for path in sorted((tmp_path / "out").glob("*.parquet"))]
        return max(row["end"] for rows in tables for row in rows if row["path"].endswith("1.wav"))

    assert end_of_second() == 1.0
    assert end_of_second() == 1.0 and "have changed" not in caplog.text
    write(tmp_path / "songs" / "1.wav", melody(5, 2.0), RATE)
    assert end_of_second() == 2.0
    assert "1 recordings have changed and are embedded again" in caplog.text


def test_a_query_that_has_changed_since_it_was_indexed_is_heard_as_it_is_now(tmp_path, tiny_checkpoint2):
    pytest.importorskip("lancedb", reason="the index needs the extra 'search'")
    from mert_hf.search import MusicIndex

    path = write(tmp_path / "song.wav", melody(0, 1.0), RATE)
    MusicIndex.update([path], tmp_path / "index", tiny_checkpoint2, device="cpu", **QUIET)
    index = MusicIndex(tmp_path / "index", device="cpu")
    indexed = index.vector(path)
    write(path, melody(5, 2.0), RATE)
    shutil.copy(path, tmp_path / "copy.wav")
    np.testing.assert_array_equal(index.vector(path), index.vector(tmp_path / "copy.wav"))
    assert not np.allclose(index.vector(path), indexed, atol=0.01)
