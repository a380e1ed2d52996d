"""Reports: tables next to published figures, figures, model-index metadata; and the two commands."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from huggingface_hub import ModelCardData
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.evaluation import TASK_NAMES, get_task, load_results, measurements, model_index, write_report
from mert_hf.evaluation.reports.report import choice_table, layer_table, summary_table
from mert_hf.evaluation.tasks.published import MARBLE, SOURCES

from .synthesis import note, write


def value(mean: float, std: float | None = 0.01) -> dict:
    return {"mean": mean, "std": std, "values": [mean] * (1 if std is None else 3)}


def result(task: str, model: str, score: float, std: float | None = 0.01) -> dict:
    """A result of three layers, as `mert-hf evaluate` writes it."""
    found = get_task(task)
    names = [found.metric, *(name for name in MARBLE.figures[task] if name != found.metric)]
    scores = {name: value(score, std) for name in names}
    return {
        "format": 1,
        "task": task,
        "title": found.title,
        "kind": found.kind,
        "model": model,
        "model_fingerprint": f"fingerprint of {model}",
        "metric": found.metric,
        "metrics": scores,
        "validation": scores,
        "selected": {"layer": 2, "learning_rate": 1e-3, "by": "validation"},
        "layers": [
            {
                "layer": layer,
                "learning_rate": 1e-3,
                "validation": {found.metric: value(score - 0.1 * (layer != 2), std)},
                "test": {found.metric: value(score, std)} if layer == 2 else None,
            }
            for layer in (0, 1, 2, "weighted")
        ],
        "data": {"recordings": {"train": 3, "valid": 2, "test": 1}},
        "protocol": {"name": "strict", "window": found.window, "seeds": [0, 1, 2]},
    }


@pytest.fixture
def results() -> list[dict]:
    """Two models on four tasks."""
    tasks = ("gtzan_genre", "nsynth_pitch", "giantsteps_key", "musdb18")
    scores = {"one": (0.8, 0.9, 0.5, 4.0), "two & <b>": (0.7, 0.95, 0.6, 5.0)}
    return [result(task, model, score) for model in scores for task, score in zip(tasks, scores[model], strict=True)]


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


def test_report_is_written_with_figures(results, tmp_path):
    page = write_report(results, tmp_path / "report")
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == [*(f"figure_{number}.svg" for number in range(4)), "report.html", "report.md"]
    for name in names[:4]:
        assert ElementTree.parse(page.parent / name).getroot().tag.endswith("svg")
    markdown = (page.parent / "report.md").read_text()
    assert "| GTZAN genre | accuracy | 80.0 ± 1.0 | 70.0 ± 1.0 | *74.8* | *77.6* | *78.6* | *79.3* |" in markdown
    assert "| MUSDB18 separation | sdr_mean_vocals | 4.0 ± 0.0 | 5.0 ± 0.0 | *5.5* | *5.3* |" in markdown
    assert "*MERT-v1-95M (MARBLE)*" in markdown and "*MERT-v1-95M (MERT paper)*" in markdown
    assert all(source.url in markdown for source in SOURCES)
    assert all(f"]({name})" in markdown for name in names[:4])


def test_page_is_well_formed_and_escapes_names(results, tmp_path):
    page = write_report(results, tmp_path).read_text()
    parser = Text()
    parser.feed(page)
    assert parser.open == []
    assert "two & <b>" in parser.text and "two & <b>" not in page
    assert page.count("<figure>") == 4 and 'class="published"' in page and "measured by others" in parser.text


def test_curves_are_drawn_where_results_hold_them(results, tmp_path):
    for entry in results:
        scores = entry["metrics"]
        entry["few_shot"] = [{"shots": n, "recordings": 10 * n, "metrics": scores} for n in (1, 5)]
        entry["deformed"] = [
            {"deformation": f"noise:{amount}", "kind": "noise", "amount": amount, "metrics": scores}
            for amount in (0.0, 20.0)
        ]
    markdown = write_report(results, tmp_path).with_suffix(".md").read_text()
    assert "## GTZAN genre: few labels" in markdown
    assert "## GTZAN genre: deformed test recordings, noise" in markdown


def test_the_same_results_give_the_same_files(results, tmp_path):
    one, two = (write_report(results, tmp_path / name).read_text() for name in ("a", "b"))
    assert one == two


def test_one_model_on_two_tasks_has_no_radar_and_no_ranks(results, tmp_path):
    page = write_report(results[:2], tmp_path)
    assert sorted(path.name for path in page.parent.glob("*.svg")) == ["figure_0.svg"]


def test_summary_of_one_model_stresses_nothing_and_keeps_rows_full(results):
    table = summary_table(results[:4])
    assert table.strong == frozenset()
    assert {len(row) for row in table.rows} == {len(table.header)}


def test_single_seeds_have_no_spread():
    table = choice_table([result("gtzan_genre", "one", 0.8, None)])
    assert table.rows[0][4] == "80.0"


def test_layers_that_were_not_tested_say_so(results):
    assert [row[-1] for row in layer_table(results[0]).rows] == ["not measured", "not measured", "80.0 ± 1.0"] + [
        "not measured"
    ]


def test_the_last_result_of_a_task_and_model_counts(tmp_path):
    again = [result("gtzan_genre", "one", score) for score in (0.5, 0.8)]
    write_report(again, tmp_path)
    assert "80.0" in (tmp_path / "report.md").read_text() and "50.0" not in (tmp_path / "report.md").read_text()
    assert len(model_index(again)) == 1


def test_model_index_goes_into_a_card(results):
    entries = model_index(results[:4])
    metadata = ModelCardData(model_name="one", eval_results=entries).to_dict()["model-index"][0]["results"]
    genre = next(entry for entry in metadata if entry["dataset"]["type"] == "gtzan_genre")
    assert genre["metrics"][0]["value"] == pytest.approx(80) and genre["metrics"][0]["type"] == "accuracy"
    assert genre["metrics"][0]["args"]["standard_deviation"] == pytest.approx(1)
    assert "layer 2" in measurements(results)[0].protocol


def test_published_figures_are_of_known_tasks():
    assert set(MARBLE.figures) == set(TASK_NAMES)
    for source in SOURCES:
        assert set(source.figures) <= set(TASK_NAMES)
        for figures in source.figures.values():
            assert all(len(values) == len(source.models) for values in figures.values())


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 0}', '{"accuracy": 1}'])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json (cannot be read|does not hold) .*results of mert-hf evaluate"):
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
        (["audiofolder", "--target", "pitch", "--model", "no/model"], "The model 'no/model' cannot be opened"),
    ],
)
def test_wrong_words_are_told_in_a_line(folder, words, message):
    arguments = ["evaluate", *words, "--data", str(folder / "data"), "--cache-dir", str(folder / "cache")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and message in done.output and "Traceback" not in done.output
