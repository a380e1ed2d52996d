"""How a task is evaluated: what is probed, by which protocol, and how features are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...utils.tolerance import Tolerance
from ..tasks.base import Task
from ..tasks.protocols import DEFAULT_PROTOCOL, POOLINGS, Protocol, get_protocol
from .deformations import Deformation
from .probes import LEARNING_RATES, ProbeSettings

STORE_DTYPES = ("float16", "float32")
FRAME_FEATURES = ("auto", "store", "compute")


@dataclass(frozen=True)
class EvaluationSettings:
    """How a task is evaluated.

    Attributes:
        layers: layers to probe, counted from 0, "all" for each layer and "weighted" for the learned average of layers;
            None for each layer and the learned average.
        learning_rates, seeds: the rest of the grid.
        protocol: a name of `mert_hf.evaluation.tasks.protocols.PROTOCOLS`, or a `Protocol`.
        pooling: "mean" or "mean_std"; None for the protocol's.
        probe: training of the probes; None for the protocol's.
        max_epochs: maximum number of passes over the training chunks; None for the protocol's.
        batch_size: windows that the model takes at a time; None for about 80 s of audio.
        workers: recordings that are read at the same time.
        deformations: changes of the test recordings for the robustness curve, see `.deformations`.
        shots: numbers of training recordings and "all" for the curve of few labels, see `.few_shots`.
        max_bad_files: recordings that may be missing or unreadable, a number or a percentage such as "1%".
        store_dtype: number format of stored features, "float16" or "float32".
        frame_features: of beat tracking and separation: "store" on disk, "compute" when they are needed, or "auto",
            which stores what takes at most `runner.FRAME_STORE_BYTES`.
        resamples: resamples of the test recordings for the intervals; 0 leaves them out.
        fft_size: samples of a frame of the spectrogram (separation).
        progress: show progress bars.

    Raises:
        ValueError: a value out of its range.
    """

    layers: Sequence[int | str] | None = None
    learning_rates: Sequence[float] = LEARNING_RATES
    seeds: Sequence[int] = (0, 1, 2)
    probe: ProbeSettings | None = None
    batch_size: int | None = None
    fft_size: int = 2048
    progress: bool = True
    protocol: str | Protocol = DEFAULT_PROTOCOL
    pooling: str | None = None
    max_epochs: int | None = None
    store_dtype: str = "float16"
    frame_features: str = "auto"
    resamples: int = 1000
    max_bad_files: int | str = 0
    deformations: Sequence[str] = ()
    shots: Sequence[int | str] = ()
    workers: int = 2

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
