"""Predictions of a fine-tuned model for recordings, in one Parquet file: windows as in training, joined by recording.

The outputs of the windows are a data set of embeddings, with a value for each label: `embed_dataset` makes it, in a
folder next to the file until the file is complete, so that a run that was stopped is resumed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoConfig, AutoFeatureExtractor

from ..embedding.dataset import embed_dataset, read_run
from ..embedding.failures import FailedFile, failure_lines
from ..embedding.shards import read_summary, shard_path
from ..encoders.transformers import TransformersEncoder, check_weights
from ..evaluation.metrics.frames import decode
from ..evaluation.tasks.protocols import STRICT
from ..hub.model_types import auto_class_name, class_name, is_known, model_class
from ..hub.names import check_is_model, checkpoint_folder, readable_weights
from ..recordings.frames import BEAT_LABELS, BOUNDARY_LABELS, CHORD_LABELS
from ..utils.devices import resolve_device, training_precision
from ..utils.files import check_output_file, read_json, staged_file
from ..utils.text import printable
from .objective import PROBLEM_TYPES, FrameObjective, RecordingObjective, on_grid, probabilities
from .settings import CLIP_SECONDS, FINETUNING_FILE, PredictionSettings

HEADS = {"AutoModelForAudioClassification": RecordingObjective, "AutoModelForAudioFrameClassification": FrameObjective}
FRAME_KINDS = {BEAT_LABELS: "beats", CHORD_LABELS: "chords", BOUNDARY_LABELS: "structure"}
TIMES = pa.list_(pa.float64())
PREDICTED = {
    "single_label_classification": pa.string(),
    "multi_label_classification": pa.list_(pa.string()),
    "beats": pa.struct({"beats": TIMES, "downbeats": TIMES}),
    "chords": pa.list_(pa.struct({"start": pa.float64(), "end": pa.float64(), "label": pa.string()})),
    "structure": TIMES,
}
"""Type of the column `prediction` by problem type or kind of frames."""


@dataclass(frozen=True)
class PredictionSummary:
    """The outcome of a run of predictions: the number of recordings given, those that could not be read, and whether
    this process is the one that reports for all."""

    files: int
    failed: tuple[FailedFile, ...]
    is_main: bool = True

    def text(self, output: str | os.PathLike) -> str:
        """The summary in a few lines, the failed recordings among them."""
        lines = [f"{self.files - len(self.failed)} of {self.files} recordings in {output}"]
        return printable("\n".join([*lines, *failure_lines(f"{len(self.failed)} files failed:", self.failed)]))


class HeadEncoder(TransformersEncoder):
    """A fine-tuned model as an encoder: its only layer are the logits, in one frame where the head has no frames. The
    precision is as in training: "float32", or "bfloat16" or "float16" by autocast."""

    precision = "float32"

    def __init__(self, model: torch.nn.Module, feature_extractor: Any, dtype: str = "float32") -> None:
        super().__init__(model, feature_extractor)
        self.config, self.precision = model.config, dtype
        self.layers, self.hidden_size = (0,), model.config.num_labels
        self.head = HEADS[auto_class_name(model.config, type(model).__name__)]
        self.labels = tuple(model.config.id2label[index] for index in range(self.hidden_size))

    def num_frames(self, num_samples: Any) -> Any:
        return super().num_frames(num_samples) if self.head.by_frame else torch.ones_like(num_samples)

    def forward(self, inputs: dict[str, torch.Tensor], layers: Sequence[int]) -> Sequence[torch.Tensor]:
        """The logits (clips, frames, labels), as the only layer."""
        dtype = getattr(torch, self.precision)
        with torch.autocast(self.model.device.type, dtype, enabled=dtype != torch.float32):
            logits = self.model(**inputs, return_dict=True).logits
        return [logits if self.head.by_frame else logits[:, None]]


def predict(
    model: str | os.PathLike,
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike = "predictions.parquet",
    **settings: Any,
) -> PredictionSummary:
    """Applies a fine-tuned model to recordings and writes a Parquet file with a row for each of them.

    Windows are those of training. The outputs for recordings are the mean of the logits of their windows, those for
    frames are joined and decoded, as for the metrics of `fine_tune`. A run that was stopped is resumed by calling this
    again with the same arguments.

    Columns: `path`; `prediction`, the label, the list of labels above 0.5, the numbers (regression), or the beats,
    chords or boundaries; `scores`, the probability of each label, for frames a list; `frame_times` for frames, in
    seconds; `error`, why a recording could not be read, where the others are empty.

    Args:
        model: folder that `fine_tune` wrote, or Hub id.
        paths: files, folders and globs, see `find_audio_files`.
        output: the file; outputs of windows are kept in the folder `OUTPUT.unfinished` until it is complete.
        settings: fields of `PredictionSettings`.

    Raises:
        ValueError: not a fine-tuned model; an argument out of its range; no recording; an unfinished run of other
            settings.
        OSError: none of the recordings exists, or `output` cannot be written.
    """
    wanted, output = PredictionSettings(**settings), Path(output)
    if output.suffix != ".parquet":
        raise ValueError(f"output={str(output)!r} must be a file whose name ends in .parquet.")
    check_output_file(output)
    encoder, heard = open_head(model, wanted)
    unfinished = output.with_name(f"{output.name}.unfinished")
    given = {name: getattr(wanted, name) for name in ("batch_size", "workers", "device", "show_progress_bar")}
    pooling = "frames" if encoder.head.by_frame else "mean"
    summary = embed_dataset(paths, unfinished, encoder, pooling=pooling, **heard, **given)
    if summary.is_main:
        facts = {"model": os.fspath(model), **heard, "labels": encoder.labels}
        _write_rows(output, unfinished, encoder, facts)
        shutil.rmtree(unfinished)
    return PredictionSummary(summary.files, summary.failed, summary.is_main)


def open_head(name: str | os.PathLike, settings: PredictionSettings) -> tuple[HeadEncoder, dict[str, Any]]:
    """A fine-tuned model, and the `window` in seconds and the `channels` that it hears; ValueError for another model,
    or where weights are missing, OSError where there is none."""
    folder = checkpoint_folder(name)
    check_is_model(str(folder))
    config = AutoConfig.from_pretrained(folder)
    if not is_known(config) or auto_class_name(config, class_name(config)) not in HEADS:
        raise ValueError(
            f"{name} is not a fine-tuned MERT model, its class is {(config.architectures or ['not stated'])[0]}. Give "
            "the folder that `mert-hf finetune` printed; `mert-hf embed` takes models without a head."
        )
    device = resolve_device(settings.device)
    precision = training_precision(settings.dtype, "cuda" if device.type == "cuda" else "cpu")
    dtype = "bfloat16" if precision["bf16"] else "float16" if precision["fp16"] else "float32"
    with readable_weights(name):
        model, info = model_class(config).from_pretrained(folder, output_loading_info=True)
    check_weights(name, model, info)
    encoder = HeadEncoder(model.to(device), AutoFeatureExtractor.from_pretrained(folder), dtype)
    run = folder / FINETUNING_FILE
    trained_on = {"window": CLIP_SECONDS, "channels": "mean"} | (read_json(run) if run.is_file() else {})
    return encoder, {name: getattr(settings, name) or trained_on[name] for name in ("window", "channels")}


def _write_rows(output: Path, folder: Path, encoder: HeadEncoder, facts: dict[str, Any]) -> None:
    """Writes the rows of all shards, in their order."""
    schema = _schema(encoder).with_metadata({"mert_hf": json.dumps(facts)})
    with staged_file(output) as part, pq.ParquetWriter(part, schema) as writer:
        for index, files in enumerate(read_run(folder)[1]):
            path = shard_path(folder, index)
            failed = {file.path: file.error for file in read_summary(path).failed}
            answers = dict(_answers(path, encoder))
            rows = [answers.get(printable(file.path)) or {"error": failed[file.path]} for file in files]
            rows = [{"path": printable(file.path), **row} for file, row in zip(files, rows, strict=True)]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _schema(encoder: HeadEncoder) -> pa.Schema:
    number = pa.list_(pa.float32()) if encoder.head.by_frame else pa.float64()
    scores = pa.struct([(label, number) for label in encoder.labels])
    kind = FRAME_KINDS.get(encoder.labels) if encoder.head.by_frame else encoder.config.problem_type
    columns: dict[str, pa.DataType] = {"path": pa.string()}
    if kind == PROBLEM_TYPES["regression"]:
        columns["prediction"] = scores
    else:
        columns |= {"prediction": PREDICTED[kind]} if kind in PREDICTED else {}
        columns |= {"frame_times": TIMES} if encoder.head.by_frame else {}
        columns["scores"] = scores
    return pa.schema({**columns, "error": pa.string()})


def _answers(shard: Path, encoder: HeadEncoder) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each recording of a shard with its row."""
    table = pq.read_table(shard, columns=["path", "start", "end", "embedding"])
    limits = zip(*(table[name].to_pylist() for name in ("path", "start", "end")), table["embedding"], strict=True)
    for path, windows in groupby(limits, key=lambda row: row[0]):
        outputs = [(start, end, _array(values, encoder)) for _, start, end, values in windows]
        if len(outputs) > 1 and outputs[-1][1] - outputs[-1][0] < encoder.head.shortest_window:
            outputs.pop()
        yield path, (_frames if encoder.head.by_frame else _recording)(outputs, encoder)


def _array(values: pa.ListScalar, encoder: HeadEncoder) -> np.ndarray:
    """Logits of a window: (labels,), or (frames, labels)."""
    array = values.values
    return array.flatten().to_numpy().reshape(-1, len(encoder.labels)) if encoder.head.by_frame else array.to_numpy()


Outputs = Sequence[tuple[float, float, np.ndarray]]  # start and end of each window in seconds, and its logits


def _recording(windows: Outputs, encoder: HeadEncoder) -> dict[str, Any]:
    """The row of a recording with one answer."""
    logits, labels = np.stack([values for *_, values in windows]).mean(axis=0), encoder.labels
    if encoder.config.problem_type == PROBLEM_TYPES["regression"]:
        return {"prediction": dict(zip(labels, logits.tolist(), strict=True))}
    scores = dict(zip(labels, probabilities(logits, encoder.config).tolist(), strict=True))
    chosen: Any = labels[logits.argmax()]
    if encoder.config.problem_type == PROBLEM_TYPES["multilabel"]:
        chosen = [label for label, score in scores.items() if score > 0.5]
    return {"prediction": chosen, "scores": scores}


def _frames(windows: Outputs, encoder: HeadEncoder) -> dict[str, Any]:
    """The row of a recording with an answer for each frame."""
    scores = np.concatenate([on_grid(values, start, end, encoder.config) for start, end, values in windows])
    rate, kind = encoder.config.frame_rate, FRAME_KINDS.get(encoder.labels)
    row = {"frame_times": np.arange(len(scores)) / rate, "scores": dict(zip(encoder.labels, scores.T, strict=True))}
    if kind is None:
        return row
    found = decode(kind, scores, rate, STRICT.downbeat_tempi)
    if kind == "chords":
        limits = zip(*found.intervals.T.tolist(), found.labels, strict=True)
        found = [dict(zip(("start", "end", "label"), segment, strict=True)) for segment in limits]
    return {**row, "prediction": asdict(found) if kind == "beats" else found}
