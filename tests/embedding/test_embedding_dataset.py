"""The Parquet data set of `mert-hf embed`: content, failures, resumption, refusals."""

from __future__ import annotations

import csv
import logging
import os
import shutil

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from sounds import sweep, write
from typer.testing import CliRunner

from mert_hf import MERTEmbedder, MERTModel
from mert_hf.audio import find_audio_files
from mert_hf.cli.app import app
from mert_hf.embedding import dataset as embedding_dataset
from mert_hf.embedding import shards as embedding_shards
from mert_hf.embedding.dataset import embed_dataset
from mert_hf.embedding.settings import embedding_layers
from mert_hf.embedding.windows import recording_windows


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def run(tiny_checkpoint, tmp_path):
    """Runs with the tiny model on the CPU; returns the summary."""

    def embed(paths, output="out", **arguments):
        arguments = {"model": tiny_checkpoint, "device": "cpu", "show_progress_bar": False, **arguments}
        return embed_dataset(paths, tmp_path / output, **arguments)

    return embed


def rows(folder) -> dict[str, np.ndarray]:
    return datasets.load_dataset(str(folder), split="train").with_format("numpy")[:]


def assert_same(folder, other) -> None:
    one, two = rows(folder), rows(other)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def failures(folder) -> list[str]:
    with open(folder / "errors.csv", newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


def test_rows_are_the_embedder_s(run, embedder, recordings, tmp_path):
    summary = run(recordings, layers=[1, -1], hop=2.5)
    expected = embedder.encode(recordings, layers=[1, -1], hop=2.5, show_progress_bar=False)
    found = rows(tmp_path / "out")
    windows = sum(len(result.start) for result in expected)
    assert (summary.files, summary.windows, summary.rows, summary.failed) == (5, windows, 2 * windows, ())
    assert summary.seconds == pytest.approx(26.2)
    assert found["path"].tolist() == [result.path for result in expected for _ in range(2 * len(result.start))]
    assert found["layer"].tolist() == [1, 3] * windows
    for column in ("start", "end"):
        values = np.concatenate([getattr(result, column) for result in expected])
        np.testing.assert_allclose(found[column], np.repeat(values, 2), rtol=1e-6)
    values = np.concatenate([result.embeddings for result in expected]).reshape(-1, 32)
    np.testing.assert_allclose(found["embedding"], values, atol=1e-5)
    assert not (tmp_path / "out" / "errors.csv").exists()


def test_every_way_of_loading(run, recordings, tmp_path):
    summary = run(recordings)
    folder = str(tmp_path / "out")
    for arguments in ({"path": folder}, {"path": "parquet", "data_dir": folder}):
        assert len(datasets.load_dataset(**arguments, split="train")) == summary.rows
    files = {"train": f"{folder}/*.parquet"}
    assert len(datasets.load_dataset("parquet", data_files=files, split="train")) == summary.rows
    streamed = next(iter(datasets.load_dataset(folder, split="train", streaming=True)))
    assert (streamed["path"], streamed["layer"], len(streamed["embedding"])) == (str(recordings[0]), 0, 32)


def test_pandas_reads_the_folder(run, recordings, tmp_path):
    import pandas

    summary = run(recordings, layers=[1])
    table = pandas.read_parquet(tmp_path / "out")  # in which the card and the plan are not Parquet
    assert len(table) == summary.rows == len(rows(tmp_path / "out")["path"])
    assert list(table.columns) == ["path", "start", "end", "layer", "embedding"]
    assert np.stack(table["embedding"]).shape == (summary.rows, 32)


def test_frames_in_float16(run, embedder, recordings, tmp_path):
    run(recordings[:2], layers=2, pooling="frames", store_dtype="float16")
    expected = embedder.encode(recordings[:2], layers=2, pooling="frames", show_progress_bar=False)
    data = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert data.features["embedding"].feature.feature.dtype == "float16"
    found = data.with_format("numpy")[:]
    values = np.concatenate([np.asarray(frames) for frames in found["embedding"]])
    np.testing.assert_allclose(values, np.concatenate([result.embeddings for result in expected]), atol=5e-3)
    times = np.concatenate([np.asarray(times, np.float64) for times in found["frame_times"]])
    np.testing.assert_allclose(times, np.concatenate([result.frame_times for result in expected]), atol=1e-5)


@pytest.mark.parametrize("group_bytes", [1, 2**25])
def test_damaged_files_leave_the_good_ones(run, recordings, damaged, tmp_path, group_bytes, monkeypatch, caplog):
    monkeypatch.setattr(embedding_shards, "GROUP_BYTES", group_bytes)  # 1: every window leaves memory at once
    with caplog.at_level(logging.INFO):
        summary = run([*recordings, *damaged], batch_size=3)
    assert [file.path for file in summary.failed] == [str(path) for path in damaged]
    assert failures(tmp_path / "out") == [str(path) for path in damaged]
    assert "letter.mp3: not audio" in caplog.text  # in the log, which a terminal does not show: it has the summary
    assert all(record.levelno < logging.WARNING for record in caplog.records if "letter.mp3" in record.message)
    run(recordings, "good", batch_size=3)
    one, two = rows(tmp_path / "out"), rows(tmp_path / "good")
    assert one["path"].tolist() == sorted(two["path"].tolist())
    np.testing.assert_allclose(one["embedding"], two["embedding"], atol=1e-5)
    text = summary.text(tmp_path / "out")
    assert "5 of 9 files, 8 windows, 32 rows" in text
    assert f"{damaged[2]}: too short: 200 samples" in text
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]


def test_only_damaged_files(run, damaged, tmp_path):
    summary = run(damaged)
    assert (summary.rows, len(summary.failed)) == (0, 4)
    assert failures(tmp_path / "out") == [str(path) for path in damaged]


def test_whatever_a_file_does_the_others_go_on(run, embedder, recordings, tmp_path, monkeypatch, caplog):
    def strange(encoder, path, **arguments):
        if path.endswith("c.wav"):
            raise ZeroDivisionError("nobody thought of this")
        return recording_windows(encoder, path, **arguments)

    monkeypatch.setattr(embedding_dataset, "recording_windows", strange)
    summary = run(recordings)
    assert [file.error for file in summary.failed] == ["ZeroDivisionError: nobody thought of this"]
    assert len(set(rows(tmp_path / "out")["path"])) == 4
    assert "Traceback" in caplog.text


def test_names_that_are_no_utf8(run, recordings, damaged, tmp_path):
    folder = os.fsencode(tmp_path / "names")
    os.mkdir(folder)
    shutil.copy(recordings[1], folder + b"/\xff.wav")
    shutil.copy(damaged[0], folder + b"/\xfe.wav")
    summary = run([os.fsdecode(folder)])
    assert len(summary.failed) == 1
    assert set(rows(tmp_path / "out")["path"]) == {f"{tmp_path}/names/\\udcff.wav"}
    assert failures(tmp_path / "out") == [f"{tmp_path}/names/\\udcfe.wav"]
    assert "\\udcfe.wav: the file is empty" in summary.text("out")
    assert run([os.fsdecode(folder)]).seconds == 0


class Interrupted(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for index in range(30):
        write(folder / f"{index:02d}.wav", sweep(1.0 + 0.1 * index, 8000, channels=1), 8000)
    (folder / "07.wav").write_text("no music")
    return folder


def interrupt_after(monkeypatch, batches: int) -> None:
    """Lets the model fail after some batches, until the patch is undone."""
    forward, count = MERTModel.forward, iter(range(batches))

    def failing(self, *arguments, **keywords):
        if next(count, None) is None:
            raise Interrupted
        return forward(self, *arguments, **keywords)

    monkeypatch.setattr(MERTModel, "forward", failing)


def test_an_interrupted_run_continues(run, clips, tmp_path, monkeypatch):
    run([clips], "whole", batch_size=4)
    assert len(list((tmp_path / "whole").glob("*.parquet"))) == 8
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_after(patch, 5)
        run([clips], batch_size=4)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    assert 0 < len(done) < 8
    (tmp_path / "out" / ".train-00004.parquet.partial").write_text("left by a killed run")
    summary = run([clips], batch_size=4)
    assert {path: path.stat().st_mtime_ns for path in done} == done  # nothing is done twice
    assert len(summary.failed) == 1
    assert_same(tmp_path / "out", tmp_path / "whole")
    assert failures(tmp_path / "out") == [str(clips / "07.wav")]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "whole"))


def test_a_finished_run_does_nothing_again(run, clips, monkeypatch):
    first = run([clips])
    interrupt_after(monkeypatch, 0)
    second = run([clips])
    assert (second.windows, second.rows, second.failed) == (first.windows, first.rows, first.failed)
    assert second.seconds == 0


def test_a_mended_file_is_embedded(run, clips, tmp_path):
    run([clips], batch_size=4)
    write(clips / "07.wav", sweep(1.0, 8000, channels=1), 8000)
    summary = run([clips], batch_size=4)
    assert (summary.failed, summary.windows) == ((), 30)
    assert not (tmp_path / "out" / "errors.csv").exists()
    run([clips], "whole", batch_size=4)
    assert rows(tmp_path / "out")["path"].tolist() == rows(tmp_path / "whole")["path"].tolist()


def test_new_files_are_added_and_failed_ones_may_go(run, clips, tmp_path):
    run([clips], batch_size=4)
    (clips / "07.wav").unlink()
    shutil.copy(clips / "00.wav", clips / "00b.wav")
    summary = run([clips], batch_size=4)
    assert (summary.files, summary.windows, summary.failed) == (30, 30, ())
    assert sorted(set(rows(tmp_path / "out")["path"])) == sorted(map(str, find_audio_files(clips)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 3.0}, r"window: 5\.0 there, 3\.0 now; hop: 5\.0 there, 3\.0 now"),
        ({"layers": 1}, r"layers: \[0, 1, 2, 3\] there, \[1\] now"),
        ({"pooling": "frames"}, "pooling: 'mean' there, 'frames' now"),
        ({"dtype": "bfloat16"}, r"\(dtype: 'float32' there, 'bfloat16' now\)"),
        ({"store_dtype": "float16"}, "store_dtype: 'float32' there"),
    ],
)
def test_other_settings_are_refused(run, recordings, change, message):
    run(recordings[:1])
    with pytest.raises(ValueError, match=f"made with other settings.*{message}.*choose another folder"):
        run(recordings[:1], **change)


def test_another_model_is_refused_and_a_moved_one_is_not(run, recordings, tiny_checkpoint, tiny_config, tmp_path):
    run(recordings[:1])
    moved = shutil.copytree(tiny_checkpoint, tmp_path / "moved")
    assert run(recordings[:1], model=moved).seconds == 0
    MERTModel(tiny_config()).save_pretrained(moved)
    with pytest.raises(ValueError, match="fingerprint"):
        run(recordings[:1], model=moved)


def test_other_content_is_refused(run, recordings, tmp_path):
    run(recordings)
    with pytest.raises(ValueError, match=r"embeddings of 4 recordings that are not among the paths now"):
        run(recordings[:1])
    (tmp_path / "foreign").mkdir()
    shutil.copy(tmp_path / "out" / "train-00000.parquet", tmp_path / "foreign" / "mine.parquet")
    with pytest.raises(FileExistsError, match="holds mine.parquet, but no _embedding_run.json of an earlier run"):
        run(recordings, "foreign")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "_README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="holds _README.md, but no"):
        run(recordings, "notes")
    assert (tmp_path / "notes" / "_README.md").read_text() == "mine"
    with pytest.raises(ValueError, match="store_dtype='int8' must be one of float32, float16"):
        run(recordings, "new", store_dtype="int8")


def test_values_that_float16_cannot_hold(tmp_path, embedder, recordings):
    schema = embedding_shards.embedding_schema(2, "mean", "float16")
    window = next(recording_windows(embedder.encoder, recordings[1]))
    with embedding_shards.ShardWriter(tmp_path / "train-00000.parquet", schema, (0,)) as writer:
        with pytest.raises(ValueError, match="Embeddings reach 70000, more than float16 holds"):
            writer.add("a.wav", window, np.array([[1.0, 7e4]], np.float32))
    assert os.listdir(tmp_path) == []


def test_shards_grow_with_the_collection():
    files = [embedding_dataset.PlannedFile(str(index), seconds=10.0) for index in range(40_000)]
    plan = embedding_dataset._divide(files, hop=5.0, batch_size=16, processes=1)
    assert len(plan) <= embedding_dataset.LARGEST_NUMBER_OF_SHARDS
    assert [file for shard in plan for file in shard] == files
    few = embedding_dataset._divide(files[:100], hop=5.0, batch_size=4, processes=2)
    assert len(few) >= 2 * embedding_dataset.SHARDS_PER_PROCESS - 2


def test_mistyped_paths_alone_are_refused_before_anything_is_made(run, recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(MERTEmbedder, "from_pretrained", lambda *arguments, **options: pytest.fail("work had begun"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no such file or folder: a.wav, b. Check .* begin at {tmp_path}"):
        run(["b", "a.wav"])
    many = [f"{index:02d}.wav" for index in range(25)]
    with pytest.raises(FileNotFoundError, match="18.wav, 19.wav and 5 more. Check"):
        run(many)
    assert not (tmp_path / "out").exists()


def test_mistyped_paths_among_good_ones_are_listed(run, recordings, tmp_path):
    summary = run([recordings[1], tmp_path / "mistyped.wav"])
    assert failures(tmp_path / "out") == [file.path for file in summary.failed] == [str(tmp_path / "mistyped.wav")]
    assert summary.windows == 1


def test_layers_of_the_command_line():
    assert embedding_layers("all") == "all"
    assert embedding_layers("5,7,-1") == [5, 7, -1]
    with pytest.raises(ValueError, match="layers='5;7' must be"):
        embedding_layers("5;7")
    with pytest.raises(ValueError, match="layers='weighted' must be all, or numbers"):
        embedding_layers("weighted")


def test_command(recordings, damaged, tiny_checkpoint, tmp_path):
    out = tmp_path / "out"
    arguments = [
        "embed",
        str(recordings[0].parent),
        str(damaged[0]),
        "--model",
        str(tiny_checkpoint),
        "--device",
        "cpu",
    ]
    arguments += ["--output", str(out), "--layers", "1,-1", "--window", "4", "--hop", "2", "--batch-size", "3"]
    arguments += ["--device", "cpu", "--workers", "1", "--dtype", "float32", "--store-dtype", "float16"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "5 of 6 files" in result.stdout
    assert "1 files failed, see" in result.stdout
    assert "x real time" in result.output
    assert "1 of 6 recordings cannot be used, and max_bad_files=0 tolerates 0." in result.stderr
    assert CliRunner().invoke(app, [*arguments, "--max-bad-files", "1"]).exit_code == 0
    assert failures(out) == [str(damaged[0])]
    assert set(rows(out)["layer"]) == {1, 3}
    assert pq.read_schema(out / "train-00000.parquet").names == ["path", "start", "end", "layer", "embedding"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "x"], "layers='x' must be all"),
        (["--pooling", "max"], "pooling='max' must be one of"),
        (["--window", "0"], "window=0.0 must be"),
        (["--batch-size", "0"], "batch_size=0 must be at least 1"),
        (["--workers", "0"], "workers=0 must be at least 1"),
        (["--dtype", "int8"], "dtype='int8' must be one of"),
        (["nowhere/*.wav"], "matches no file"),
        (["--output", __file__], f"{__file__} is a file. Choose another folder"),
    ],
)
def test_command_tells_errors_in_a_line(recordings, tiny_checkpoint, tmp_path, arguments, message):
    command = ["embed", str(recordings[0]), "--model", str(tiny_checkpoint), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--device", "cpu", *arguments])
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
