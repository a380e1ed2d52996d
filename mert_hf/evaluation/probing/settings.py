"""How a task is evaluated: what is probed, by which protocol, and how features are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...utils.settings import ALL, CHANNELS, WEIGHTED, check_choice, check_positive, described, parse_layers, shared
from ...utils.tolerance import Tolerance
from ..tasks.protocols import DEFAULT_PROTOCOL, POOLINGS, Protocol, get_protocol

if TYPE_CHECKING:
    from ..tasks.base import Task

LEARNING_RATES = (5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2)
PROBES = ("mlp", "knn")
STORE_DTYPES = ("float16", "float32")
FRAME_FEATURES = ("auto", "store", "compute")
# Kinds of deformations -> lowest and highest amount.
DEFORMATIONS = {"noise": (-20.0, 80.0), "mp3": (16.0, 320.0), "gain": (-80.0, 40.0), "lowpass": (50.0, 20000.0)}


@dataclass(frozen=True)
class Deformation:
    """A change of the test recordings.

    noise:20       white noise, 20 dB below the recording (signal-to-noise ratio)
    mp3:64         MP3 at a constant 64 kbit/s, encoded and decoded
    gain:-12       12 dB quieter; positive values clip at full scale, as in a file
    lowpass:4000   nothing above 4,000 Hz (Butterworth, order 8, forwards and backwards)
    """

    kind: str
    amount: float

    @classmethod
    def parse(cls, text: str) -> Deformation:
        """A deformation from "noise:20"; ValueError for an unknown kind or an amount out of its range."""
        kind, _, amount = text.strip().partition(":")
        try:
            value = float(amount)
        except ValueError:
            value = float("nan")
        low, high = DEFORMATIONS.get(kind, (1.0, 0.0))
        if not low <= value <= high:
            allowed = ", ".join(f"{name}:{low:g} to {name}:{high:g}" for name, (low, high) in DEFORMATIONS.items())
            raise ValueError(f"The deformation {text!r} is not known. Allowed are {allowed}.")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:g}"


@dataclass(frozen=True)
class ProbeSettings:
    """How probes are trained; see the notes of `mert_hf.evaluation.probing.probes`, and `Protocol` for what it sets.

    Attributes:
        hidden_size, dropout: shape of the probe.
        max_epochs: maximum number of passes over the training data.
        plateau_threshold: share by which a score must exceed the best one to count as progress for the learning rate.
        ties_by_loss: whether an equal score with a lower validation loss is progress.
    """

    hidden_size: int = 512
    dropout: float = 0.2
    max_epochs: int = 100
    patience: int = 20
    plateau_patience: int = 5
    plateau_factor: float = 0.5
    plateau_threshold: float = 0.0
    ties_by_loss: bool = True
    tested_epoch: str = "best"
    average_start: str = "equal"


@dataclass(frozen=True)
class EncoderSettings:
    """The encoder of an evaluation, by its name or its features, and where it computes."""

    model: str | None = described(
        "Hub id, folder or bundled name; random: before it for fresh weights (random:1: for those of seed 1); or a "
        "baseline: mfcc, chroma, mel, handmade for these three side by side, or peer:NAME for a model of others.",
        None,
    )
    features: str | None = described(
        "Folder of features in place of a model: NAME.npy for each recording NAME.wav.", None
    )
    trust_remote_code: bool = described("Run the code that a model of the Hub carries.", False)
    device: str | None = shared("device", None)
    dtype: str | None = shared("dtype", "auto")
    name: str | None = described("Name of the model in reports.", None)
    cache_dir: str | None = described(
        "Folder for features and probes, which later runs use again; by default below the Hugging Face home.", None
    )


@dataclass(frozen=True)
class EvaluationSettings:
    """How a task is evaluated: the options of `mert-hf evaluate`, whose text is taken too; each field holds its help.
    ValueError for a value out of its range.

    Attributes:
        layers: numbers from 0, "all" and "weighted"; None for each layer and the learned average.
        seeds: their number, counted from `seed`, or the seeds.
        protocol: a name of `mert_hf.evaluation.tasks.protocols.PROTOCOLS`, or a `Protocol`.
        probe_kind: one of `PROBES`; "knn" trains nothing, see `mert_hf.evaluation.probing.chunks`.
        probe: training of the probes; None for the protocol's.
        frame_features: "auto" stores what takes at most `evaluation.FRAME_STORE_BYTES`.
        deformations: changes of the test recordings for the robustness curve, see `Deformation`.
        fft_size: samples of a frame of the spectrogram (separation).
    """

    layers: str | Sequence[int | str] | None = described(
        "Layers to probe: all (each layer), weighted (the learned average), or numbers.",
        None,
        command_default=f"{ALL},{WEIGHTED}",
    )
    learning_rates: str | Sequence[float] = described(
        "Learning rates of the grid, separated by commas.",
        LEARNING_RATES,
        command_default="5e-5,1e-4,5e-4,1e-3,5e-3,1e-2",
    )
    seeds: int | Sequence[int] = described("Number of seeds of the probes.", 3, min=1)
    seed: int = shared("seed", 0)
    protocol: str | Protocol = described(
        "Protocol: strict, marble-v1 or marble-v2; docs/evaluate.md compares them.", DEFAULT_PROTOCOL
    )
    pooling: str | None = described(
        "Description of a chunk: mean or mean_std; by default as the protocol defines.", None
    )
    window: float | None = described(
        "Seconds of a chunk; by default as the task and the protocol define, and at most the model's context.", None
    )
    probe_kind: str = described(
        "Probe: mlp, a small network for each learning rate and seed, or knn, nearest neighbors without training.",
        "mlp",
        option="probe",
    )
    probe: ProbeSettings | None = None
    max_epochs: int | None = described(
        "Maximum number of passes over the training chunks; by default as the protocol defines.", None, min=1
    )
    channels: str = shared("channels", "mean")
    batch_size: int | None = described(
        "Clips that the model computes at a time; by default those of about 80 s.", None, min=1
    )
    workers: int = shared("workers", 2)
    max_bad_files: int | str = shared("max_bad_files", 0, command_default="0")
    store_dtype: str = described("Number format of stored features: float16 or float32.", "float16")
    frame_features: str = described(
        "Features of beats, chords, structure and separation: store, compute (when needed), or auto by their size.",
        "auto",
    )
    resamples: int = described("Resamples of the test recordings for 95 % intervals; 0 for no intervals.", 1000, min=0)
    deformations: str | Sequence[str] = described(
        "Also test deformed recordings: noise:20 (dB), mp3:64 (kbit/s), gain:-12 (dB), lowpass:4000 (Hz), separated by "
        "commas.",
        "",
        option="deform",
    )
    shots: str | Sequence[int | str] = described(
        "Also train with few recordings of each class: numbers, or all, such as 1,5,10,all.", ""
    )
    fft_size: int = 2048
    progress: bool = shared("progress", True)

    def __post_init__(self) -> None:
        layers = parse_layers(self.layers) if isinstance(self.layers, str) else self.layers
        parsed = {
            "layers": None if layers is not None and set(layers) == {ALL, WEIGHTED} else layers,
            "learning_rates": _parsed(self.learning_rates, _learning_rate),
            "seeds": range(self.seed, self.seed + self.seeds) if isinstance(self.seeds, int) else self.seeds,
            "deformations": _parsed(self.deformations, str),
            "shots": _parsed(self.shots, _shot),
        }
        for name, value in parsed.items():
            object.__setattr__(self, name, value if value is None else tuple(value))
        self._check()
        if self.probe_kind == "knn":
            object.__setattr__(self, "learning_rates", ())
            object.__setattr__(self, "seeds", (self.seed,))

    def _check(self) -> None:
        check_choice("probe", self.probe_kind, PROBES)
        if self.probe_kind == "knn":
            if self.learning_rates not in ((), LEARNING_RATES) or self.max_epochs:
                raise ValueError(
                    "Nearest neighbors are not trained: leave out learning rates and the number of epochs, or choose "
                    "the probe 'mlp'."
                )
        elif not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"learning_rates={list(self.learning_rates)} must be positive, one or more.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)} must be distinct, one or more.")
        if self.layers is not None and not self.layers:
            raise ValueError(
                'layers is empty. Give numbers, "all", "weighted", or None for each layer and the learned average.'
            )
        check_positive(workers=self.workers)
        if self.window is not None and not self.window >= 1.0:
            raise ValueError(f"window={self.window} s must be 1 s or more.")
        if self.resamples < 0:
            raise ValueError(f"resamples={self.resamples} must be 0 or more.")
        get_protocol(self.protocol)
        Tolerance.parse(self.max_bad_files)
        for deformation in self.deformations:
            Deformation.parse(deformation)
        if self.pooling is not None:
            check_choice("pooling", self.pooling, POOLINGS)
        check_choice("channels", self.channels, CHANNELS)
        check_choice("store_dtype", self.store_dtype, STORE_DTYPES)
        check_choice("frame_features", self.frame_features, FRAME_FEATURES)

    def tolerance(self) -> Tolerance:
        """How many recordings may be missing or unreadable."""
        return Tolerance.parse(self.max_bad_files)

    def chosen_protocol(self, task: str) -> Protocol:
        """The protocol of a task, with the pooling of these settings."""
        protocol = get_protocol(self.protocol).of(task)
        return protocol if self.pooling is None else replace(protocol, pooling=self.pooling)

    def encoder_dtype(self, dtype: Any) -> Any:
        """The precision of the encoder: the protocol's for "auto"."""
        return get_protocol(self.protocol).dtype if dtype == "auto" else dtype

    def probe_settings(self, task: Task) -> ProbeSettings:
        """Training of the probes of a task."""
        protocol = self.chosen_protocol(task.name)
        settings = self.probe or _probe_settings(protocol)
        limits = settings.max_epochs, protocol.max_epochs or task.max_epochs, self.max_epochs or math.inf
        return replace(settings, max_epochs=min(limits))


def _probe_settings(protocol: Protocol) -> ProbeSettings:
    names = ("patience", "plateau_patience", "plateau_factor", "tested_epoch", "average_start")
    settings = ProbeSettings(**{name: getattr(protocol, name) for name in names})
    if protocol.early_stopping == "own":
        return settings
    # A probe stops when the epochs without progress exceed `patience`; Lightning's EarlyStopping when they reach it.
    return replace(settings, patience=settings.patience - 1, plateau_threshold=1e-4, ties_by_loss=False)


def _parsed(value: str | Sequence[Any], parse: Callable[[str], Any]) -> Sequence[Any]:
    """The parts of a text that commas separate; a sequence as it is."""
    if not isinstance(value, str):
        return value
    return [parse(word.strip()) for word in value.split(",") if word.strip()]


def _learning_rate(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"Learning rate {word!r} is not a number; give numbers separated by commas.") from None


def _shot(word: str) -> int | str:
    if word != ALL and not (word.isdigit() and int(word) > 0):
        raise ValueError(f"shots: {word!r} must be numbers of 1 or more and {ALL!r}, such as 1,5,10,all.")
    return word if word == ALL else int(word)
