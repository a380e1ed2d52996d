"""Protocols by name: every choice of an evaluation that papers differ in, in one place.

- `strict` (default) is what we hold to be right: every encoder is described by mean and deviation over time, every
  value is standardized by the training split, and each recording counts once. Layers and models whose values differ in
  size then meet the same grid of learning rates, and hand-made features are treated like learned ones.
- `marble-v1` follows the code of the published figures (arXiv 2306.10548). Use it to compare with papers.
- `marble-v2` follows the second release of that code (branch `main` of a43992899/MARBLE in 2025).

A result file lists every field of the protocol that was used, and the differences that are known to remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Task

POOLINGS = ("mean", "mean_std")
DEFAULT_PATIENCE = (5, 20)


@dataclass(frozen=True)
class Protocol:
    """Choices of an evaluation.

    Attributes:
        name: name on the command line and in results.
        source: where the choices come from.
        pooling: what describes a chunk: "mean" over its frames, or "mean_std", mean and standard deviation.
        standardize: "always", each value by the training split's mean and deviation, or "baselines", hand-made features
            only, whose values differ by orders of magnitude.
        normalize: amplitude normalization, where the model's feature extractor has one, of each "window" or of the
            whole "recording" before it is cut.
        batch: 64 "chunks", or 64 "recordings" with all their chunks.
        input_in_average: whether the learned average of layers includes layer 0, the encoder's input.
        shortest_chunk: seconds; a shorter last chunk is dropped. `shortest_share` is the same as a share of the window.
        windows: task -> length of a chunk in seconds where it is not the task's own.
        fit_context: whether chunks are at most as long as the audio that the encoder was trained on.
        first_seconds: task -> only the first seconds of a recording are used.
        scored_pieces: tasks in which each chunk is scored by itself; in all others a recording's outputs are averaged.
        patience: task -> (epochs without progress before the learning rate is halved, before a probe stops).
        early_stopping: "own", or as Lightning and torch count: a probe stops when the number of epochs without progress
            reaches the patience, an equal score is not progress, and the plateau asks for 1.0001 times the best score.
        max_epochs: task -> maximum number of passes over the training chunks.
        beat_counts: F-measure of beats as the mean over each "recording", or from counts "pooled" over recordings.
        beat_selection: the best epoch of the beat task has the lowest "loss" or the highest "f1".
        crop_context: training features of frame tasks come from the "window" around a crop, or from the "crop" alone.
        differences: what is known to differ from the source.
    """

    name: str
    source: str
    pooling: str = "mean"
    standardize: str = "baselines"
    normalize: str = "window"
    batch: str = "chunks"
    input_in_average: bool = True
    shortest_chunk: float = 1.0
    shortest_share: float = 0.0
    windows: Mapping[str, float] = field(default_factory=dict)
    fit_context: bool = False
    first_seconds: Mapping[str, float] = field(default_factory=dict)
    scored_pieces: tuple[str, ...] = ()
    patience: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    early_stopping: str = "own"
    max_epochs: Mapping[str, int] = field(default_factory=dict)
    beat_counts: str = "recording"
    beat_selection: str = "loss"
    crop_context: str = "window"
    differences: tuple[str, ...] = ()

    def patience_of(self, task: str) -> tuple[int, int]:
        """Epochs without progress before the learning rate is halved, and before a probe stops."""
        return self.patience.get(task, DEFAULT_PATIENCE)

    def window(self, task: Task, context: float | None) -> float:
        """Seconds of a chunk of a task, for an encoder that was trained on clips of `context` seconds."""
        window = self.windows.get(task.name, task.window)
        return min(window, max(context, self.shortest_chunk)) if self.fit_context and context else window

    def shortest(self, window: float) -> float:
        """Seconds below which a last chunk is dropped."""
        return max(self.shortest_chunk, self.shortest_share * window)

    def summary(self, task: str) -> dict[str, Any]:
        """Every choice as it applies to a task, for the result file."""
        fields = asdict(self)
        for name in ("windows", "first_seconds", "patience", "max_epochs", "scored_pieces"):
            del fields[name]
        plateau, stop = self.patience_of(task)
        return {
            **fields,
            "differences": list(self.differences),
            "first_seconds": self.first_seconds.get(task),
            "scored": "chunks" if task in self.scored_pieces else "recordings",
            "plateau_patience": plateau,
            "patience": stop,
        }


TAGGING = ("magnatagatune", "mtg_instrument", "mtg_moodtheme", "mtg_genre", "mtg_top50")
NSYNTH = ("nsynth_instrument", "nsynth_pitch")
GTZAN = ("gtzan_genre", "gtzan_rhythm")
STRICT = Protocol(name="strict", source="mert_hf", pooling="mean_std", standardize="always", fit_context=True)

MARBLE_V1 = Protocol(
    name="marble-v1",
    source="MARBLE, arXiv 2306.10548; code: branch main-v1-archived of github.com/a43992899/MARBLE",
    normalize="recording",
    batch="recordings",
    input_in_average=False,
    first_seconds={"emomusic": 30.0},
    scored_pieces=("vocalset_technique", "vocalset_singer"),
    patience={
        **dict.fromkeys(TAGGING + NSYNTH, (3, 10)),
        **dict.fromkeys(GTZAN, (6, 20)),
        "vocalset_technique": (5, 10),
    },
    early_stopping="lightning",
    max_epochs=dict.fromkeys(NSYNTH, 50),
    beat_counts="pooled",
    beat_selection="f1",
    crop_context="crop",
    differences=(
        "each value of a hand-made feature is standardized by the training split",
        "beats are decoded by our own hidden Markov model, not by madmom's",
        "vocalset_technique validates on singers outside training; MARBLE on recordings of the training singers",
        "vocalset_singer splits recordings by a hash of their names, so that pieces of a recording stay together",
        "musdb18 uses the probe of the other tasks for all stems; MARBLE one model of three LSTM layers for each stem",
        "float16 features on disk; MARBLE float32",
    ),
)

MARBLE_V2 = Protocol(
    name="marble-v2",
    source="code: branch main (2025) of github.com/a43992899/MARBLE",
    input_in_average=True,
    shortest_chunk=1.0,
    shortest_share=0.8,
    windows={"emomusic": 15.0, "gtzan_rhythm": 10.0},
    patience={**dict.fromkeys(TAGGING, (3, 10)), "gtzan_genre": (6, 20), "gtzan_rhythm": (5, 10)},
    max_epochs={"magnatagatune": 50, "giantsteps_key": 50, "gtzan_rhythm": 50, **dict.fromkeys(TAGGING[1:], 20)},
    early_stopping="lightning",
    beat_counts="pooled",
    beat_selection="f1",
    crop_context="crop",
    differences=(
        "layer and learning rate are chosen by a grid on validation data; there a configuration fixes both",
        "the learned average of layers has one weight a layer; there a linear layer",
        "validation averages the outputs of a recording's chunks; there each chunk counts",
        "recordings are averaged by logits; there by probabilities",
        "a last chunk is embedded at its true length; there it is padded with zeros",
        "beats are decoded by our own hidden Markov model; there frames above a threshold are beats",
        "beat and downbeat are classes of one softmax; there two binary outputs",
        "recordings are mixed to mono; there most tasks take the first channel",
        "float16 features on disk; there the encoder runs in every epoch in bfloat16",
    ),
)

PROTOCOLS = {protocol.name: protocol for protocol in (STRICT, MARBLE_V1, MARBLE_V2)}
DEFAULT_PROTOCOL = STRICT.name


def get_protocol(name: str | Protocol) -> Protocol:
    """A protocol by name.

    Raises:
        ValueError: unknown name; the text lists all.
    """
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        raise ValueError(f"The protocol {name!r} is not known. Choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
