"""Full disks, places that cannot be written, and signals: reported before work starts, or the last good state is kept.

Signals in pre-training are tested in tests/pretraining/test_callbacks.py and test_distributed.py.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from sounds import sweep, write
from typer.testing import CliRunner

from mert_hf import KMeansTeacher
from mert_hf.cli.app import app
from mert_hf.embedding.dataset import embed_dataset
from mert_hf.evaluation.probing import runner
from mert_hf.utils.files import staged_directory, staged_file

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
OPTIONS = {"device": "cpu", "batch_size": 4, "window": 1.0, "show_progress_bar": False}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    samples = sweep(12.0, 16000, channels=1)
    lines = ["file_name,kind,split"]
    for index in range(12):
        write(folder / f"{index:02d}.wav", samples[: 16000 * (1 + index)], 16000)
        lines.append(f"{index:02d}.wav,{index % 2},{('train', 'valid', 'test')[index // 2 % 3]}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def blocked(tmp_path) -> Path:
    """A path below a file: no user, root included, can write there."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "output"


def under_limit(work, folder: Path, limit: int) -> None:
    """Runs the work where no file may grow beyond `limit` bytes, as on a full disk; status 3 for an OSError."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        work(folder)
    except OSError:
        os._exit(3)


def status_under_limit(work, folder: Path, limit: int) -> int:
    process = torch.multiprocessing.get_context("fork").Process(target=under_limit, args=(work, folder, limit))
    process.start()
    process.join()
    return process.exitcode


# Places that cannot be written


def test_embedding_into_a_place_that_cannot_be_written(clips, tiny_checkpoint, blocked):
    arguments = ["embed", str(clips), "--model", str(tiny_checkpoint), "--output", str(blocked), "--device", "cpu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("mert-hf: error: ") and str(blocked) in result.stderr


def test_evaluation_checks_its_output_before_it_works(clips, blocked, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "get_task", lambda *arguments, **options: pytest.fail("work had begun"))
    with pytest.raises(OSError, match="file"):
        runner.evaluate("audiofolder", clips, "mel", blocked, target="kind")
    with pytest.raises(IsADirectoryError, match="give a file for the results"):
        runner.evaluate("audiofolder", clips, "mel", tmp_path, target="kind")


def test_labeling_checks_its_output_before_it_works(clips, blocked):
    from mert_hf.corpora.labels import label_files
    from mert_hf.teachers import AcousticTeacher

    class Teacher(AcousticTeacher):
        codebook_sizes = (2,)

        def settings(self) -> dict:
            return {}

        def forward(self, waveforms):
            pytest.fail("work had begun")

    with pytest.raises(OSError, match="output"):
        label_files(sorted(clips.glob("*.wav")), Teacher(), blocked)


@pytest.mark.parametrize("stage", [staged_file, staged_directory])
def test_conversion_checks_its_output_before_it_works(blocked, stage):
    with pytest.raises(OSError, match="output|file"), stage(blocked):
        pytest.fail("work had begun")


# Full disks


def test_embedding_on_a_full_disk_leaves_finished_shards(clips, tiny_checkpoint, tmp_path):
    def work(folder: Path) -> None:
        embed_dataset([clips], folder, tiny_checkpoint, **OPTIONS)

    work(tmp_path / "straight")
    shards = sorted((tmp_path / "straight").glob("train-*.parquet"))
    lengths = [path.stat().st_size for path in shards]
    assert lengths[0] < max(lengths)
    assert status_under_limit(work, tmp_path / "full", max(lengths) - 1) == 3
    left = sorted((tmp_path / "full").glob("train-*.parquet"))
    assert 0 < len(left) < len(shards)
    assert not list((tmp_path / "full").glob(".train-*"))  # nothing half written
    work(tmp_path / "full")  # with room again
    for path in shards:
        assert pq.read_table(path).equals(pq.read_table(tmp_path / "full" / path.name))


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    runner.write_json(path, {"old": 1})

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        runner.write_json(path, {"new": 2})
    monkeypatch.undo()
    assert path.read_text() == '{\n "old": 1\n}\n'


def test_a_staged_file_on_a_full_disk_leaves_the_old_one(tmp_path):
    path = tmp_path / "codes.npy"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"), staged_file(path) as staging:
        staging.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


# Signals


def end_by_signal(command: list[str], number: signal.Signals, folder: Path, works: Callable[[], object]) -> None:
    """Runs a command that writes to `folder` until it works, ends it, and looks at how it ends."""
    command = [sys.executable, "-m", "mert_hf.cli", *command]
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored below a shell's background job
    )
    while not works():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode in ((128 + number,) if number == signal.SIGTERM else (1, 130))
    assert "Traceback" not in errors
    assert [path.name for path in folder.rglob(".*") if path.name != ".lock"] == []  # nothing half written


SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.mark.slow
@SIGNALS
def test_a_signal_ends_labelling_cleanly(clips, tmp_path, number):
    teacher, music = tmp_path / "teacher", tmp_path / "music"
    music.mkdir()
    for index in range(200):
        os.link(clips / "11.wav", music / f"{index:03d}.wav")
    sets = [{"name": "log_mel", "num_clusters": 8}]
    KMeansTeacher.fit([sweep(3.0, 16000, channels=1)[:, 0]], sets, 16000, show_progress_bar=False).save_pretrained(
        teacher
    )
    command = [
        "label",
        "--data",
        str(music),
        "--teacher",
        str(teacher),
        "--output",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    end_by_signal(command, number, tmp_path / "out", lambda: [*tmp_path.glob("out/codes/*/*.npy")])
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["complete"] is False
    done = len(list((tmp_path / "out").rglob("*.npy")))
    assert 0 < done < 200
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"{200 - done} recordings labeled, {done} existed already, 0 failed" in result.stdout


@pytest.mark.slow
@SIGNALS
@pytest.mark.parametrize("recordings", [1, 12], ids=["features", "probes"])
def test_a_signal_ends_evaluation_cleanly(clips, tiny_checkpoint, tmp_path, number, recordings):
    command = ["evaluate", "audiofolder", "--data", str(clips), "--target", "kind", "--model", str(tiny_checkpoint)]
    command += ["--output", str(tmp_path / "results.json"), "--cache-dir", str(tmp_path / "cache"), "--device", "cpu"]
    command += ["--window", "1", "--batch-size", "1", "--learning-rates", "1e-5,1e-4"]

    def index() -> str:
        return "".join(path.read_text() for path in (tmp_path / "cache").rglob("index.jsonl"))

    end_by_signal(command, number, tmp_path / "cache", lambda: index().count("\n") >= recordings)
    assert not (tmp_path / "results.json").exists()
    done = index()
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert index().startswith(done) and index().count("\n") == 12
    assert json.loads((tmp_path / "results.json").read_text())["kind"] == "classification"


@pytest.mark.slow
@SIGNALS
def test_a_signal_ends_embedding_cleanly(clips, tiny_checkpoint, tmp_path, number):
    music = tmp_path / "music"
    music.mkdir()
    for index in range(24):  # more than a fast machine embeds between two looks at the folder
        os.link(clips / f"{index % 12:02d}.wav", music / f"{index:02d}.wav")
    command = ["embed", str(music), "--output", str(tmp_path / "out"), "--model", str(tiny_checkpoint)]
    command += ["--device", "cpu", "--batch-size", "1", "--window", "0.1", "--dtype", "float32"]
    end_by_signal(command, number, tmp_path / "out", lambda: [*tmp_path.glob("out/train-*.parquet")])
    options = {**OPTIONS, "window": 0.1, "batch_size": 1}
    embed_dataset([music], tmp_path / "out", tiny_checkpoint, **options)
    embed_dataset([music], tmp_path / "straight", tiny_checkpoint, **options)
    shards = sorted((tmp_path / "straight").glob("train-*.parquet"))
    assert len(shards) > 1
    for path in shards:
        assert pq.read_table(path).equals(pq.read_table(tmp_path / "out" / path.name))


@SIGNALS
def test_a_signal_is_not_lost_in_a_destructor(tmp_path, number):
    work = """
        import os, signal, sys, time
        import mert_hf.cli.app

        command_line = sys.modules["mert_hf.cli.app"]

        class Writer:
            def __del__(self):
                os.kill(os.getpid(), signal.Signals(%d))
                time.sleep(0.1)  # the handler runs at the latest here

        def app():
            Writer()
            time.sleep(30)
            print("went on")

        signal.signal(signal.SIGINT, signal.default_int_handler)
        command_line.app = app
        command_line.main()
    """
    command = [sys.executable, "-c", textwrap.dedent(work % number)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT), result.stderr
    assert "went on" not in result.stdout and "Exception ignored" not in result.stderr
