"""One encoder on one task: extract features, train the grid, choose on validation, test.

What is finished stays on disk below the cache folder: features recording by recording, probes layer by layer. An
evaluation that was stopped computes only what is missing when it is started again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...encoders import Encoder, resolve_layers
from ...encoders.own import StoredFeatures
from ...recordings.recordings import SPLITS, BeatTimes, Segments, TaskData
from ...utils.settings import WEIGHTED
from ..metrics.by_kind import intervals, scores
from ..metrics.predictions import Predictions
from ..metrics.retrieval import query_scores
from ..tasks import FRAME_KINDS, Task
from ..tasks.protocols import Protocol
from .chunks import NEIGHBORS, ChunkData, NearestNeighbors, choose_neighbors
from .features import ComputedFrames, FeatureRequest, FrameFeatures, estimated_bytes, extract
from .frames import BinaryBeats, FrameClassData, SeparationData
from .probes import GridData, TrainedProbe, grid, num_weights, train_grid
from .results import RESULTS_FORMAT, Layer, ProbeArchive, Record, choice, layer_summary, over_seeds, versions
from .settings import EvaluationSettings, ProbeSettings
from .store import FeatureStore, FeatureTable, fingerprint

logger = logging.getLogger(__name__)

GROUP_WEIGHTS = 2**25  # weights trained at a time: 0.5 GB with Adam's two moments and the best epoch's copy
FRAME_STORE_BYTES = 8e9  # features of frame tasks that "auto" keeps on disk


@dataclass
class Evaluation:
    """One encoder on one task: its recordings, in `data_dir`, of which `run` leaves out those that cannot be read; a
    folder for features and probes; and the device where probes are trained."""

    task: Task
    data: TaskData
    encoder: Encoder | StoredFeatures
    settings: EvaluationSettings
    cache_dir: Path
    data_dir: Path
    device: torch.device

    @cached_property
    def protocol(self) -> Protocol:
        return self.settings.chosen_protocol(self.task.name)

    @property
    def _trains(self) -> bool:
        return self.task.kind != "retrieval" and self.settings.probe_kind == "mlp"

    @cached_property
    def layers(self) -> list[Layer]:
        layers = choose_layers(self.settings.layers, self.encoder)
        if self._trains:
            return layers
        if single := [layer for layer in layers if layer != WEIGHTED]:
            return single
        raise ValueError("Without training no average of layers is learned; give --layers all, or numbers.")

    @cached_property
    def request(self) -> FeatureRequest:
        """The features that are needed: of frame tasks, whose features take gigabytes, only the layers probed."""
        every = WEIGHTED in self.layers or self.task.kind not in FRAME_KINDS
        layers, window = None if every else self.layers, self.settings.window
        return FeatureRequest.of(self.task, self.protocol, self.encoder, layers, window)

    @cached_property
    def archive(self) -> ProbeArchive:
        folder = fingerprint({**self.request.key(), **self._probe_key()})
        return ProbeArchive(self.cache_dir / "probes" / folder)

    def run(self) -> tuple[dict[str, Any], dict[int, Predictions]]:
        """Extracts and trains what is missing, chooses the layer by validation, tests it. Returns the results, and the
        predictions of each seed for the test recordings."""
        features = self.features()
        if self._trains:
            self._train(features)
        else:
            self._choose(features)
        records = {layer: self.archive.read(layer) for layer in self.layers}
        metric = self.task.metric
        chosen = best_candidate((layer, _validation_scores(record, metric)) for layer, record in records.items())
        for layer in [chosen] if self.task.kind in FRAME_KINDS else records:
            if "test" not in (record := records[layer]):
                found = self.predictions(record, features, "test")
                record["test"] = [self.scores(part) for part in found.values()]
                self.archive.write(record)
        predictions = self.predictions(records[chosen], features, "test")
        return self._results(records, chosen, predictions, features), predictions

    def retrieved(self, table: FeatureTable, layer: int, split: str, queries: Evaluation | None = None) -> Predictions:
        """The ranking for each query of a split; with other `queries`, those recordings are searched for."""
        position, recordings = self.request.layers.index(layer), self.data.split(split)
        embeddings = table.recording_means(recordings, position)
        asked = None if queries is None else queries.features().recording_means(queries.data.split(split), position)
        works = np.array([recording.target for recording in recordings])
        return Predictions(tuple(recording.id for recording in recordings), query_scores(embeddings, works, asked))

    def features(self) -> FrameFeatures:
        """Features of all recordings, standardized as the protocol asks."""
        computed = self.task.kind in FRAME_KINDS and self._computes_frames()
        features = ComputedFrames(self.request) if computed else self._stored_features()
        if not self._standardizes:
            return features
        return features.standardized(self.data.split("train") or self.data.split("valid"))

    @property
    def _standardizes(self) -> bool:
        return self.protocol.standardize == "always" or self.request.handmade

    def _stored_features(self) -> FeatureTable:
        request, recordings = self.request, self.data.recordings
        places = self.cache_dir / "features", request.key(), request.shape, self.settings.store_dtype, self.data_dir
        with FeatureStore(*places) as store:
            failed = extract(request, recordings, store, self.settings, self.task.name)
            unreadable = tuple(f"{name} (unreadable)" for name in sorted(failed))
            left = tuple(recording for recording in recordings if recording.id not in failed)
            self.data = replace(self.data, recordings=left, skipped=self.data.skipped + unreadable)
            return FeatureTable(store.rows(), {recording.id: store.span(recording) for recording in left})

    def _computes_frames(self) -> bool:
        """Whether frames are computed when needed; crops that the encoder sees alone cannot be stored."""
        if self.settings.frame_features != "auto":
            return self.settings.frame_features == "compute"
        layers, dim = self.request.shape
        row_bytes = layers * dim * np.dtype(self.settings.store_dtype).itemsize
        needed = estimated_bytes(self.data.recordings, self.request.rows_per_second, row_bytes)
        return self.protocol.crop_context == "crop" or needed > FRAME_STORE_BYTES

    def grid_data(self, features: FrameFeatures) -> GridData:
        kind, encoder = self.task.kind, self.encoder
        if kind not in FRAME_KINDS:
            return ChunkData(kind, self.data, features, self.device, self.protocol)
        common = self.data, features, encoder.sampling_rate, encoder.hop_length, self.device, self.protocol
        if kind == "separation":
            return SeparationData(*common, self.settings.fft_size)
        binary = kind == "beats" and self.protocol.beat_outputs == "binary"
        return (BinaryBeats if binary else FrameClassData)(*common, kind)

    def positions(self, layers: Sequence[Layer]) -> list[int]:
        """Where the layers of a group stand in the features; the learned average takes each, or each but the input."""
        if WEIGHTED in layers:
            layers = self.request.layers
            with_input = self.protocol.input_in_average or len(layers) == 1
            return [place for place, layer in enumerate(layers) if with_input or layer > 0]
        return [self.request.layers.index(layer) for layer in layers]

    def _groups(self, dim: int, num_outputs: int) -> Iterator[list[Layer]]:
        """Layers that are trained together: as many single ones as fit, and the learned average by itself."""
        weights = num_weights(dim, self._probe_settings.hidden_size, num_outputs)
        grid_size = len(self.settings.learning_rates) * len(self.settings.seeds)
        size = max(1, GROUP_WEIGHTS // (weights * grid_size))
        single = [layer for layer in self.layers if layer != WEIGHTED]
        yield from (single[start : start + size] for start in range(0, len(single), size))
        if WEIGHTED in self.layers:
            yield [WEIGHTED]

    def _train(self, features: FrameFeatures) -> None:
        # Groups are those of a run from the start, and trained whole: probes that are trained together share products
        # of matrices, whose rounding a smaller group would change.
        for group in self._groups(features.dim, self.grid_data(features).num_outputs):
            missing = [layer for layer in group if layer not in self.archive]
            if not missing:
                continue
            logger.info("%s: training probes of layers %s", self.task.name, ", ".join(map(str, group)))
            data = self.grid_data(features.held(self.positions(group), self.device))
            names = [WEIGHTED] if group == [WEIGHTED] else list(range(len(group)))
            probes = grid(names, self.settings.learning_rates, self.settings.seeds)
            trained = train_grid(data, probes, self._probe_settings, self.device)
            for layer, name in zip(group, names, strict=True):
                if layer in missing:
                    self._keep(layer, [probe for probe in trained if probe.probe.layer == name], data)

    def _choose(self, features: FeatureTable) -> None:
        """What replaces training: the choice within each layer, and its validation scores."""
        for layer in self.layers:
            if layer in self.archive:
                continue
            record = {"layer": layer, "learning_rate": 0.0, "grid": []}
            if self.task.kind != "retrieval":
                data = self.grid_data(features.held(self.positions([layer]), self.device))
                record["neighbors"], record["grid"] = choose_neighbors(data)
            valid = self.predictions(record, features, "valid")
            self.archive.write({**record, "validation": [self.scores(part) for part in valid.values()]})

    def _keep(self, layer: Layer, trained: list[TrainedProbe], data: Any) -> None:
        """Chooses the layer's learning rate by validation, and writes its probes and all scores."""
        rate = best_candidate(
            (rate, [(t.score, t.loss) for t in trained if t.probe.learning_rate == rate])
            for rate in self.settings.learning_rates
        )
        winners = [probe for probe in trained if probe.probe.learning_rate == rate]
        record = {
            "layer": layer,
            "learning_rate": rate,
            "grid": [probe.summary() for probe in trained],
            "validation": [self.scores(data.predict(probe, "valid")) for probe in winners],
        }
        if layer == WEIGHTED:
            record["layer_weights"] = [probe.weights["mixture"].softmax(0).tolist() for probe in winners]
        self.archive.write(record, winners)

    def scores(self, predictions: Predictions) -> dict[str, float]:
        return scores(self.task.kind, predictions, self.data.labels, self.protocol.beat_counts)

    def predictions(self, record: Record, features: FrameFeatures, split: str) -> dict[int, Predictions]:
        """The predictions of a layer's probes for a split, by seed."""
        layer = record["layer"]
        if self.task.kind == "retrieval":
            return {0: self.retrieved(features, layer, split)}
        data = self.grid_data(features.held(self.positions([layer]), self.device))
        if "neighbors" in record:
            return {self.settings.seed: data.predict(NearestNeighbors.of(data, record["neighbors"]), split)}
        probes = self.archive.load(record, WEIGHTED if layer == WEIGHTED else 0)
        return {probe.probe.seed: data.predict(probe, split) for probe in probes}

    @cached_property
    def _probe_settings(self) -> ProbeSettings:
        return self.settings.probe_settings(self.task)

    def _probe_key(self) -> dict[str, Any]:
        """Everything that decides the probes in addition to the features: targets, splits, files, grid and training."""
        digest = hashlib.sha256()
        for recording in self.data.recordings:
            known = [recording.id, recording.split, _plain_target(recording.target), recording.ensemble]
            digest.update(repr([*known, recording.version()]).encode())
        settings, protocol = self.settings, self.protocol
        return {
            "recordings": digest.hexdigest(),
            "data": str(self.data_dir.resolve()),
            "labels": list(self.data.labels),
            "learning_rates": list(settings.learning_rates),
            "seeds": list(settings.seeds),
            "probe": self._probe_summary(),
            "protocol": {**protocol.summary(), "differences": None, "source": None, "name": None},
            "store_dtype": settings.store_dtype,
            "fft_size": settings.fft_size,
        }

    def _probe_summary(self) -> dict[str, Any]:
        if self.settings.probe_kind == "knn":
            return {"kind": "knn", "distance": "cosine", "neighbors": list(NEIGHBORS)}
        return {"kind": self.settings.probe_kind, **asdict(self._probe_settings)}

    def _results(
        self, records: dict[Layer, Record], chosen: Layer, predictions: dict[int, Predictions], features: Any
    ) -> dict[str, Any]:
        task, found = self.task, over_seeds(records[chosen]["test"])
        counts, resamples = self.protocol.beat_counts, self.settings.resamples
        for metric, interval in intervals(task.kind, predictions, self.data.labels, counts, resamples).items():
            found[metric]["interval"] = interval
        return {
            "format": RESULTS_FORMAT,
            "task": task.name,
            "title": task.title,
            "kind": task.kind,
            "metric": task.metric,
            "metrics": found,
            "validation": over_seeds(records[chosen]["validation"]),
            "selected": {"layer": chosen, **choice(records[chosen]), "by": "validation"},
            "layers": [layer_summary(record) for record in records.values()],
            "grid": [{"layer": layer, **entry} for layer, record in records.items() for entry in record["grid"]],
            "data": self._data_summary(features),
            "protocol": self._protocol_summary(),
            "versions": versions(),
        }

    def _data_summary(self, features: FrameFeatures) -> dict[str, Any]:
        splits = {split: self.data.split(split) for split in SPLITS}
        return {
            "labels": list(self.data.labels),
            "manifest": self.data.manifest_hash,
            "skipped": list(self.data.skipped),
            "recordings": {split: len(recordings) for split, recordings in splits.items()},
            "rows": {split: sum(map(features.count, recordings)) for split, recordings in splits.items()},
        }

    def _protocol_summary(self) -> dict[str, Any]:
        encoder, settings = self.encoder, self.settings
        return {
            **self.protocol.summary(),
            "window": self.request.window,
            "channels": settings.channels,
            "learning_rates": list(settings.learning_rates),
            "seeds": list(settings.seeds),
            "probe": self._probe_summary(),
            "standardized": self._standardizes,
            "store_dtype": settings.store_dtype,
            "sampling_rate": encoder.sampling_rate,
            "num_layers": len(encoder.layers),
            "values": self.request.shape[1],
        }


def choose_layers(layers: Sequence[Layer] | None, encoder: Encoder | StoredFeatures) -> list[Layer]:
    """Layers to probe: numbers, "all" and "weighted", or None for each layer and the learned average; ValueError for a
    layer that the encoder does not have, or one twice."""
    if layers is None:
        return [*encoder.layers, *([WEIGHTED] if len(encoder.layers) > 1 else [])]
    chosen: list[Layer] = []
    for layer in layers:
        chosen += [WEIGHTED] if layer == WEIGHTED else resolve_layers(layer, encoder)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"layers={list(layers)} names a layer twice.")
    return chosen


def best_candidate(candidates) -> Any:
    """The name among (name, [(score, loss) of each seed]) with the highest mean score; equal ones by lower mean loss,
    then by order."""
    ranked = [(name, tuple(np.mean(pairs, axis=0))) for name, pairs in candidates]
    return max(ranked, key=lambda entry: (entry[1][0], -entry[1][1]))[0]


def _validation_scores(record: Record, metric: str) -> list[tuple[float, float]]:
    """(validation metric, validation loss) of each seed of a layer's chosen learning rate."""
    losses = [entry["loss"] for entry in record["grid"] if entry.get("learning_rate") == record["learning_rate"]]
    return [(valid[metric], loss) for valid, loss in zip(record["validation"], losses or [0.0], strict=True)]


def _plain_target(target: Any) -> Any:
    """A target as plain values, for its digest."""
    if isinstance(target, dict):
        return {name: str(path) for name, path in target.items()}
    if isinstance(target, (BeatTimes, Segments)):
        return [_plain_target(value) for value in vars(target).values()]
    return target.tolist() if isinstance(target, np.ndarray) else target
