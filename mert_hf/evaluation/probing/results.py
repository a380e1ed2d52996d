"""The files of an evaluation: its results as JSON, and its trained probes, layer by layer.

    DIR/LAYER.json            grid, chosen learning rate, validation and test metrics of a layer
    DIR/LAYER.safetensors     weights of the probes with the chosen learning rate, one for each seed

An evaluation that was stopped trains only the layers that are missing.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from ...utils.files import read_json, staged_file, write_json
from .probes import MEASURED, Probe, TrainedProbe

RESULTS_FORMAT = 2
Results = dict[str, Any]
Layer = int | str
Record = dict[str, Any]

EACH = object()  # stands for every other key
NUMBER = float | int
SCORES = {EACH: {"mean": NUMBER, "std": NUMBER | None, "values": [NUMBER], "interval": [NUMBER]}}
# What a result file can hold: an object by its keys, a list by its entries, or a type; in a tuple what may be null.
FORM = {
    **dict.fromkeys(("task", "title", "kind", "metric", "model", "model_fingerprint"), str),
    "metrics": SCORES,
    "validation": SCORES,
    "selected": {"layer": Layer, "learning_rate": NUMBER},
    "layers": [{"layer": Layer, "learning_rate": NUMBER, "validation": SCORES, "test": (SCORES,)}],
    "data": {"labels": [str], "recordings": {EACH: int}},
    "protocol": {"name": str, "window": NUMBER, "seeds": [int], "differences": [str]},
    "few_shot": [{"recordings": NUMBER, "metrics": SCORES}],
    "deformed": [{"kind": str, "amount": NUMBER, "metrics": SCORES}],
}


def load_results(paths: Iterable[str | Path]) -> list[Results]:
    """Reads result files of `mert-hf evaluate`; each gets its own place under "file". ValueError for no files, a file
    that is not a result of this version, or a value of another type; and for a key that is missing when it is used."""
    results = []
    for path in map(Path, paths):
        content = read_json(path)
        if content.get("format") != RESULTS_FORMAT:
            raise ValueError(f"{path} does not hold results of mert-hf evaluate (format {RESULTS_FORMAT}).")
        results.append(_checked({**content, "file": str(path)}, FORM, f"{path}: "))
    if not results:
        raise ValueError("No result files are given. Run mert-hf evaluate first.")
    return results


class _Object(dict):
    """An object in a result file; `place` is the file and the keys that lead to it."""

    def __init__(self, content: dict[str, Any], place: str):
        super().__init__(content)
        self.place = place

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"{self.place}{key} is missing. Write the file again with mert-hf evaluate.")


def _checked(value: Any, form: Any, place: str) -> Any:
    """A value of a result file whose missing keys are errors; ValueError where its form is not as in `FORM`."""
    if isinstance(form, tuple):
        if value is None:
            return None
        (form,) = form
    kind = type(form) if isinstance(form, (dict, list)) else form
    if not isinstance(value, kind):
        name = getattr(kind, "__name__", kind)
        raise ValueError(
            f"{place.rstrip('.')} is {value!r:.40}, but must be of the type {name}. Write the file again with mert-hf "
            "evaluate."
        )
    if kind is list:
        return [_checked(entry, form[0], f"{place}{number}.") for number, entry in enumerate(value)]
    if kind is dict:
        forms = ((key, form.get(key, form.get(EACH, object))) for key in value)
        return _Object({key: _checked(value[key], inner, f"{place}{key}.") for key, inner in forms}, place)
    return value


@dataclass(frozen=True)
class ProbeArchive:
    """Records and weights of the probes of one evaluation, in a folder."""

    folder: Path

    def __contains__(self, layer: Layer) -> bool:
        return self._record(layer).is_file()

    def read(self, layer: Layer) -> Record:
        return read_json(self._record(layer))

    def write(self, record: Record, probes: Sequence[TrainedProbe] = ()) -> None:
        """Writes the record of a layer, after the weights of its probes where they are given."""
        weights = {f"{p.probe.seed}.{name}": value.contiguous() for p in probes for name, value in p.weights.items()}
        if weights:
            with staged_file(self._weights(record["layer"])) as part:
                safetensors.torch.save_file(weights, part)
        write_json(self._record(record["layer"]), record)

    def load(self, record: Record, position: Layer) -> list[TrainedProbe]:
        """The probes of a layer with the chosen learning rate, one for each seed; `position` is where the layer stands
        in the features that they will see, or "weighted"."""
        weights = safetensors.torch.load_file(self._weights(record["layer"]))
        probes = []
        for entry in (entry for entry in record["grid"] if entry["learning_rate"] == record["learning_rate"]):
            prefix = f"{entry['seed']}."
            own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            probe = Probe(position, entry["learning_rate"], entry["seed"])
            probes.append(TrainedProbe(probe, *(entry[name] for name in MEASURED), own))
        return probes

    def _record(self, layer: Layer) -> Path:
        return self.folder / f"{layer}.json"

    def _weights(self, layer: Layer) -> Path:
        return self.folder / f"{layer}.safetensors"


def over_seeds(values: Sequence[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation over seeds (None for one seed) of each metric."""
    return {
        name: {
            "mean": float(np.mean([entry[name] for entry in values])),
            "std": float(np.std([entry[name] for entry in values], ddof=1)) if len(values) > 1 else None,
            "values": [entry[name] for entry in values],
        }
        for name in values[0]
    }


def choice(record: Record) -> dict[str, float]:
    """The choice on validation data within a layer: learning rate (0 without training), number of neighbors."""
    return {name: record[name] for name in ("learning_rate", "neighbors") if name in record}


def choice_text(chosen: dict[str, Any]) -> str:
    """The choice within a layer in words; of a record, or of the `selected` of a result."""
    if "neighbors" in chosen:
        return f"{chosen['neighbors']} nearest neighbors"
    return f"learning rate {chosen['learning_rate']:g}"


def layer_summary(record: dict[str, Any]) -> dict[str, Any]:
    summary = {
        "layer": record["layer"],
        **choice(record),
        "validation": over_seeds(record["validation"]),
        "test": over_seeds(record["test"]) if "test" in record else None,
    }
    if "layer_weights" in record:
        summary["layer_weights"] = np.mean(record["layer_weights"], axis=0).tolist()
    return summary


def model_name(model: Any) -> str:
    """The model's name in results: of a folder the last part only, as its place means nothing elsewhere."""
    if not isinstance(model, (str, Path)):
        return type(model).__name__
    prefix, colon, name = str(model).rpartition(":")
    return f"{prefix}{colon}{Path(name).resolve().name}" if Path(name).is_dir() else str(model)


def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    import transformers

    from ... import __version__

    used = {"mert_hf": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
    return {**used, "python": platform.python_version()}
