"""Baselines, an untrained and a trained model on rendered notes and scores: the order that music theory expects."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mert_hf.evaluation import EvaluationSettings, evaluate
from mert_hf.hub.names import resolve_checkpoint
from mert_hf.quickstart.excerpts import plan_excerpts, plan_notes
from mert_hf.quickstart.pieces import load_pieces
from mert_hf.quickstart.rendering import write_excerpts

pytestmark = [pytest.mark.slow, pytest.mark.long]

SETTINGS = EvaluationSettings(learning_rates=(1e-3, 5e-3), seeds=(0, 1, 2), progress=False)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> tuple[Path, Path]:
    """960 single notes with their pitch class, and 480 excerpts of 4 s of scores in all keys."""
    for package in ("music21", "midirenderer", "pretty_midi"):
        pytest.importorskip(package, reason="the extra `quickstart` is not installed")
    notes, scores = tmp_path_factory.mktemp("notes"), tmp_path_factory.mktemp("scores")
    table = write_excerpts(plan_notes(960), notes, workers=1, progress=False)
    rows = list(csv.DictReader(table.open()))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "pitch_class"])
        writer.writeheader()
        writer.writerows({**row, "pitch_class": int(row["pitch"]) % 12} for row in rows)
    pieces = load_pieces(limit=240, workers=1, progress=False)
    write_excerpts(plan_excerpts(pieces, 480, 4.0), scores, workers=1, progress=False)
    return notes, scores


@pytest.fixture(scope="module")
def score(rendered, tmp_path_factory):
    """Mean test score of a model on a column."""
    notes, scores = rendered
    cache = tmp_path_factory.mktemp("cache")

    def measure(model: str, target: str) -> float:
        folder, kind = (scores, "key") if target == "key" else (notes, "classification")
        results = evaluate(
            "audiofolder",
            folder,
            model,
            settings=SETTINGS,
            cache_dir=cache,
            device="cpu",
            target=target,
            kind=kind,
        )
        return results["metrics"][results["metric"]]["mean"]

    return measure


def test_chroma_beats_mfcc_on_pitch_class_and_key_and_loses_on_instruments(score):
    for target in ("pitch_class", "key"):
        assert score("chroma", target) > score("mfcc", target) + 0.05
    assert score("mfcc", "family") > score("chroma", "family") + 0.05


@pytest.fixture
def nano() -> str:
    """Name of the small trained checkpoint of the package."""
    try:
        complete = (Path(resolve_checkpoint("mert-nano")) / "model.safetensors").is_file()
    except ValueError:
        complete = False
    if not complete:
        pytest.skip("the checkpoint mert-nano is not part of this installation")
    return "mert-nano"


def test_an_untrained_net_is_above_chance_on_notes(score, nano):
    assert score(f"random:{nano}", "pitch_class") > 1.5 / 12


def test_the_trained_net_beats_mfcc_on_pitch_class_and_key(score, nano):
    for target in ("pitch_class", "key"):
        assert score(nano, target) > score("mfcc", target) + 0.05
