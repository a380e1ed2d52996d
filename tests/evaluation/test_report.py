"""Reports: tables next to published figures, figures, model-index metadata; and the two commands."""

from __future__ import annotations

import copy
import csv
import json
import xml.etree.ElementTree as ElementTree
from functools import reduce
from html.parser import HTMLParser
from operator import getitem
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCardData
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.evaluation import (
    TASK_NAMES,
    EvaluationSettings,
    evaluate,
    load_results,
    measurements,
    model_index,
    write_report,
)
from mert_hf.evaluation.metrics.predictions import predictions_path, read_predictions
from mert_hf.evaluation.reports.report import (
    chance_text,
    choice_table,
    class_table,
    confusion,
    layer_table,
    summary_table,
)
from mert_hf.evaluation.tasks.published import MARBLE, SOURCES

from .synthesis import note, write

TASKS = ("gtzan_genre", "nsynth_pitch", "musdb18")
MODELS = {"chroma": "one", "mel": "two & <b>"}


@pytest.fixture(scope="module")
def files(miniature, tmp_path_factory):
    """Result files of two models on three tasks, one of them with deformed recordings and few recordings."""
    root, paths = tmp_path_factory.mktemp("results"), []
    for task in TASKS:
        curves = {"deformations": ["gain:-6", "gain:6"], "shots": [1, "all"]} if task == "gtzan_genre" else {}
        settings = EvaluationSettings(
            learning_rates=(5e-3,), seeds=(0, 1), max_epochs=2, resamples=50, fft_size=512, progress=False, **curves
        )
        for model, name in MODELS.items():
            paths.append(root / f"{task}-{model}.json")
            evaluate(task, miniature(task), model, paths[-1], settings, root / "cache", "cpu", name=name)
    return paths


@pytest.fixture
def results(files) -> list[dict]:
    return load_results(files)


@pytest.fixture(scope="module")
def page(files, tmp_path_factory) -> Path:
    """The report of all results."""
    return write_report(load_results(files), tmp_path_factory.mktemp("page") / "report")


def test_a_classification_shows_chance_classes_and_confusion(results, page):
    markdown = (page.parent / "report.md").read_text(encoding="utf-8")
    result = next(result for result in results if result["task"] == "gtzan_genre")
    counts = confusion(list(read_predictions(predictions_path(result["file"]), "classification").values()), 10)
    assert counts.sum() == pytest.approx(result["data"]["recordings"]["test"])
    accuracy = counts.diagonal().sum() / counts.sum()
    assert accuracy == pytest.approx(result["metrics"]["accuracy"]["mean"])
    assert "GTZAN genre, one: 10 classes, chance 10.0 % (guessing)" in markdown
    row = next(line for line in markdown.splitlines() if line.startswith("| blues |"))
    recall = 100 * counts[0, 0] / counts[0].sum()
    assert row.split(" | ")[1:3] == [f"{counts[0].sum():.0f}", f"{recall:.1f}"]
    assert page.read_text(encoding="utf-8").count("confusion of classes") == 4  # two models, genre and pitch
    assert "MUSDB18 separation, one: confusion" not in markdown


def test_a_class_that_is_never_predicted_or_never_tested():
    counts = np.array([[3.0, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert chance_text(counts) == "3 classes, chance 33.3 % (guessing), 75.0 % (always the largest class)"
    table = class_table(counts, ("a", "b", "c"), "x")
    assert [row[2:] for row in table.rows] == [
        ("100.0", "75.0", "85.7", "-"),
        ("0.0", "-", "0.0", "a"),
    ]


def shown(value: dict, scale: float = 100.0) -> str:
    low, high = (f"{end * scale:.1f}" for end in value["interval"])
    return f"{value['mean'] * scale:.1f} ± {value['std'] * scale:.1f} [{low}, {high}]"


class Text(HTMLParser):
    """Collects text and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report_is_written_with_figures(results, page):
    names = sorted(path.name for path in page.parent.iterdir())
    # ranks, scores by layer of two models, few recordings, gain, confusion of two models on two tasks
    assert names == [*(f"figure_{number}.svg" for number in range(9)), "report.html", "report.md"]
    for name in names[:9]:
        assert ElementTree.parse(page.parent / name).getroot().tag.endswith("svg")
    markdown = (page.parent / "report.md").read_text()
    plain = markdown.replace("**", "").replace(" ≈", "")
    one, two = (shown(result["metrics"]["accuracy"]) for result in results[:2])
    assert f"| GTZAN genre | accuracy | {one} | {two} | *74.8* | *77.6* | *78.6* | *79.3* | *91.7* |" in plain
    one, two = (shown(result["metrics"]["sdr_mean_vocals"], 1.0) for result in results[4:])
    assert f"| MUSDB18 separation | sdr_mean_vocals | {one} | {two} | *5.5* | *5.3* |" in plain
    assert "*MERT-v1-95M (MARBLE)*" in markdown and "*MERT-v1-95M (MERT paper)*" in markdown
    assert all(source.url in markdown for source in SOURCES)
    assert all(f"]({name})" in markdown for name in names[:9])
    assert "## GTZAN genre: few recordings" in markdown
    assert "## GTZAN genre: deformed test recordings, gain" in markdown


def test_page_is_well_formed_and_escapes_names(page):
    page = page.read_text()
    parser = Text()
    parser.feed(page)
    assert parser.open == []
    assert "two & <b>" in parser.text and "two & <b>" not in page
    assert page.count("<figure>") == 9 and 'class="published"' in page and "measured by others" in parser.text
    assert '<a href="https://arxiv.org/abs/2306.10548">MARBLE' in page and "<strong>Bold</strong>" in page


def test_the_same_results_give_the_same_files(results, page, tmp_path):
    assert write_report(results, tmp_path).read_text() == page.read_text()


def test_one_model_has_no_ranks_and_nothing_stressed(results, tmp_path):
    page = write_report(results[4:5], tmp_path)
    assert sorted(path.name for path in page.parent.glob("*.svg")) == ["figure_0.svg"]
    table = summary_table(results[::2])
    assert not any(cell.startswith("**") for row in table.rows for cell in row)
    assert {len(row) for row in table.rows} == {len(table.header)}


def test_single_seeds_have_no_spread(results):
    result = results[0]
    result["validation"]["accuracy"] = {"mean": 0.8, "std": None, "values": [0.8]}
    assert choice_table([result]).rows[0][4] == "80.0"


def test_layers_that_were_not_tested_say_so(results):
    result = results[0]
    result["layers"].append({**result["layers"][0], "layer": 1, "test": None})
    assert [row[-1] == "not measured" for row in layer_table(result).rows] == [False, True]


def test_the_last_result_of_a_task_and_model_counts(results, tmp_path):
    first = copy.deepcopy(results[0])
    first["metrics"]["accuracy"]["mean"] = 0.123
    write_report([first, results[0]], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert shown(results[0]["metrics"]["accuracy"]) in text and "12.3 ±" not in text
    assert len(model_index([first, results[0]])) == 1


def test_model_index_goes_into_a_card(results):
    entries = model_index(results[::2])
    metadata = ModelCardData(model_name="one", eval_results=entries).to_dict()["model-index"][0]["results"]
    genre, songs = (
        next(entry for entry in metadata if entry["dataset"]["type"] == task) for task in ("gtzan_genre", "musdb18")
    )
    assert genre["metrics"][0]["type"] == "accuracy"
    assert genre["metrics"][0]["value"] == pytest.approx(100 * results[0]["metrics"]["accuracy"]["mean"])
    median = results[4]["metrics"]["sdr_median"]
    assert songs["metrics"][0]["value"] == pytest.approx(median["mean"])
    assert songs["metrics"][0]["args"]["standard_deviation"] == pytest.approx(median["std"])
    assert "layer 0" in measurements(results)[0].protocol


def test_published_figures_are_of_known_tasks():
    assert set(MARBLE.figures) == set(TASK_NAMES)
    for source in SOURCES:
        assert set(source.figures) <= set(TASK_NAMES)
        for figures in source.figures.values():
            assert all(len(values) == len(source.models) for values in figures.values())


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["title"], None, "title is missing"),
        (["metrics", "accuracy"], None, "metrics.accuracy is missing"),
        (["layers", 0, "validation", "accuracy", "mean"], None, r"layers\.0\.validation\.accuracy\.mean is missing"),
        (["selected"], 3, "selected is 3, but must be of the type dict"),
        (["metrics", "accuracy", "std"], "much", "metrics.accuracy.std is 'much', but must be of the type float | int"),
    ],
)
def test_keys_that_are_missing_or_of_other_types_are_named(files, tmp_path, keys, value, message):
    content = json.loads(files[0].read_text())
    place = reduce(getitem, keys[:-1], content)
    place.pop(keys[-1]) if value is None else place.update({keys[-1]: value})
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"x\.json: {message}"):
        write_report(load_results([tmp_path / "x.json"]), tmp_path / "report")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"accuracy": 1}'])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(
        ValueError,
        match=r"x\.json (is not valid JSON|must hold a JSON object|does not hold results of mert-hf evaluate)",
    ):
        load_results([tmp_path / "x.json"])
    with pytest.raises(ValueError, match="No result files"):
        load_results([])


@pytest.fixture
def folder(tmp_path):
    """Twelve notes of two pitches with metadata.csv."""
    rows = [["file_name", "pitch", "split"]]
    for index in range(12):
        pitch = 60 + 4 * (index % 2)
        write(tmp_path / "data" / f"{index}.wav", note(pitch, 1.0 + 0.1 * index))
        rows.append([f"{index}.wav", pitch, ("train", "train", "valid", "test")[index // 2 % 4]])
    with (tmp_path / "data" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


def test_commands_evaluate_and_report(folder):
    output, runner = folder / "results" / "chroma.json", CliRunner()
    arguments = ["evaluate", "audiofolder", "--data", str(folder / "data"), "--target", "pitch"]
    arguments += ["--model", "chroma", "--output", str(output), "--cache-dir", str(folder / "cache")]
    arguments += ["--learning-rates", "5e-3", "--seeds", "2", "--max-epochs", "20", "--layers", "0", "--quiet"]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "accuracy 100.0 +- 0.0" in done.output and str(output) in done.output
    assert json.loads(output.read_text())["selected"]["layer"] == 0
    done = runner.invoke(app, ["report", str(output), "--output", str(folder / "report")])
    assert done.exit_code == 0 and done.output.strip() == str(folder / "report" / "report.html")


def test_help_names_every_task():
    shown = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).output
    assert [name for name in TASK_NAMES if name not in shown] == []


@pytest.mark.parametrize(
    "words, message",
    [
        (["tempo", "--model", "mel"], "Unknown task 'tempo'"),
        (["audiofolder", "--model", "mel"], "needs a target"),
        (["audiofolder", "--target", "pitch", "--model", "mel", "--layers", "x"], "layers='x' must be all, weighted"),
        (["audiofolder", "--target", "pitch", "--model", "mel", "--learning-rates", "a"], "Learning rate 'a'"),
        (["audiofolder", "--target", "pitch", "--model", "no/model"], "'no/model' is neither a folder nor"),
    ],
)
def test_wrong_words_are_told_in_a_line(folder, words, message):
    arguments = ["evaluate", *words, "--data", str(folder / "data"), "--cache-dir", str(folder / "cache")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and message in done.output and "Traceback" not in done.output
