"""Figures that the MARBLE paper reports (arXiv 2306.10548, constrained track), to stand beside measured ones.

Percent, or decibels for SDR. They were measured by others with MARBLE's own code on the full data sets.
"""

from __future__ import annotations

SOURCE = "MARBLE, arXiv 2306.10548"
SOURCE_URL = "https://arxiv.org/abs/2306.10548"
MODELS = ("MERT-v1-95M", "MERT-v1-330M")

# task -> metric -> value of each of MODELS
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "magnatagatune": {"roc_auc": (91.0, 91.1), "average_precision": (39.3, 39.5)},
    "giantsteps_key": {"weighted_score": (63.5, 61.7)},
    "gtzan_genre": {"accuracy": (74.8, 77.6)},
    "gtzan_rhythm": {"beat_f1_20ms": (88.3, 87.9)},
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
        "sdr_median_vocals": (5.5, 5.3),
        "sdr_median_drums": (5.5, 5.6),
        "sdr_median_bass": (3.8, 3.6),
        "sdr_median_other": (3.1, 3.0),
    },
}
