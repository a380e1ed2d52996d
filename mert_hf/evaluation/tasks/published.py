"""Figures of papers and cards, to stand next to measured ones. Percent, or decibels for SDR.

They were measured by others, with their own code, on the full data sets. Beat figures belong to a tolerance of 70 ms:
the code of both MARBLE releases uses it, although the paper says 20 ms. Separation figures are means over songs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFigures:
    """Figures of one source: paper or card, its address, the models that it reports."""

    name: str  # short, in a report
    reference: str
    url: str
    models: tuple[str, ...]
    figures: Mapping[str, Mapping[str, tuple[float, ...]]]  # task -> metric -> value of each model


MARBLE = PublishedFigures(
    name="MARBLE",
    reference="MARBLE, arXiv 2306.10548, constrained track; GiantSteps at a learning rate of 0.025, which Lightning's "
    "search found whatever was asked",
    url="https://arxiv.org/abs/2306.10548",
    models=("MERT-v1-95M", "MERT-v1-330M"),
    figures={
        "magnatagatune": {"roc_auc": (91.0, 91.1), "average_precision": (39.3, 39.5)},
        "giantsteps_key": {"weighted_score": (63.5, 61.7)},
        "gtzan_genre": {"accuracy": (74.8, 77.6)},
        "gtzan_rhythm": {"beat_f1_70ms": (88.3, 87.9)},
        "emomusic": {"r2_valence": (55.5, 59.0), "r2_arousal": (76.3, 75.8)},
        "nsynth_instrument": {"accuracy": (70.7, 72.6)},
        "nsynth_pitch": {"accuracy": (92.6, 94.4)},
        "vocalset_technique": {"accuracy": (74.2, 76.9)},
        "vocalset_singer": {"accuracy": (83.7, 87.1)},
        "mtg_instrument": {"roc_auc": (77.5, 78.1), "average_precision": (19.4, 19.8)},
        "mtg_moodtheme": {"roc_auc": (76.4, 76.5), "average_precision": (13.4, 14.0)},
        "mtg_genre": {"roc_auc": (87.1, 86.7), "average_precision": (18.8, 18.6)},
        "mtg_top50": {"roc_auc": (83.0, 83.4), "average_precision": (29.0, 29.9)},
        "musdb18": {
            "sdr_mean_vocals": (5.5, 5.3),
            "sdr_mean_drums": (5.5, 5.6),
            "sdr_mean_bass": (3.8, 3.6),
            "sdr_mean_other": (3.1, 3.0),
        },
    },
)

MERT_PAPER = PublishedFigures(
    name="MERT paper",
    reference="MERT, arXiv 2306.00107",
    url="https://arxiv.org/abs/2306.00107",
    models=("MERT-v1-95M", "MERT-v1-330M"),
    figures={"gtzan_genre": {"accuracy": (78.6, 79.3)}},
)

MERT_V2_CARD = PublishedFigures(
    name="MERT-v2 card",
    reference="model card of m-a-p/MERT-v2-30s",
    url="https://huggingface.co/m-a-p/MERT-v2-30s",
    models=("MERT-v2-30s", "MERT-v2-FullSong", "MERT-v1-330M"),
    figures={
        "magnatagatune": {"roc_auc": (91.91, 91.74, 90.6), "average_precision": (41.29, 41.20, 37.9)},
        "giantsteps_key": {"accuracy": (66.97, 67.05, 64.1)},
        "gtzan_genre": {"accuracy": (91.72, 90.69, 77.6)},
        "gtzan_rhythm": {"beat_f1_70ms": (90.59, 90.57, 86.8)},
        "emomusic": {"r2_valence": (63.23, 63.52, 56.7), "r2_arousal": (80.01, 78.14, 76.1)},
        "mtg_instrument": {"roc_auc": (80.27, 80.27, 75.5), "average_precision": (22.89, 23.51, 18.8)},
        "mtg_moodtheme": {"roc_auc": (79.44, 78.74, 75.3), "average_precision": (16.68, 15.74, 13.5)},
        "mtg_genre": {"roc_auc": (88.01, 87.98, 86.1), "average_precision": (21.22, 20.66, 18.0)},
        "mtg_top50": {"roc_auc": (84.18, 84.13, 82.6), "average_precision": (32.17, 31.62, 29.1)},
    },
)

SOURCES = (MARBLE, MERT_PAPER, MERT_V2_CARD)
