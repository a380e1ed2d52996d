"""Trained probes on disk, layer by layer, so that an evaluation that was stopped trains only what is missing.

DIR/LAYER.json            grid, chosen learning rate, validation and test metrics of a layer
DIR/LAYER.safetensors     weights of the probes with the chosen learning rate, one for each seed
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch

from ...utils.files import staged_file
from .probes import TrainedProbe, grid

Layer = int | str
Record = dict[str, Any]


@dataclass(frozen=True)
class ProbeArchive:
    """Records and weights of the probes of one evaluation.

    Args:
        folder: where they are kept.
    """

    folder: Path

    def __contains__(self, layer: Layer) -> bool:
        return self._record(layer).is_file()

    def read(self, layer: Layer) -> Record:
        """The record of a layer."""
        return json.loads(self._record(layer).read_text(encoding="utf-8"))

    def write(self, record: Record) -> None:
        """Writes the record of a layer."""
        write_json(self._record(record["layer"]), record)

    def write_weights(self, layer: Layer, probes: Sequence[TrainedProbe]) -> None:
        """Writes the weights of a layer's probes."""
        weights = {f"{p.probe.seed}.{name}": value.contiguous() for p in probes for name, value in p.weights.items()}
        with staged_file(self._weights(layer)) as part:
            safetensors.torch.save_file(weights, part)

    def load(self, record: Record, position: Layer) -> list[TrainedProbe]:
        """The probes of a layer with the chosen learning rate, one for each seed.

        Args:
            record: of the layer.
            position: where the layer stands in the features that the probes will see, or "weighted".
        """
        weights = safetensors.torch.load_file(self._weights(record["layer"]))
        rate = record["learning_rate"]
        probes = []
        for entry in (entry for entry in record["grid"] if entry["learning_rate"] == rate):
            (probe,) = grid([position], [rate], [entry["seed"]])
            prefix = f"{probe.seed}."
            own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            numbers = (entry["score"], entry["loss"], entry["best_epoch"], entry["epochs"])
            probes.append(TrainedProbe(probe, *numbers, own))
        return probes

    def _record(self, layer: Layer) -> Path:
        return self.folder / f"{layer}.json"

    def _weights(self, layer: Layer) -> Path:
        return self.folder / f"{layer}.safetensors"


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that the file is the old or the new one, whole, whenever the process ends."""
    with staged_file(path) as part:
        part.write_text(json.dumps(value, indent=1), encoding="utf-8")
