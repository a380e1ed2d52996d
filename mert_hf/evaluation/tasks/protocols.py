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
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Task

POOLINGS = ("mean", "mean_std")


@dataclass(frozen=True)
class Protocol:
    """Choices of an evaluation."""

    name: str
    source: str
    dtype: str = "auto"  # precision of the encoder where the user gives "auto"
    pooling: str = "mean"  # of the frames of a chunk, or "mean_std", mean and standard deviation
    # "always", each value by the training split's mean and deviation, or "baselines", hand-made features only, whose
    # values differ by orders of magnitude
    standardize: str = "baselines"
    # amplitude normalization, where the model's feature extractor has one, of each "window", or of the whole
    # "recording" before it is cut
    normalize: str = "window"
    window: float | None = None  # seconds of a chunk; None for the task's own
    fit_context: bool = False  # whether chunks are at most as long as the audio that the encoder was trained on
    shortest_chunk: float = 1.0  # seconds; a shorter last chunk is dropped
    shortest_share: float = 0.0  # the same as a share of the window
    pad: bool = False  # whether a last chunk is filled up with zeros to the length of the others before normalization
    first_seconds: float | None = None  # only these of a recording are used; None for all
    batch: str = "chunks"  # a batch is `batch_size` of them, or of "recordings" with all their chunks
    batch_size: int = 64
    input_in_average: bool = True  # whether the learned average of layers includes layer 0, the encoder's input
    average_start: str = "equal"  # weights of the learned average, or "normal", random logits
    scored: str = "recordings"  # by the average over their chunks, or "chunks" by themselves
    validated: str = "recordings"  # the same for the score that is monitored during training
    # how outputs of chunks become the answer of a recording: the mean of "logits" or "probabilities", their "maximum",
    # or a "vote"; of several the one that is best on validation data, the first of equal ones. All but "logits" are for
    # tasks with one class a recording.
    averages: tuple[str, ...] = ("logits",)
    plateau_patience: int = 5  # epochs without progress before the learning rate is multiplied by the factor
    plateau_factor: float = 0.5
    patience: int = 20  # epochs without progress before a probe stops
    # "own", or as Lightning and torch count: a probe stops when the number of epochs without progress reaches the
    # patience, an equal score is not progress, and the plateau requires 1.0001 times the best score
    early_stopping: str = "own"
    max_epochs: int | None = None  # maximum number of passes over the training chunks; None for the task's own
    tested_epoch: str = "best"  # a probe is tested as it was after this epoch, or after the "last" one
    beat_counts: str = "recording"  # F-measure of beats is the mean over each, or from counts "pooled" over all
    beat_selection: str = "loss"  # the best epoch of the beat task has the lowest loss, or the highest "f1"
    # beat and downbeat are classes of one softmax, "classes", or two outputs by themselves, "binary", whose targets are
    # 1 on an event, 1/2 next to it and 1/4 after that
    beat_outputs: str = "classes"
    downbeat_tempi: tuple[float, float] = (18.0, 72.0)  # slowest and fastest of bars, a minute; of three or four beats
    crops: str = "random"  # where training crops of frame tasks lie, or "windows", those of the recording
    crop_context: str = "window"  # around a training crop, from which its features come; or the "crop" alone
    crop_batch: int = 8  # crops in a batch
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # task -> fields that differ there
    differences: tuple[str, ...] = ()  # what is known to differ from the source

    def of(self, task: str) -> Protocol:
        """The protocol of one task: every field as it applies there."""
        return replace(self, **self.tasks.get(task, {}), tasks={})

    def chunk_seconds(self, task: Task, context: float | None) -> float:
        """Seconds of a chunk of a task, for an encoder that was trained on clips of `context` seconds."""
        window = self.window or task.window
        return min(window, max(context, self.shortest_chunk)) if self.fit_context and context else window

    def shortest(self, window: float) -> float:
        """Seconds below which a last chunk is dropped."""
        return max(self.shortest_chunk, self.shortest_share * window)

    def summary(self) -> dict[str, Any]:
        """Every choice for the result file, as JSON values."""
        fields = asdict(self)
        del fields["tasks"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


TAGGING = ("magnatagatune", "mtg_instrument", "mtg_moodtheme", "mtg_genre", "mtg_top50")
NSYNTH = ("nsynth_instrument", "nsynth_pitch")
WHOLE_FILE = 3600.0  # seconds, longer than any clip
STRICT = Protocol(name="strict", source="mert_hf", pooling="mean_std", standardize="always", fit_context=True)

MARBLE_V1 = Protocol(
    name="marble-v1",
    source="MARBLE, arXiv 2306.10548; code: branch main-v1-archived of github.com/a43992899/MARBLE",
    dtype="float32",
    normalize="recording",
    batch="recordings",
    input_in_average=False,
    average_start="normal",
    early_stopping="lightning",
    beat_counts="pooled",
    beat_selection="f1",
    crop_context="crop",
    tasks={
        **dict.fromkeys(TAGGING, {"plateau_patience": 3, "patience": 10}),
        **dict.fromkeys(NSYNTH, {"plateau_patience": 3, "patience": 10, "max_epochs": 50}),
        "giantsteps_key": {
            "shortest_share": 1.0,
            "normalize": "window",  # its clips are files of their own there
            "averages": ("vote", "maximum", "logits", "probabilities"),
        },
        "gtzan_genre": {"plateau_patience": 6, "window": WHOLE_FILE},
        "gtzan_rhythm": {"plateau_patience": 6},
        "emomusic": {"first_seconds": 30.0},
        "vocalset_technique": {"patience": 10, "scored": "chunks", "validated": "chunks"},
        "vocalset_singer": {"scored": "chunks", "validated": "chunks"},
    },
    differences=(
        "each value of a hand-made feature is standardized by the training split",
        "giantsteps_key trains at the learning rates of the grid; there the learning rate is searched by Lightning "
        "whatever is asked, which gave 0.025",
        "a tag that never or always occurs in a split is left out; there it counts as an AUROC of 0",
        "beats are decoded by our own hidden Markov model, equal to madmom's on 36 of 36 generated activations",
        "gtzan_rhythm trains 3 classes in batches of 8 crops of 10 s; there 2 classes and batches of 64, and the "
        "published code stops with an error of shapes in its loss",
        "vocalset_technique validates on singers outside training; there on recordings of the training singers",
        "vocalset_singer splits recordings by a hash of their names, so that pieces of a recording stay together",
        "musdb18 uses the probe of the other tasks for all stems; there one model of three LSTM layers for each stem, "
        "and a silent stem is an error; here its frames do not count",
        "features are float16 on disk (relative rounding 5e-4) unless --store-dtype float32 is given; there float32",
    ),
)

MARBLE_V2 = Protocol(
    name="marble-v2",
    source="code: branch main (2025) of github.com/a43992899/MARBLE",
    dtype="float32",
    shortest_share=0.8,
    pad=True,
    validated="chunks",
    early_stopping="lightning",
    tested_epoch="last",
    beat_counts="pooled",
    beat_selection="f1",
    crop_context="crop",
    tasks={
        **dict.fromkeys(TAGGING, {"plateau_patience": 3, "patience": 10, "max_epochs": 20, "batch_size": 32}),
        "magnatagatune": {"plateau_patience": 3, "patience": 10, "max_epochs": 50, "batch_size": 32},
        "giantsteps_key": {"plateau_factor": 0.1, "max_epochs": 50},
        "gtzan_genre": {"plateau_patience": 6, "window": 30.2, "averages": ("probabilities",)},
        "gtzan_rhythm": {
            "window": 10.0,
            "patience": 10,
            "max_epochs": 50,
            "scored": "chunks",
            "beat_outputs": "binary",
            "downbeat_tempi": (55.0, 215.0),
            "crops": "windows",
            "crop_context": "window",
            "crop_batch": 64,
        },
        "emomusic": {"window": 15.0},
        "chords1217": {"window": 15.0, "patience": 10, "max_epochs": 50},
    },
    differences=(
        "layer and learning rate are chosen by a grid on validation data; there a configuration fixes both",
        "the learned average of layers has one weight a layer; there a linear layer from all layers to one",
        "the monitored R2 and AUROC are those of all validation chunks; there means over batches of 16 or 32 chunks "
        "(test R2 of a plain loop .201 with, .205 without, deviation over seeds .014)",
        "numbers are standardized by the training split, as the published table of EmoMusic is; there they are learned "
        "as they are (test R2 of a plain loop on a table that is not standardized .201, standardized .225, ours .228)",
        "a tag that never or always occurs in a split is left out; there it counts as an AUROC of 0",
        "beats are decoded by our own hidden Markov model, equal to madmom's on 36 of 36 generated activations, and "
        "annotated times are not rounded to frames",
        "recordings are mixed to mono unless --channels left is given; there all tasks but the tagging ones take the "
        "first channel",
        "features are float16 on disk (relative rounding 5e-4) unless --store-dtype float32 is given; there the "
        "encoder runs in every epoch in bfloat16 (rows differ by up to 8e-3)",
    ),
)

PROTOCOLS = {protocol.name: protocol for protocol in (STRICT, MARBLE_V1, MARBLE_V2)}
DEFAULT_PROTOCOL = STRICT.name


def get_protocol(name: str | Protocol) -> Protocol:
    """A protocol by name; ValueError for an unknown one."""
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        raise ValueError(f"The protocol {name!r} is not known. Choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
