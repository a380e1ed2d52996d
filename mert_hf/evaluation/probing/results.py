"""The result of an evaluation: what is written as JSON, and how it is read again."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .probes import TrainedProbe

RESULTS_FORMAT = 2
READABLE_FORMATS = (1, 2)
Results = dict[str, Any]


def load_results(paths: Iterable[str | Path]) -> list[Results]:
    """Reads result files of `mert-hf evaluate`; each gets its own place under "file".

    Raises:
        ValueError: no files, or a file that is not a result of this version; the text names it.
    """
    results = []
    for path in map(Path, paths):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"{path} cannot be read as results of mert-hf evaluate: {reason}.") from error
        if not isinstance(content, dict) or content.get("format") not in READABLE_FORMATS:
            raise ValueError(f"{path} does not hold results of mert-hf evaluate (format {RESULTS_FORMAT}).")
        results.append({**content, "file": str(path)})
    if not results:
        raise ValueError("No result files are given. Run mert-hf evaluate first.")
    return results


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


def probe_summary(trained: TrainedProbe) -> dict[str, Any]:
    """One probe of the grid."""
    return {
        "learning_rate": trained.probe.learning_rate,
        "seed": trained.probe.seed,
        "score": trained.score,
        "loss": trained.loss,
        "best_epoch": trained.best_epoch,
        "epochs": trained.epochs,
    }


def layer_summary(record: dict[str, Any]) -> dict[str, Any]:
    """Scores of one layer from its record."""
    summary = {
        "layer": record["layer"],
        "learning_rate": record["learning_rate"],
        "validation": over_seeds(record["validation"]),
        "test": over_seeds(record["test"]) if "test" in record else None,
    }
    if "layer_weights" in record:
        summary["layer_weights"] = np.mean(record["layer_weights"], axis=0).tolist()
    return summary


def model_label(model: str) -> str:
    """The model's name in results: of a folder the last part only, as its place means nothing elsewhere."""
    prefix, colon, name = model.rpartition(":")
    return f"{prefix}{colon}{Path(name).resolve().name}" if Path(name).is_dir() else model


def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    import transformers

    from ... import __version__

    return {
        "mert_hf": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
