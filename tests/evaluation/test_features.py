"""Feature stores and extraction: what is on disk, what an interrupted run leaves, what is computed again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mert_hf.audio import AudioReadError
from mert_hf.embedding.embedder import MERTEmbedder
from mert_hf.embedding.windows import embed_windows, recording_windows
from mert_hf.encoders import open_encoder
from mert_hf.encoders.handmade import HandmadeEncoder
from mert_hf.evaluation.probing import features
from mert_hf.evaluation.probing.features import FeatureRequest, extract
from mert_hf.evaluation.probing.settings import EvaluationSettings
from mert_hf.evaluation.probing.store import FeatureStore, FeatureTable, fingerprint
from mert_hf.recordings.recordings import Recording

from .synthesis import note, write

CHUNKS = FeatureRequest(HandmadeEncoder("chroma", "cpu"), window=2.0, pooling="mean_std", layers=(0,))
FRAMES = replace(CHUNKS, pooling="frames", shortest=0.0)


@pytest.fixture
def recordings(tmp_path) -> list[Recording]:
    """Notes of 5.5, 4.8 and 0.7 s."""
    lengths = {"a": 5.5, "b": 4.8, "c": 0.7}
    return [
        Recording(name, write(tmp_path / f"{name}.wav", note(60 + i, seconds)), "train", 0)
        for i, (name, seconds) in enumerate(lengths.items())
    ]


@pytest.fixture
def open_store(tmp_path):
    """Opens a store of one layer of 24 values."""
    return lambda **settings: FeatureStore(tmp_path / "cache", {"model": "x", **settings}, (1, 24), "float32")


def run(request, recordings, store, encoder=None, **options):
    if encoder is not None:
        request = replace(request, encoder=encoder, layers=encoder.layers)
    return extract(request, recordings, store, EvaluationSettings(progress=False, **options))


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the recordings that are read, in their order."""
    names: list[str] = []

    def note_read(encoder, source, *arguments, **options):
        names.append(Path(source).stem)
        return recording_windows(encoder, source, *arguments, **options)

    monkeypatch.setattr(features, "recording_windows", note_read)
    return names


def test_chunks_are_means_of_windows_without_a_short_last_one(recordings, open_store):
    with open_store() as store:
        run(CHUNKS, recordings, store)
        counts = [store.span(recording) for recording in recordings]
        rows = np.array(store.rows())
    # 5.5 s: 2 + 2 + 1.5; 4.8 s: 2 + 2, the last 0.8 s dropped; 0.7 s: kept, as there is nothing else.
    assert counts == [(0, 3), (3, 2), (5, 1)]
    encoder = HandmadeEncoder("chroma", "cpu")
    windows = [(0, window) for window in recording_windows(encoder, recordings[0].path, 2.0)]
    expected = np.stack([values for _, _, values in embed_windows(encoder, windows, [0], "mean_std")])
    np.testing.assert_array_equal(rows[:3], expected)


def test_chunks_of_a_model_are_those_of_the_embedder(recordings, tmp_path, tiny_checkpoint):
    encoder = open_encoder(str(tiny_checkpoint), device="cpu")
    shape = (len(encoder.layers), encoder.hidden_size)
    with FeatureStore(tmp_path / "cache", {}, shape, "float32") as store:
        run(replace(CHUNKS, pooling="mean"), recordings, store, encoder, batch_size=4)
        rows = np.array(store.rows())
    embedder = MERTEmbedder.from_pretrained(tiny_checkpoint, device="cpu")
    found = embedder.encode(
        [str(recording.path) for recording in recordings], window=2.0, min_window=1.0, show_progress_bar=False
    )
    np.testing.assert_allclose(rows, np.concatenate([embedding.embeddings for embedding in found]), atol=1e-5)


def test_frames_lie_on_one_regular_grid_across_windows(recordings, tmp_path, tiny_checkpoint):
    encoder = open_encoder(str(tiny_checkpoint), device="cpu")
    shape = (len(encoder.layers), encoder.hidden_size)
    with FeatureStore(tmp_path / "cache", {}, shape, "float16") as store:
        run(FRAMES, recordings[:1], store, encoder)
        rows = np.array(store.rows())
    hop = encoder.hop_length / encoder.sampling_rate
    assert len(rows) == int(np.ceil(5.5 / hop))
    embedder = MERTEmbedder.from_pretrained(tiny_checkpoint, device="cpu")
    found = embedder.encode(str(recordings[0].path), window=2.0, pooling="frames", show_progress_bar=False)
    for k in (0, 10, 149, 150, 299, 300, len(rows) - 1):
        inside = found.frame_windows == int(k * hop / 2.0 + 1e-9)
        nearest = np.abs(np.where(inside, found.frame_times, np.inf) - k * hop).argmin()
        np.testing.assert_allclose(rows[k], found.embeddings[nearest], atol=2e-3)


def test_only_missing_recordings_are_computed(recordings, open_store, read):
    with open_store() as store:
        run(CHUNKS, recordings[:2], store)
    with open_store() as store:
        run(CHUNKS, recordings, store)
    assert read == ["a", "b", "c"]


def test_a_changed_file_is_computed_again(recordings, open_store, read):
    with open_store() as store:
        run(CHUNKS, recordings, store)
        before = np.array(store.rows())
    write(recordings[1].path, note(70, 4.8))
    os.utime(recordings[1].path, ns=(1, 1))
    with open_store() as store:
        run(CHUNKS, recordings, store)
        start, count = store.span(recordings[1])
        after = store.rows()[start : start + count]
        assert read == ["a", "b", "c", "b"] and not np.allclose(after, before[3:5])


@pytest.mark.parametrize("torn", ["rows", "index", "half a line"])
def test_what_a_killed_run_left_is_cut_off(recordings, open_store, read, torn):
    with open_store() as store:
        run(CHUNKS, recordings, store)
        expected, folder = np.array(store.rows()), store.folder
    index = folder / "index.jsonl"
    if torn == "rows":  # rows of a recording written, its line not yet
        with (folder / "rows.bin").open("ab") as file:
            file.write(b"\1" * 77)
    elif torn == "index":  # a line of the last recording, whose rows never reached the disk
        os.truncate(folder / "rows.bin", expected[:4].nbytes)
    else:
        os.truncate(index, index.stat().st_size - 9)
    read.clear()
    with open_store() as store:
        run(CHUNKS, recordings, store)
        np.testing.assert_array_equal(store.rows(), expected)
    assert read == {"rows": [], "index": ["b", "c"], "half a line": ["c"]}[torn]


def test_one_process_writes_at_a_time(open_store):
    with open_store():
        with pytest.raises(ValueError, match="Another process is writing"):
            open_store().__enter__()
        with open_store(model="y"):
            pass


def test_settings_have_stores_of_their_own(open_store):
    assert open_store().folder != open_store(window=3).folder
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_unreadable_recordings_are_told_or_counted(recordings, open_store, caplog):
    recordings[1].path.write_bytes(b"no music")
    with open_store() as store:
        with pytest.raises(AudioReadError, match="b.wav"):
            run(CHUNKS, recordings, store)
        assert run(CHUNKS, recordings, store, max_bad_files=1) == {"b"}
        assert recordings[2] in store and recordings[1] not in store
    assert "b.wav is left out" in caplog.text


def test_a_full_disk_is_told_before_it_is_full(recordings, open_store, monkeypatch):
    monkeypatch.setattr("mert_hf.evaluation.probing.features.shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with open_store() as store:
        with pytest.raises(ValueError, match="need about 0.0 GB in .*fewer layers with --layers"):
            run(CHUNKS, recordings, store)


def test_bad_rows_are_refused(recordings, tmp_path):
    with FeatureStore(tmp_path / "cache", {}, (1, 2), "float16") as store:
        with pytest.raises(ValueError, match=r"shape \(3, 2\), expected \(rows, \*\(1, 2\)\)"):
            store.append(recordings[0], np.zeros((3, 2)))
        with pytest.raises(ValueError, match="not finite in float16"):
            store.append(recordings[0], np.full((1, 1, 2), 1e6))


def test_table_gathers_and_standardizes_by_the_given_recordings(recordings):
    rows = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    rows[:, 1, 1] = 7.0
    table = FeatureTable(rows, {"a": (0, 3), "b": (3, 2), "c": (5, 1)})
    torch.testing.assert_close(table.gather(torch.tensor([4, 0])), torch.from_numpy(rows[[4, 0]]).transpose(0, 1))
    table = table.standardized(recordings[:2])
    values = table.gather(torch.arange(5))
    torch.testing.assert_close(values.mean(dim=1), torch.zeros(2, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(values.std(dim=1, correction=0), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))


@pytest.mark.parametrize("free", [0.0, 1e9])
def test_some_layers_of_a_table_are_held_or_stay_on_disk(recordings, monkeypatch, free):
    rows = np.random.default_rng(0).normal(size=(9, 3, 4)).astype(np.float16)
    spans = {"a": (4, 3), "b": (0, 2), "c": (8, 1)}  # a store of other recordings too
    monkeypatch.setattr("mert_hf.evaluation.probing.store.free_memory", lambda device: free)
    table = FeatureTable(rows, spans).standardized(recordings[:2])
    held = table.held([2, 0])
    assert isinstance(held.rows, torch.Tensor) == (free > 0) and held.num_layers == 2
    assert len(held.rows) == 6 if free else held.rows.shape[0] == 9
    for recording in recordings:
        mine = held.gather(held.indices([recording]))
        torch.testing.assert_close(mine, table.gather(table.indices([recording]))[[2, 0]])


def test_blocks_keep_recordings_whole(recordings):
    table = FeatureTable(np.zeros((6, 1, 1)), {"a": (0, 3), "b": (3, 2), "c": (5, 1)})
    blocks = [sum(block, []) for block in table.blocks([[r] for r in recordings], limit=3)]
    assert [[recording.id for recording in block] for block in blocks] == [["a"], ["b", "c"]]
    assert [table.indices(block).tolist() for block in blocks] == [[0, 1, 2], [3, 4, 5]]
