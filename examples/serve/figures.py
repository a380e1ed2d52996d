"""The pictures of the app, drawn by matplotlib without a display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from mert_hf import CQTTeacher
from mert_hf.audio import audio_info, read_audio, stream_audio

WAVEFORM_COLUMNS = 1200
MAX_CQT_SECONDS = 30.0
CQT_BINS_PER_OCTAVE = 48
MAP_COLORS = 10
# For scripts that matplotlib's own font lacks; packages.txt installs the first one on a Hub Space.
FALLBACK_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans JP", "IPAexGothic", "TakaoPGothic", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Yu Gothic", "Meiryo", "Microsoft YaHei", "Malgun Gothic"),
    *("Noto Sans Thai", "Noto Sans Devanagari", "Noto Sans Hebrew", "Noto Sans Arabic", "Arial Unicode MS"),
)


def font_families() -> list[str]:
    """Installed fonts in the order in which matplotlib looks for a character."""
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


@lru_cache(maxsize=1)
def constant_q() -> CQTTeacher:
    """The CQT that MERT learns to predict: 336 bins from 32.7 Hz, 48 per octave, at 24 kHz."""
    return CQTTeacher()


def waveform(path: str) -> Figure:
    """Lowest and highest sample of each of up to 1200 stretches of the recording."""
    rate, seconds, position = 8000, audio_info(path).duration, 0
    low, high = np.full(WAVEFORM_COLUMNS, np.inf), np.full(WAVEFORM_COLUMNS, -np.inf)
    for block in stream_audio(path, rate):  # memory does not grow with the recording
        places = (np.arange(position, position + len(block)) / (rate * seconds) * WAVEFORM_COLUMNS).astype(int)
        places, position = np.minimum(places, WAVEFORM_COLUMNS - 1), position + len(block)
        np.minimum.at(low, places, block)
        np.maximum.at(high, places, block)
    filled = np.isfinite(low)
    figure, axes = _canvas("Waveform", "seconds", "amplitude", height=2.2)
    times = np.arange(WAVEFORM_COLUMNS) / WAVEFORM_COLUMNS * seconds
    axes.fill_between(times[filled], low[filled], high[filled], linewidth=0.4)
    axes.set_xlim(0, seconds)
    return figure


def spectrum(path: str) -> Figure:
    """Constant-Q magnitudes in dB of the first 30 seconds."""
    teacher = constant_q()
    audio = read_audio(path, teacher.sampling_rate, duration=MAX_CQT_SECONDS)
    magnitudes = teacher(torch.from_numpy(audio)[None])[0].numpy()
    decibels = 20 * np.log10(magnitudes / max(float(magnitudes.max()), 1e-10) + 1e-4)
    octaves = magnitudes.shape[1] / CQT_BINS_PER_OCTAVE
    figure, axes = _canvas(
        "Constant-Q transform, what MERT learns to predict", "seconds", "octaves above C1", height=3.2
    )
    extent = (0, len(audio) / teacher.sampling_rate, 0, octaves)
    image = axes.imshow(decibels.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-80, vmax=0)
    figure.colorbar(image, ax=axes, label="dB")
    return figure


def layers(similarity: np.ndarray) -> Figure:
    """A heat map of the similarity of all layers, (layers, layers) in [0, 1]."""
    figure, axes = _canvas("Similarity of layers (linear CKA)", "layer, 0 is the encoder's input", "layer", height=4)
    image = axes.imshow(similarity, origin="lower", cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(0, len(similarity), 2))
    axes.set_yticks(range(0, len(similarity), 2))
    figure.colorbar(image, ax=axes)
    return figure


def library_map(points: np.ndarray, folders: Sequence[str]) -> Figure:
    """Recordings at their points (recordings, 2), with a color for each of the largest folders."""
    figure, axes = _canvas("Map of the library (two principal components)", "", "", height=6)
    counts = Counter(folders)
    for folder, _ in counts.most_common(MAP_COLORS):
        chosen = np.array([name == folder for name in folders])
        axes.scatter(*points[chosen].T, s=14, alpha=0.8, label=folder or "top folder")
    others = np.array([name not in dict(counts.most_common(MAP_COLORS)) for name in folders])
    if others.any():
        axes.scatter(*points[others].T, s=8, alpha=0.4, color="gray", label="other folders")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def _canvas(title: str, x_label: str, y_label: str, height: float) -> tuple[Figure, object]:
    rcParams["font.family"] = font_families()
    figure = Figure(figsize=(9, height), layout="constrained")  # not pyplot: it keeps every figure for ever
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes
