"""How a task is evaluated: what is probed, by which protocol, and how features are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...utils.tolerance import Tolerance
from ..tasks.base import Task
from ..tasks.protocols import DEFAULT_PROTOCOL, POOLINGS, Protocol, get_protocol
from .probes import LEARNING_RATES, ProbeSettings
from .robustness import Deformation

STORE_DTYPES = ("float16", "float32")
FRAME_FEATURES = ("auto", "store", "compute")


def option(default: Any, text: str) -> Any:
    """A field with its help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class EvaluationSettings:
    """How a task is evaluated; the fields' help says what each is.

    Raises:
        ValueError: a value out of its range.
    """

    layers: Sequence[int | str] | None = option(
        None, "Layers to probe: all (each layer), weighted (the learned average), or numbers; None is all and weighted."
    )
    learning_rates: Sequence[float] = option(LEARNING_RATES, "Learning rates of the grid, separated by commas.")
    seeds: Sequence[int] = option((0, 1, 2), "Seeds of the probes.")
    protocol: str | Protocol = option(
        DEFAULT_PROTOCOL, "Protocol: strict, marble-v1 or marble-v2; docs/evaluate.md compares them."
    )
    pooling: str | None = option(None, "Description of a chunk: mean or mean_std; by default as the protocol defines.")
    probe: ProbeSettings | None = option(None, "Training of the probes; by default as the protocol defines.")
    max_epochs: int | None = option(
        None, "Maximum number of passes over the training chunks; by default as the protocol defines."
    )
    batch_size: int | None = option(None, "Clips that the model computes at a time; by default those of about 80 s.")
    workers: int = option(2, "Number of recordings that are read in parallel.")
    max_bad_files: int | str = option(
        0, "Unreadable or missing recordings tolerated before the run fails: a number such as 3, or a share such as 1%."
    )
    store_dtype: str = option("float16", "Number format of stored features: float16 or float32.")
    frame_features: str = option(
        "auto", "Features of answers frame by frame: store, compute (when needed), or auto by their size."
    )
    resamples: int = option(1000, "Resamples of the test recordings for 95 % intervals; 0 for no intervals.")
    deformations: Sequence[str] = option(
        (),
        "Also test deformed recordings: noise:20 (dB), mp3:64 (kbit/s), gain:-12 (dB), lowpass:4000 (Hz), separated by "
        "commas.",
    )
    shots: Sequence[int | str] = option(
        (), "Also train with few recordings of each class: numbers, or all, such as 1,5,10,all."
    )
    fft_size: int = option(2048, "Samples of a frame of the spectrogram (separation).")
    progress: bool = option(True, "Show progress bars.")

    def __post_init__(self) -> None:
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"learning_rates={list(self.learning_rates)} must be positive, one or more.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)} must be distinct, one or more.")
        if self.layers is not None and not self.layers:
            raise ValueError(
                'layers is empty. Give numbers, "all", "weighted", or None for each layer and the learned average.'
            )
        if self.workers < 1:
            raise ValueError(f"workers={self.workers} must be at least 1.")
        if self.resamples < 0:
            raise ValueError(f"resamples={self.resamples} must be 0 or more.")
        get_protocol(self.protocol)
        Tolerance.parse(self.max_bad_files)
        for deformation in self.deformations:
            Deformation.parse(deformation)
        for name, allowed in (("pooling", POOLINGS), ("store_dtype", STORE_DTYPES), ("frame_features", FRAME_FEATURES)):
            value = getattr(self, name)
            if value not in allowed and not (name == "pooling" and value is None):
                raise ValueError(f"{name}={value!r} must be one of {', '.join(allowed)}.")

    def tolerance(self) -> Tolerance:
        """How many recordings may be missing or unreadable."""
        return Tolerance.parse(self.max_bad_files)

    def chosen_protocol(self) -> Protocol:
        """The protocol, with the pooling of these settings."""
        protocol = get_protocol(self.protocol)
        return protocol if self.pooling is None else replace(protocol, pooling=self.pooling)

    def probe_settings(self, task: Task) -> ProbeSettings:
        """Training of the probes of a task."""
        protocol = self.chosen_protocol()
        if self.probe is not None:
            settings = self.probe
        else:
            settings = _early_stopping(protocol, *protocol.patience_of(task.name))
        limits = [settings.max_epochs, protocol.max_epochs.get(task.name, task.max_epochs)]
        return replace(settings, max_epochs=min([*limits, *([self.max_epochs] if self.max_epochs else [])]))


def _early_stopping(protocol: Protocol, plateau: int, stop: int) -> ProbeSettings:
    if protocol.early_stopping == "own":
        return ProbeSettings(patience=stop, plateau_patience=plateau)
    # A probe stops when the epochs without progress exceed `patience`; Lightning's EarlyStopping when they reach it.
    return ProbeSettings(patience=stop - 1, plateau_patience=plateau, plateau_threshold=1e-4, ties_by_loss=False)
