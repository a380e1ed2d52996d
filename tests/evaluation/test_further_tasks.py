"""Chords, structure and versions of works, from data to results, on synthesized music that is easy to tell apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.evaluation import evaluate, load_results
from mert_hf.evaluation.tasks import get_task

from .synthesis import RATE, note, sequence, tune, write

SPLITS = {"train": 10, "val": 3, "test": 4}
TRIADS = {"C:maj": (60, 64, 67), "A:min": (57, 60, 64), "F:maj": (53, 57, 60), "G:maj": (55, 59, 62)}


def triad(name: str, seconds: float) -> np.ndarray:
    return sum(note(pitch, seconds) for pitch in TRIADS[name])


@pytest.fixture(scope="module")
def chords(tmp_path_factory):
    """Songs of four chords of 1 to 2 s each, as MARBLE v2's tables; a silent start is no chord."""
    root, generator = tmp_path_factory.mktemp("chords"), np.random.default_rng(0)
    for split, size in SPLITS.items():
        lines = []
        for number in range(size):
            names = [list(TRIADS)[index] for index in generator.permutation(4)]
            lengths = [0.5, *generator.uniform(1.0, 2.0, 4).round(2)]
            edges = np.concatenate([[0.0], np.cumsum(lengths)])
            audio = [np.zeros(round(0.5 * RATE), np.float32), *map(triad, names, lengths[1:])]
            path = f"data/Chords1217/audio/{split}{number}.wav"
            write(root / path, np.concatenate(audio))
            segments = zip(edges[:-1], edges[1:], ["N", *names], strict=True)
            label = [{"start_time": a, "end_time": b, "chord_str": name} for a, b, name in segments]
            lines.append(json.dumps({"audio_path": path, "label": label}))
        (root / f"data/Chords1217/Chords1217.{split}.jsonl").write_text("\n".join(lines) + "\n")
    return root / "data" / "Chords1217"


def test_chords(chords, fast, tmp_path):
    output = tmp_path / "results.json"
    results = evaluate("chords1217", chords, "chroma", output, fast(max_epochs=12), cache_dir=tmp_path / "cache")
    assert results["metric"] == "chord_majmin" and results["metrics"]["chord_majmin"]["mean"] > 0.8
    assert set(results["metrics"]) == {"chord_majmin", "chord_root", "chord_mirex"}
    low, high = results["metrics"]["chord_majmin"]["interval"]
    assert low <= results["metrics"]["chord_majmin"]["mean"] <= high
    assert len(load_results([output])) == 1


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Songs of three parts with different chords and instruments, annotated in `.lab` and in SALAMI's form."""
    root, generator = tmp_path_factory.mktemp("structure"), np.random.default_rng(1)
    (root / "annotations").mkdir()
    for number in range(16):
        lengths = generator.uniform(6.5, 8.0, 3).round(1)
        edges = np.concatenate([[0.0], np.cumsum(lengths)])
        parts = [
            sequence(np.full(round(seconds / 0.1), pitch), 0.1, instrument)
            for seconds, pitch, instrument in zip(lengths, (45, 62, 79), ("string", "mallet", "flute"), strict=True)
        ]
        write(root / "audio" / f"{number:02d}.flac", np.concatenate(parts))
        if number % 2:
            lines = [f"{a:.1f} {b:.1f} part {i}" for i, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True))]
            (root / "annotations" / f"{number:02d}.lab").write_text("\n".join(lines))
        else:
            lines = [f"{time:.1f}\t{name}" for time, name in zip(edges, ("A", "B", "C", "End"), strict=True)]
            (root / "annotations" / f"{number:02d}.txt").write_text("\n".join(lines))
    write(root / "audio" / "unlabeled.flac", note(60, 1.0))
    return root


def test_structure(songs, fast, tmp_path, caplog):
    results = evaluate("structure", songs, "mfcc", None, fast(max_epochs=8), cache_dir=tmp_path)
    assert results["metrics"]["boundary_f1_3s"]["mean"] > 0.5
    assert "unlabeled (no annotation)" in caplog.text
    assert sum(results["data"]["recordings"].values()) == 16


def test_structure_with_lists(songs):
    lists = {"train": range(8), "valid": range(8, 11), "test": range(11, 14)}
    for split, numbers in lists.items():
        (songs / f"{split}.txt").write_text("".join(f"{number:02d}.flac\n" for number in numbers))
    try:
        data = get_task("structure").load(songs)
    finally:
        for split in lists:
            (songs / f"{split}.txt").unlink()
    assert [len(data.split(split)) for split in ("train", "valid", "test")] == [8, 3, 3]


@pytest.fixture(scope="module")
def works(tmp_path_factory):
    """Works in different keys; the versions of a work share its key and differ in melody."""
    root, generator = tmp_path_factory.mktemp("versions"), np.random.default_rng(2)
    for tonic in range(12):
        for version in ("first", "second", "third")[: 2 + tonic % 2]:
            write(root / "covers" / f"work {tonic:02d}" / f"{version}.wav", tune(tonic, "major", generator, 3.0))
    write(root / "covers" / "alone" / "only.wav", tune(3, "minor", generator, 2.0))
    return root


def test_versions_of_works(works, fast, tmp_path, caplog):
    data = get_task("versions").load(works)
    assert "alone (one recording)" in caplog.text and not data.split("train")
    assert len(data.split("valid")) + len(data.split("test")) == 30
    settings = fast(layers=[0])
    results = evaluate("versions", works, "chroma", tmp_path / "chroma.json", settings, cache_dir=tmp_path / "cache")
    assert results["metrics"]["mean_average_precision"]["mean"] > 0.6
    assert results["metrics"]["top1"]["mean"] <= 1.0 and results["selected"]["layer"] == 0


def test_versions_with_deformed_queries(works, fast, tmp_path):
    settings = fast(layers=[0], deformations=["gain:-6", "noise:-20"])
    results = evaluate("versions", works, "chroma", None, settings, cache_dir=tmp_path / "cache")
    gain, noisy = (entry["metrics"]["mean_average_precision"]["mean"] for entry in results["deformed"])
    clean = results["metrics"]["mean_average_precision"]["mean"]
    assert gain == pytest.approx(clean, abs=0.01) and noisy < clean - 0.2
    with pytest.raises(ValueError, match="trains no probe"):
        evaluate("versions", works, "chroma", None, fast(shots=[1]), cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match="no average of layers is learned"):
        evaluate("versions", works, "chroma", None, fast(layers=["weighted"]), cache_dir=tmp_path / "cache")


def test_excerpts_of_the_same_recording(tmp_path):
    """`--kind retrieval` on a folder with a column that names the recording."""
    generator, lines = np.random.default_rng(3), ["file_name,recording,split"]
    for tonic, split in enumerate(("train", "valid", "valid", "test", "test", "test", "test")):
        for excerpt in range(3):
            name = f"{tonic}-{excerpt}.wav"
            write(tmp_path / "excerpts" / name, tune(tonic, "major", generator, 2.0))
            lines.append(f"{name},recording {tonic},{split}")
    (tmp_path / "excerpts" / "metadata.csv").write_text("\n".join(lines))
    words = ["evaluate", "audiofolder", "--data", str(tmp_path / "excerpts"), "--target", "recording", "--quiet"]
    words += ["--kind", "retrieval", "--output", str(tmp_path / "r.json"), "--cache-dir", str(tmp_path / "cache")]
    for model in ("mel", "mfcc", "chroma", "handmade"):
        done = CliRunner().invoke(app, [*words, "--model", model])
        assert done.exit_code == 0 and "mean_average_precision" in done.output
        (results,) = load_results([tmp_path / "r.json"])
        assert 0.3 < results["metrics"]["mean_average_precision"]["mean"] <= 1.0
        assert results["data"]["recordings"] == {"train": 3, "valid": 6, "test": 12}


def test_further_tasks_say_what_they_looked_for(tmp_path):
    for name in ("chords1217", "structure", "versions"):
        with pytest.raises(ValueError, match=f"looked for {tmp_path}|contains no recordings"):
            get_task(name).load(tmp_path)
    assert get_task("covers80").name == "versions" and get_task("chords").name == "chords1217"
