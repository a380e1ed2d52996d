"""Recordings -> predictions of several models -> rows of a table, and tags of the files where that is wanted."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..audio import find_audio_files
from ..audio.read_ahead import read_ahead
from ..embedding.failures import FailedFile, failure_lines, readable_windows
from ..embedding.windows import SpeedBar, embed_windows, recording_windows
from ..encoders import open_encoder
from ..finetuning import predict
from ..hub.names import DEFAULT_CHECKPOINT
from ..utils.files import check_output_file, staged_file
from ..utils.optional import require_extra
from ..utils.text import one_line, printable
from .heads import Prediction, TagHead
from .settings import BUNDLED_HEADS, TAGS, TaggingSettings
from .writing import TagError, UndoLog, write_tags

DEFAULT_CONFIDENCE = 0.5  # of fine-tuned models
MODES = {"major": "", "minor": "m"}


@dataclass
class TaggedFile:
    """A recording with its predictions."""

    path: str  # as given
    predictions: dict[str, Prediction] = field(default_factory=dict)  # by tag
    written: dict[str, list[str]] = field(default_factory=dict)  # by tag, texts that were written into the file
    error: str | None = None  # why the recording could not be read or written

    def as_json(self) -> dict[str, Any]:
        """The row of a table: path, `TAG` and `TAG_confidence` for each tag, the tags that were written, error."""
        row: dict[str, Any] = {"path": printable(self.path)}
        for name, prediction in self.predictions.items():
            several = name in ("instruments", "mood")
            row[name] = list(prediction.texts) if several else (prediction.texts or (None,))[0]
            row[f"{name}_confidence"] = prediction.confidence
        return {**row, "written": list(self.written), "error": self.error}


@dataclass(frozen=True)
class TagSummary:
    """The outcome of a run: a row for each recording."""

    rows: tuple[TaggedFile, ...]

    @property
    def failed(self) -> tuple[FailedFile, ...]:
        """The recordings that could not be read or written."""
        return tuple(FailedFile(row.path, error=row.error) for row in self.rows if row.error)

    def text(self) -> str:
        """The summary in a few lines."""
        written = sum(bool(row.written) for row in self.rows)
        lines = [f"{len(self.rows) - len(self.failed)} of {len(self.rows)} recordings, tags written into {written}"]
        return printable("\n".join([*lines, *failure_lines(f"{len(self.failed)} files failed:", self.failed)]))

    def save(self, output: str | os.PathLike) -> None:
        """Writes the rows as `*.json` or `*.parquet`."""
        rows = [row.as_json() for row in self.rows]
        with staged_file(output) as part:
            if Path(output).suffix == ".json":
                part.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
            else:
                names = dict.fromkeys(name for row in rows for name in row)
                pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), part)


def tag_recordings(
    paths: Sequence[str | os.PathLike], output: str | os.PathLike | None = None, **settings: Any
) -> TagSummary:
    """Predicts tags of recordings, and writes them into the files where `write` is set.

    Args:
        paths: files, folders and globs, see `find_audio_files`.
        output: `*.json` or `*.parquet` for the rows; none if None.
        settings: fields of `TaggingSettings`.

    Raises:
        ValueError: an unknown model, or an argument out of its range.
        OSError: no recording, or the output cannot be written.
    """
    wanted = TaggingSettings(**settings)
    models = parse_models(wanted.model)
    for file in [output] * (output is not None) + [wanted.log] * wanted.write:
        check_output_file(file)
    if output is not None and Path(output).suffix not in (".json", ".parquet"):
        raise ValueError(f"output={str(output)!r} must be a file whose name ends in .json or .parquet.")
    if wanted.write:
        require_extra("search", "mutagen")
    rows = [TaggedFile(os.fspath(path)) for path in find_audio_files(paths)]
    thresholds = _apply_heads([name for name, model in models.items() if model is None], rows, wanted)
    for name, model in models.items():
        if model is not None:
            thresholds[name] = DEFAULT_CONFIDENCE if wanted.confidence is None else wanted.confidence
            _apply_model(name, model, rows, wanted, thresholds[name])
    if wanted.write:
        for row in rows:
            _write(row, thresholds, wanted)
    summary = TagSummary(tuple(rows))
    if output is not None:
        summary.save(output)
    return summary


def parse_models(words: Sequence[str]) -> dict[str, str | None]:
    """Tag -> folder of a fine-tuned model, or None for the bundled head; ValueError for other words, or a tag twice."""
    models: dict[str, str | None] = {}
    for word in words or BUNDLED_HEADS:
        name, equals, model = word.partition("=")
        if name not in (TAGS if equals else BUNDLED_HEADS) or (equals and not model):
            raise ValueError(
                f"model={word!r} must be {' or '.join(BUNDLED_HEADS)}, or TAG=FOLDER with a tag of {', '.join(TAGS)}."
            )
        if name in models:
            raise ValueError(f"model: {name} is given twice. Give one model for each tag.")
        models[name] = model or None
    return models


def _apply_heads(names: Sequence[str], rows: Sequence[TaggedFile], settings: TaggingSettings) -> dict[str, float]:
    """Adds the predictions of bundled heads to the rows; the lowest confidence that is written, for each."""
    if not names:
        return {}
    heads = [TagHead.load(name) for name in names]
    encoder = open_encoder(DEFAULT_CHECKPOINT, settings.device, "float32")
    for head in heads:
        head.check(encoder.fingerprint)
    files, failed = [row.path for row in rows], {}
    readers = [partial(recording_windows, encoder, file, heads[0].window, None, 1.0) for file in files]
    bar = SpeedBar(None, disable=not settings.show_progress_bar)
    with bar, closing(read_ahead(readers, settings.workers)) as items:
        windows = readable_windows(items, files, failed)
        embedded = embed_windows(encoder, windows, heads[0].layers, "frames", settings.batch_size)
        for number, group in groupby(embedded, itemgetter(0)):
            outputs = []
            for _, window, frames in group:
                bar.advance(number, window)
                outputs.append([head.outputs(frames) for head in heads])
            for head, answers in zip(heads, zip(*outputs, strict=True), strict=True):
                rows[number].predictions[head.name] = head.answer(answers)
    for number, failure in failed.items():
        rows[number].error, rows[number].predictions = failure.error, {}
    return {head.name: head.confidence if settings.confidence is None else settings.confidence for head in heads}


def _apply_model(
    name: str, model: str, rows: Sequence[TaggedFile], settings: TaggingSettings, threshold: float
) -> None:
    """Adds the predictions of a fine-tuned model to the rows."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "predictions.parquet"
        options = {key: getattr(settings, key) for key in ("batch_size", "workers", "device", "show_progress_bar")}
        predict(model, [row.path for row in rows], table, **options)
        answers = {answer["path"]: answer for answer in pq.read_table(table).to_pylist()}
    for row in rows:
        answer = answers[printable(row.path)]
        if answer["error"]:
            row.error = answer["error"]
        else:
            row.predictions[name] = prediction_of(answer, model, threshold)


def prediction_of(answer: dict[str, Any], model: str, threshold: float) -> Prediction:
    """The prediction in a row of `mert_hf.finetuning.predict`; ValueError for frames, whose answer is not a tag."""
    found, scores = answer.get("prediction"), answer.get("scores")
    if isinstance(found, str):
        return Prediction((found,), scores[found])
    if isinstance(found, list) and scores and not isinstance(next(iter(scores.values())), list):
        chosen = sorted((label for label in scores if scores[label] >= threshold), key=scores.get, reverse=True)
        return Prediction(tuple(chosen), min((scores[label] for label in chosen), default=None))
    if isinstance(found, dict) and scores is None and len(found) == 1:
        return Prediction((f"{next(iter(found.values())):.1f}",), None)
    raise ValueError(f"{model} does not predict a tag: give a model for classes, several labels or one number.")


def _write(row: TaggedFile, thresholds: dict[str, float], settings: TaggingSettings) -> None:
    """Writes what is certain enough into the file."""
    values = {
        name: [_written_form(name, text) for text in found.texts]
        for name, found in row.predictions.items()
        if found.confidence is not None and found.confidence >= thresholds[name]
    }
    if row.error or not values:
        return
    try:
        row.written = write_tags(row.path, values, UndoLog(settings.log), settings.overwrite)
    except (TagError, OSError) as error:
        row.error = one_line(error)


def _written_form(name: str, text: str) -> str:
    """Keys as ID3 has them ("Am", "Eb"), tempi in whole beats a minute."""
    if name == "tempo":
        return str(round(float(text)))
    words = text.split()
    if name == "key" and len(words) == 2 and words[1] in MODES:
        return words[0] + MODES[words[1]]
    return text
