"""The quickstart in miniature: from scores to the page, with and without the bundled checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sounds import sweep, write
from transformers import AutoModel
from typer.testing import CliRunner

import mert_hf.quickstart.excerpts as excerpts
import mert_hf.quickstart.run as quickstart
from mert_hf.hub.names import DEFAULT_CHECKPOINT
from mert_hf.pretraining.callbacks import TimedScheduleCallback
from mert_hf.pretraining.resuming import last_complete_checkpoint
from mert_hf.quickstart.pieces import Note, Piece, load_pieces, split_of
from mert_hf.quickstart.report import (
    EmbeddedLibrary,
    Form,
    QuickstartReport,
    Score,
    curve_figure,
    markdown,
    score_table,
    write_report,
)
from mert_hf.quickstart.run import run_quickstart
from mert_hf.quickstart.settings import QuickstartSettings

for package in ("midirenderer", "pretty_midi", "sklearn", "matplotlib"):
    pytest.importorskip(package, reason="the extra `quickstart` is not installed")

SCORES = {
    "families": {"this run": Score(0.61, 0.5, 0.7), "mfcc": Score(0.3, 0.2, 0.4)},
    "same piece": {"this run": Score(0.4, 0.3, 0.5), "mfcc": Score(0.6, 0.5, 0.7)},
}


def scale(name: str, minor: bool) -> Piece:
    steps = [0, 2, 3, 5, 7, 8, 10, 12] if minor else [0, 2, 4, 5, 7, 9, 11, 12]
    return Piece(name, 0, minor, tuple(Note(float(i), 1.0, 60 + step, 0) for i, step in enumerate(steps * 6)))


@pytest.fixture
def few_pieces(monkeypatch):
    """Two scales of each mode in each split, in place of the scores."""
    pieces, count = [], {(split, minor): 0 for split in ("train", "valid", "test") for minor in (False, True)}
    for index in range(400):
        key = (split_of(f"scale {index}"), index % 2 == 1)
        if count[key] < 2:
            count[key] += 1
            pieces.append(scale(f"scale {index}", key[1]))
    monkeypatch.setattr(excerpts, "load_pieces", lambda *args: pieces)


def miniature(output: Path, **changes) -> QuickstartSettings:
    numbers = {"minutes": 0.02, "pretraining_excerpts": 12, "chords": 384, "performances": 4}
    numbers |= {"teacher_clips": 8, "workers": 1, "probe_every": 5}
    return QuickstartSettings(output=output, crop_seconds=1.0, progress=False, **{**numbers, **changes})


def test_the_readme_of_another_folder_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="holds README.md, but no scores of an earlier run"):
        run_quickstart(miniature(tmp_path))
    assert (tmp_path / "README.md").read_text() == "mine"


def test_quickstart_runs_the_full_pipeline(few_pieces, tmp_path):
    page = run_quickstart(miniature(tmp_path, minutes=60, steps=10, learning_rate=1e-3))
    text = (tmp_path / "README.md").read_text()
    for heading in ("## What was learned", "## What the features know", "## The objective"):
        assert heading in text
    html = page.read_text()
    assert page.name == "report.html" and html.count("<img ") == 5
    assert html.count("<audio ") == 3 * 6
    assert "http" not in html.replace("http-equiv", "")  # nothing is fetched
    assert "identical output" in text and "after 10 updates" in text
    assert f'href="{DEFAULT_CHECKPOINT}.md"' in html and "chroma" in (tmp_path / f"{DEFAULT_CHECKPOINT}.md").read_text()
    for name in ("model/README.md", "model/model.safetensors", "model/config.json"):
        assert (tmp_path / name).stat().st_size > 500
    history = json.loads((tmp_path / "model" / "training_log.json").read_text())
    assert [entry["step"] for entry in history if "probe_audiofolder_accuracy" in entry] == [5, 10]
    rates = [entry["learning_rate"] for entry in history if "learning_rate" in entry]
    assert rates == [pytest.approx(1e-3 * 10 / 50, rel=1e-2)]  # the tenth of 50 updates of warm-up
    model = AutoModel.from_pretrained(tmp_path / "model")
    assert model(torch.zeros(1, 24000)).last_hidden_state.shape[-1] == model.config.hidden_size


def test_no_piece_of_the_test_split_is_trained_on(few_pieces, tmp_path):
    folders = quickstart.render_scores(miniature(tmp_path))
    pieces = {name: (folder / "metadata.csv").read_text() for name, folder in folders.items()}
    assert ",test" not in pieces["pretraining"]
    assert all(f",{split}" in pieces["chords"] for split in ("train", "valid", "test"))
    assert (
        all(f",{split}" in pieces["performances"] for split in ("valid", "test"))
        and ",train" not in pieces["performances"]
    )


def test_a_killed_run_has_the_rest_of_its_time(few_pieces, tmp_path, monkeypatch):
    """The second run continues from the last checkpoint and counts the seconds that it holds."""
    monkeypatch.setattr(quickstart, "SAVE_EVERY", 2)
    settings = miniature(tmp_path, minutes=60)
    data = quickstart.render_scores(settings)["pretraining"]
    teachers = quickstart.fit_teachers(settings, data)
    labels = quickstart.label_recordings(settings, data, teachers)

    def train(steps, minutes):
        asked = replace(settings, steps=steps, minutes=minutes)
        trainer = quickstart.make_trainer(asked, data, teachers, labels)
        trainer.train(resume_from_checkpoint=last_complete_checkpoint(trainer.args.output_dir))
        return trainer

    checkpoint = Path(last_complete_checkpoint(train(2, 60).args.output_dir))
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    state["stateful_callbacks"]["TimedScheduleCallback"]["attributes"]["elapsed"] = 1000.0
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    trainer = train(3, 90)
    timer = next(item for item in trainer.callback_handler.callbacks if isinstance(item, TimedScheduleCallback))
    assert trainer.state.global_step == 3 and 1000 < timer.elapsed < 1600
    assert timer.minutes == 90, "the length is that of the second command"


def test_best_of_a_task_is_bold():
    lines = score_table(SCORES).splitlines()
    assert lines[2] == "| this run | **0.610** [0.500, 0.700] | 0.400 [0.300, 0.500] |"
    assert lines[3] == "| mfcc | 0.300 [0.200, 0.400] | **0.600** [0.500, 0.700] |"


@pytest.fixture
def report(library) -> QuickstartReport:
    return QuickstartReport(
        title="Title",
        facts=["a fact"],
        curve=[(0, 0.2), (5, 0.4), (9, 0.61)],
        scores=SCORES,
        chance=1 / 12,
        library=library,
        form=Form("song", np.eye(3), 9.0),
        objective=[("cqt loss", 1.0, 0.5, 0.9)],
        history=[{"step": 1, "loss": 2.0, "cqt_loss": 1.0, "codebook_0_loss": 3.0}, {"step": 1, "eval_loss": 2.0}],
    )


def test_the_curve_stands_next_to_what_it_must_beat(report):
    assert report.learned == (
        "Accuracy of families by nearest neighbors: 0.20 untrained, 0.61 after 9 updates. On the same recordings: mfcc "
        "0.30, guessing 0.08."
    )
    (axes,) = curve_figure(report).axes
    curve, *lines = axes.lines
    np.testing.assert_allclose(curve.get_xydata(), report.curve)
    levels = {line.get_label(): line.get_ydata()[0] for line in lines}
    assert levels == {"untrained": 0.2, "mfcc": 0.3, "guessing": 1 / 12}


@pytest.fixture
def library(tmp_path) -> EmbeddedLibrary:
    """Six recordings in two groups of nearly equal vectors."""
    vectors = np.array([[1, 0.1 * k] for k in range(3)] + [[-1, 0.1 * k] for k in range(3)], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    paths = [write(tmp_path / f"{index}.wav", sweep(0.5, 24000), 24000) for index in range(6)]
    return EmbeddedLibrary(paths, [f"song <{index // 3}>" for index in range(6)], vectors)


def test_page_has_every_part(tmp_path, report):
    page = write_report(report, tmp_path / "out")
    html = page.read_text()
    assert "<td>cqt loss</td><td>1.000</td><td>0.500</td><td>0.900</td>" in html
    assert "song &lt;1&gt;" in html and "song <1>" not in html
    assert html.count("data:image/png;base64,") == 5 and html.count("data:audio/mpeg;base64,") == 2 * 6
    summary = (tmp_path / "out" / "README.md").read_text()
    assert summary == markdown(report) and "| cqt loss | 1.000 | 0.500 | 0.900 |" in summary


def test_neighbors_are_the_nearest_others(library):
    assert [index for index, _ in library.neighbors(0, 2)] == [1, 2]
    assert [index for index, _ in library.neighbors(5, 2)] == [4, 3]
    assert library.plane().shape == (6, 2)


def test_too_few_scores_are_refused(tmp_path):
    with pytest.raises(ValueError, match="read more"):
        run_quickstart(miniature(tmp_path, num_scores=2))


def test_an_output_that_is_a_file_is_refused_first(tmp_path):
    (tmp_path / "page").write_text("mine")
    with pytest.raises(NotADirectoryError, match="Choose another folder"):
        run_quickstart(miniature(tmp_path / "page"))


def test_command_has_its_options():
    from mert_hf.cli.app import app

    text = CliRunner().invoke(app, ["quickstart", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    for option in ("--output", "--performances", "--minutes", "--data"):
        assert option in text


def test_pieces_are_read_once(tmp_path, monkeypatch):
    pytest.importorskip("music21", reason="the extra `quickstart` is not installed")
    cache = tmp_path / "pieces.json"
    first = load_pieces(2, cache, workers=1, progress=False)
    monkeypatch.setattr("mert_hf.quickstart.pieces.score_paths", list)
    assert load_pieces(2, cache, workers=1, progress=False) == first
