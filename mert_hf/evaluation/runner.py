"""One evaluation from start to end: read the task, extract features, train the grid, choose on validation, test.

What is finished stays on disk below the cache folder: features recording by recording, probes layer by layer. An
evaluation that was killed computes only what is missing when it is started again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from ..data.recordings import SPLITS, TaskData
from ..utils.outputs import check_output_file, check_output_folder
from ..utils.staging import staged_file
from ..utils.tolerance import Tolerance
from .encoders import Encoder, open_encoder
from .features import FeatureTable, extract, store_settings
from .frames import BeatData, FrameData
from .probes import (
    ALL_LAYERS,
    LEARNING_RATES,
    ProbeSettings,
    TrainedProbe,
    grid,
    num_weights,
    train_grid,
)
from .store import FeatureStore, fingerprint
from .tasks import FRAME_KINDS, Task, get_task

logger = logging.getLogger(__name__)

RESULTS_FORMAT = 1
GROUP_WEIGHTS = 2**25  # weights trained at a time: 0.5 GB with Adam's two moments and the best epoch's copy
BEAT_CROP_SECONDS = 10.0


@dataclass(frozen=True)
class EvaluationSettings:
    """How a task is evaluated.

    Attributes:
        layers: layers to probe, counted from 0, and "all" for learned layer weights; None for every layer and "all".
        learning_rates, seeds: the rest of the grid.
        probe: training of the probes.
        batch_size: windows that the model takes at a time; None for about 80 s of audio.
        max_bad_files: recordings that may be missing or unreadable: a number, or a share such as "1%".
        fft_size: samples of a frame of the spectrogram (separation).
        progress: show progress bars.
    """

    layers: Sequence[int | str] | None = None
    learning_rates: Sequence[float] = LEARNING_RATES
    seeds: Sequence[int] = (0, 1, 2)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    batch_size: int | None = None
    max_bad_files: int | str = 0
    fft_size: int = 2048
    progress: bool = True

    def __post_init__(self) -> None:
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"learning_rates {list(self.learning_rates)} must be positive, one or more")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} must be distinct, one or more")
        if self.layers is not None and not self.layers:
            raise ValueError('layers is empty; name layers, or "all", or give None for every layer')


def evaluate(
    task: str | Task,
    data_dir: str | Path,
    model: str,
    output: str | Path | None = None,
    settings: EvaluationSettings | None = None,
    cache_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    **task_options: Any,
) -> dict[str, Any]:
    """Evaluates a model on a task.

    Args:
        task: a name of `mert_hf.evaluation.tasks.TASK_NAMES`, "audiofolder", or a `Task`.
        data_dir: the data set in its official layout.
        model: Hub id, folder, "random:FOLDER", "mfcc", "chroma" or "mel".
        output: JSON file for the results.
        settings: layers, learning rates, seeds, training.
        cache_dir: folder for features and probes; default: `default_cache_dir()`.
        device: where model and probes run; a GPU if there is one.
        dtype: of the model.
        task_options: `target`, `kind`, `window` of `get_task`.

    Returns:
        The results as written to `output`: test metrics with mean and standard deviation over seeds, the chosen layer
        and learning rate, validation and test by layer, the whole grid, protocol and versions.

    Raises:
        ValueError: wrong layout, missing files, unknown names; the text says what was looked for.
        OSError: `output` or `cache_dir` cannot be written; told before any work.
    """
    settings = settings or EvaluationSettings()
    if output is not None:
        check_output_file(output)
    cache_dir = Path(cache_dir or default_cache_dir())
    check_output_folder(cache_dir)
    task = get_task(task, **task_options) if isinstance(task, str) else task
    data = task.load(data_dir, settings.max_bad_files)
    encoder = open_encoder(model, device, dtype)
    run = _Run(task, data, encoder, settings, cache_dir, data_dir)
    results = {**run.results(), "model": _shown(model), "model_fingerprint": encoder.fingerprint}
    if output is not None:
        write_json(Path(output), results)
    return results


def default_cache_dir() -> Path:
    """Features and probes by default: `mert_hf/evaluation` below the Hugging Face home."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "mert_hf" / "evaluation"


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that the file is the old or the new one, whole, whenever the process ends."""
    with staged_file(path) as part:
        part.write_text(json.dumps(value, indent=1), encoding="utf-8")


class _Run:
    def __init__(
        self,
        task: Task,
        data: TaskData,
        encoder: Encoder,
        settings: EvaluationSettings,
        cache_dir: Path,
        data_dir: str | Path,
    ) -> None:
        self.task, self.encoder, self.settings = task, encoder, settings
        self.device = getattr(getattr(encoder, "model", None), "device", torch.device("cpu"))
        self.layers = _choose_layers(settings.layers, encoder.num_layers)
        self.stored = self._stored_layers()
        dtype = "float16" if task.kind in FRAME_KINDS else "float32"
        key = store_settings(task, encoder, self.stored, str(Path(data_dir).resolve()))
        with FeatureStore(cache_dir, key, (len(self.stored), encoder.hidden_size), dtype) as store:
            failed = extract(
                task,
                data.recordings,
                encoder,
                self.stored,
                store,
                settings.batch_size,
                Tolerance.parse(settings.max_bad_files).allowed(len(data.recordings)),
                settings.progress,
            )
            self.data = replace(data, recordings=tuple(r for r in data.recordings if r.id not in failed))
            self.table = FeatureTable.open(store, self.data.recordings)
        if encoder.standardize:
            self.table.standardize(self.data.split("train"))
        self.grid_data = self._grid_data()
        self.probe_dir = store.folder / "probes" / fingerprint(self._probe_key())

    def _stored_layers(self) -> list[int]:
        """Frames of all layers take gigabytes, so frame tasks keep only the layers that are probed."""
        if self.task.kind not in FRAME_KINDS or ALL_LAYERS in self.layers:
            return list(range(self.encoder.num_layers))
        return [layer for layer in self.layers if layer != ALL_LAYERS]

    def _grid_data(self):
        encoder, kind = self.encoder, self.task.kind
        frame_rate = encoder.sampling_rate / encoder.hop_length
        if kind == "beats":
            return BeatData(self.data, self.table, frame_rate, BEAT_CROP_SECONDS, 1, self.device)
        if kind == "separation":
            from .separation import SeparationData

            rate, hop = encoder.sampling_rate, encoder.hop_length
            return SeparationData(self.data, self.table, rate, hop, self.settings.fft_size, self.device)
        from .chunks import ChunkData

        return ChunkData(self.task, self.data, self.table, self.device)

    def _probe_key(self) -> dict[str, Any]:
        """What decides the probes beside the features: targets, splits, grid and training."""
        digest = hashlib.sha256()
        for recording in self.data.recordings:
            digest.update(repr((recording.id, recording.split, _plain(recording.target))).encode())
        settings = self.settings
        return {
            "recordings": digest.hexdigest(),
            "labels": list(self.data.labels),
            "learning_rates": list(settings.learning_rates),
            "seeds": list(settings.seeds),
            "probe": asdict(self._probe_settings()),
            "fft_size": settings.fft_size,
        }

    def _probe_settings(self) -> ProbeSettings:
        return replace(self.settings.probe, max_epochs=min(self.settings.probe.max_epochs, self.task.max_epochs))

    def _train_missing(self) -> None:
        # Groups are those of a run from the start, and trained whole: probes that are trained together share products
        # of matrices, whose rounding a smaller group would change.
        for group in self._groups(self.layers):
            missing = [layer for layer in group if not self._record(layer).is_file()]
            if not missing:
                continue
            logger.info("%s: training probes of layers %s", self.task.name, ", ".join(map(str, group)))
            positions = [layer if layer == ALL_LAYERS else self.stored.index(layer) for layer in group]
            probes = grid(positions, self.settings.learning_rates, self.settings.seeds)
            trained = train_grid(self.grid_data, probes, self._probe_settings(), self.device)
            for layer, position in zip(group, positions, strict=True):
                if layer in missing:
                    self._keep(layer, [probe for probe in trained if probe.probe.layer == position])

    def _groups(self, layers: list[int | str]) -> Iterator[list[int | str]]:
        data, settings = self.grid_data, self.settings
        weights = num_weights(data.dim, settings.probe.hidden_size, data.num_outputs)
        size = max(1, GROUP_WEIGHTS // (weights * len(settings.learning_rates) * len(settings.seeds)))
        for start in range(0, len(layers), size):
            yield layers[start : start + size]

    def _keep(self, layer: int | str, trained: list[TrainedProbe]) -> None:
        """Chooses the layer's learning rate by validation, and writes its probes and all scores."""
        rate = _best(
            (rate, [(t.score, t.loss) for t in trained if t.probe.learning_rate == rate])
            for rate in self.settings.learning_rates
        )
        winners = [probe for probe in trained if probe.probe.learning_rate == rate]
        weights = {f"{p.probe.seed}.{name}": value for p in winners for name, value in p.weights.items()}
        record = {
            "layer": layer,
            "learning_rate": rate,
            "grid": [_summary(probe) for probe in trained],
            "validation": [self.grid_data.metrics(probe, "valid") for probe in winners],
        }
        if layer == ALL_LAYERS:
            record["layer_weights"] = [probe.weights["mixture"].softmax(0).tolist() for probe in winners]
        with staged_file(self._weights(layer)) as part:
            safetensors.torch.save_file({name: value.contiguous() for name, value in weights.items()}, part)
        write_json(self._record(layer), record)

    def _record(self, layer: int | str) -> Path:
        return self.probe_dir / f"{layer}.json"

    def _weights(self, layer: int | str) -> Path:
        return self.probe_dir / f"{layer}.safetensors"

    def _test(self, record: dict[str, Any]) -> list[dict[str, float]]:
        """Test metrics of a layer's probes, one for each seed; kept with the layer's record."""
        layer = record["layer"]
        if "test" not in record:
            record["test"] = [self.grid_data.metrics(probe, "test") for probe in self._load(record)]
            write_json(self._record(layer), record)
        return record["test"]

    def _load(self, record: dict[str, Any]) -> list[TrainedProbe]:
        layer, rate = record["layer"], record["learning_rate"]
        weights = safetensors.torch.load_file(self._weights(layer))
        probes = []
        for summary in (entry for entry in record["grid"] if entry["learning_rate"] == rate):
            (probe,) = grid([layer if layer == ALL_LAYERS else self.stored.index(layer)], [rate], [summary["seed"]])
            prefix = f"{probe.seed}."
            own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            numbers = (summary["score"], summary["loss"], summary["best_epoch"], summary["epochs"])
            probes.append(TrainedProbe(probe, *numbers, own))
        return probes

    def results(self) -> dict[str, Any]:
        """Trains what is missing, chooses the layer by validation, tests it."""
        self._train_missing()
        records = {layer: json.loads(self._record(layer).read_text(encoding="utf-8")) for layer in self.layers}
        metric = self.task.metric
        chosen = _best((layer, _scores(record, metric)) for layer, record in records.items())
        tested = [chosen] if isinstance(self.grid_data, FrameData) else list(records)
        for layer in tested:
            self._test(records[layer])
        return {
            "format": RESULTS_FORMAT,
            "task": self.task.name,
            "title": self.task.title,
            "kind": self.task.kind,
            "metric": metric,
            "metrics": _over_seeds(records[chosen]["test"]),
            "validation": _over_seeds(records[chosen]["validation"]),
            "selected": {"layer": chosen, "learning_rate": records[chosen]["learning_rate"], "by": "validation"},
            "layers": [_layer_summary(record) for record in records.values()],
            "grid": [{"layer": layer, **entry} for layer, record in records.items() for entry in record["grid"]],
            "data": self._data_summary(),
            "protocol": self._protocol(),
            "versions": _versions(),
        }

    def _data_summary(self) -> dict[str, Any]:
        splits = {split: self.data.split(split) for split in SPLITS}
        return {
            "labels": list(self.data.labels),
            "recordings": {split: len(recordings) for split, recordings in splits.items()},
            "rows": {split: sum(self.table.span(r)[1] for r in recordings) for split, recordings in splits.items()},
        }

    def _protocol(self) -> dict[str, Any]:
        encoder, settings = self.encoder, self.settings
        return {
            "window": self.task.window,
            "learning_rates": list(settings.learning_rates),
            "seeds": list(settings.seeds),
            "probe": asdict(self._probe_settings()),
            "standardized": encoder.standardize,
            "sampling_rate": encoder.sampling_rate,
            "num_layers": encoder.num_layers,
            "hidden_size": encoder.hidden_size,
        }


def _choose_layers(layers: Sequence[int | str] | None, num_layers: int) -> list[int | str]:
    """Layers to probe, negative ones resolved.

    Raises:
        ValueError: a layer that the model does not have, or one twice.
    """
    if layers is None:
        return [*range(num_layers), *([ALL_LAYERS] if num_layers > 1 else [])]
    chosen: list[int | str] = []
    for layer in layers:
        if layer != ALL_LAYERS and not (isinstance(layer, int) and -num_layers <= layer < num_layers):
            raise ValueError(f'layer {layer!r} does not exist: the model has {num_layers}, from 0, and "{ALL_LAYERS}"')
        chosen.append(layer if layer == ALL_LAYERS else layer % num_layers)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"layers {list(layers)} names a layer twice")
    return chosen


def _best(candidates) -> Any:
    """The candidate with the highest mean score over seeds; equal ones by lower mean loss, then by order."""
    ranked = [(name, tuple(np.mean(pairs, axis=0))) for name, pairs in candidates]
    return max(ranked, key=lambda entry: (entry[1][0], -entry[1][1]))[0]


def _scores(record: dict[str, Any], metric: str) -> list[tuple[float, float]]:
    """(validation metric, validation loss) of each seed of a layer's chosen learning rate."""
    chosen = [entry for entry in record["grid"] if entry["learning_rate"] == record["learning_rate"]]
    return [(valid[metric], entry["loss"]) for valid, entry in zip(record["validation"], chosen, strict=True)]


def _summary(trained: TrainedProbe) -> dict[str, Any]:
    return {
        "learning_rate": trained.probe.learning_rate,
        "seed": trained.probe.seed,
        "score": trained.score,
        "loss": trained.loss,
        "best_epoch": trained.best_epoch,
        "epochs": trained.epochs,
    }


def _layer_summary(record: dict[str, Any]) -> dict[str, Any]:
    summary = {
        "layer": record["layer"],
        "learning_rate": record["learning_rate"],
        "validation": _over_seeds(record["validation"]),
        "test": _over_seeds(record["test"]) if "test" in record else None,
    }
    if "layer_weights" in record:
        summary["layer_weights"] = np.mean(record["layer_weights"], axis=0).tolist()
    return summary


def _over_seeds(values: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation (None for one seed) of each metric."""
    return {
        name: {
            "mean": float(np.mean([entry[name] for entry in values])),
            "std": float(np.std([entry[name] for entry in values], ddof=1)) if len(values) > 1 else None,
            "values": [entry[name] for entry in values],
        }
        for name in values[0]
    }


def _plain(target: Any) -> Any:
    """A target as plain values, for its digest."""
    if isinstance(target, dict):
        return {name: str(path) for name, path in target.items()}
    if hasattr(target, "beats"):
        return [target.beats.tolist(), target.downbeats.tolist()]
    return target.tolist() if isinstance(target, np.ndarray) else target


def _shown(model: str) -> str:
    """The model's name in results: a folder is told by its last part, as its place means nothing elsewhere."""
    prefix, colon, name = model.rpartition(":")
    return f"{prefix}{colon}{Path(name).resolve().name}" if Path(name).is_dir() else model


def _versions() -> dict[str, str]:
    import transformers

    from .. import __version__

    return {
        "mert_hf": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
