"""Processes that are killed while they write an index, and readers of an index that is being written."""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile
from sounds import melody

pytest.importorskip("lancedb", reason="the index needs the extra 'search'")

from mert_hf.search import MusicIndex, building
from mert_hf.search.store import RecordingTable, is_index

OPTIONS = {"device": "cpu", "show_progress_bar": False, "windows": True}
KILLS = 10


def write_index(music: Path, folder: Path, model: Path, started=None) -> None:
    """Makes an index with a version for every recording, so that a kill meets all states."""
    import torch

    torch.set_num_threads(1)
    building.ROWS_IN_VERSION = 1
    if started is not None:
        started.set()
    MusicIndex.update([music], folder, model, **OPTIONS)


def context():
    """Processes with transformers already imported; LanceDB's threads do not survive a fork."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["mert_hf.embedding.embedder"])
    return made


def content(folder: Path) -> tuple[list[str], np.ndarray]:
    index = MusicIndex(folder)
    order = np.argsort(index.paths())
    return np.array(index.paths())[order].tolist(), index.vectors()[order]


def test_statistics_that_a_killed_run_did_not_compute_are_computed_by_the_next(library, tiny_checkpoint, tmp_path):
    with mock.patch.object(RecordingTable, "refit", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        MusicIndex.update([library], tmp_path, tiny_checkpoint, **OPTIONS)
    before = MusicIndex(tmp_path).vectors()
    assert len(before) == 12 and not np.allclose(before.std(axis=0), 1.0, atol=0.1)
    summary = MusicIndex.update([library], tmp_path, tiny_checkpoint, **OPTIONS)
    assert (summary.added, summary.changed, summary.seconds) == (0, 0, 0.0)
    np.testing.assert_allclose(MusicIndex(tmp_path).vectors().std(axis=0), 1.0, atol=0.01)


@pytest.mark.slow
def test_ten_kills_change_nothing(library, tiny_checkpoint, tmp_path):
    music, folder = library, tmp_path / "killed"
    started = time.monotonic()
    write_index(music, tmp_path / "straight", tiny_checkpoint)
    seconds = time.monotonic() - started
    draws, kills = random.Random(0), 0
    while kills < KILLS:
        ready = context().Event()
        process = context().Process(target=write_index, args=(music, folder, tiny_checkpoint, ready))
        process.start()
        while not ready.wait(timeout=1):
            assert process.exitcode is None, "the process ended before it began"
        process.join(draws.uniform(0.1, 0.8) * seconds)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if is_index(folder):  # whatever the moment, the index can be read
            index = MusicIndex(folder)
            assert len(set(index.paths())) == len(index) <= 12
            assert np.isfinite(index.vectors()).all()
        if process.exitcode == 0 and kills < KILLS:  # complete: the next kill meets a change
            index = MusicIndex(folder)
            index._table.delete(index.paths()[: draws.randint(1, 12)])
    write_index(music, folder, tiny_checkpoint)
    paths, vectors = content(folder)
    expected, expected_vectors = content(tmp_path / "straight")
    assert paths == expected
    np.testing.assert_allclose(vectors, expected_vectors, atol=0.02)


@pytest.mark.slow
def test_two_readers_while_it_is_written(library, tiny_checkpoint, tmp_path):
    music, folder = tmp_path / "music", tmp_path / "index"
    music.mkdir()
    for number in range(12):
        soundfile.write(music / f"{number}.flac", melody(number, 6.0), 24000)
    write_index(music, folder, tiny_checkpoint)
    sizes, errors, done = [[], []], [], threading.Event()

    def read(seen: list[int]) -> None:
        try:
            while not done.is_set():
                index = MusicIndex(folder)
                seen.append(len(index))
                vectors = index.vectors()
                assert len(vectors) == len(index) == len(index.paths())  # one version, whatever is written now
                best = index.search(index.paths()[0], top_k=3)
                assert best[0].path == index.paths()[0] and best[0].similarity > 0.99
        except Exception as error:  # reported by the test's own thread
            errors.append(error)

    readers = [threading.Thread(target=read, args=(seen,)) for seen in sizes]
    for number in range(12, 30):
        soundfile.write(music / f"{number}.flac", melody(number, 6.0), 24000)
    (music / "3.flac").unlink()
    process = context().Process(target=write_index, args=(music, folder, tiny_checkpoint))
    process.start()
    for reader in readers:
        reader.start()
    process.join()
    wanted = [len(seen) + 2 for seen in sizes]  # the last of these was opened after the end
    while not errors and any(len(seen) < count for seen, count in zip(sizes, wanted, strict=True)):
        time.sleep(0.01)
    done.set()
    for reader in readers:
        reader.join()
    assert process.exitcode == 0 and errors == []
    for seen in sizes:
        assert set(seen) <= {11, 12, *range(12, 30)} and seen[-1] == 29 and len(set(seen)) > 2
