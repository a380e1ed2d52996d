"""Miniature data sets and fast settings for the evaluation tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from mert_hf.evaluation import EvaluationSettings
from mert_hf.evaluation.probing.settings import ProbeSettings

from . import miniatures

LAYOUTS = {
    "magnatagatune": "magnatagatune",
    "giantsteps_key": "giantsteps",
    "gtzan_genre": "gtzan",
    "gtzan_rhythm": "gtzan",
    "emomusic": "emomusic",
    "nsynth_instrument": "nsynth",
    "nsynth_pitch": "nsynth",
    "vocalset_technique": "vocalset",
    "vocalset_singer": "vocalset",
    "mtg_instrument": "mtg_jamendo",
    "mtg_moodtheme": "mtg_jamendo",
    "mtg_genre": "mtg_jamendo",
    "mtg_top50": "mtg_jamendo",
    "musdb18": "musdb18",
}


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    """The folder of a task's miniature data set; each layout is made once. Tests do not change it."""
    made: dict[str, Path] = {}

    def make(task: str) -> Path:
        layout = LAYOUTS[task]
        if layout not in made:
            made[layout] = getattr(miniatures, layout)(tmp_path_factory.mktemp(layout))
        return made[layout]

    return make


@pytest.fixture
def fast():
    """Builds small settings: one layer list, one learning rate, one seed, a small probe."""

    def make(**fields) -> EvaluationSettings:
        probe = ProbeSettings(hidden_size=64, max_epochs=fields.pop("max_epochs", 30))
        defaults = {"learning_rates": (5e-3,), "seeds": (0,), "progress": False, "fft_size": 512, "probe": probe}
        return EvaluationSettings(**{**defaults, **fields})

    return make
