"""The data sets of a pre-training run: crops of recordings or of shards, for training and for evaluation."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset
from transformers import PretrainedConfig

from ..corpora.crops import CropDataset, NothingToReadError
from ..corpora.dataset import AudioCropDataset, AudioFiles, held_out_recordings, open_indexed
from ..corpora.labels import LabelCache
from ..corpora.streaming import ShardCropDataset, are_shards
from ..utils.tolerance import Tolerance
from .arguments import PretrainingDataArguments

logger = logging.getLogger(__name__)

FEW_CROPS = 8  # of an evaluation, below which its results depend on chance
Datasets = tuple[CropDataset, CropDataset | None]


def build_datasets(
    config: PretrainedConfig, data_arguments: PretrainingDataArguments, seed: int, caches: Sequence[LabelCache] = ()
) -> tuple[CropDataset, Dataset | None]:
    """Crops for training and for evaluation (None without evaluation data), without recordings that have no labels.

    Evaluation takes `eval_data`, else the rows of `eval_split` in `train_data`, else `eval_share` of the training
    recordings, which are then not trained on; None where no recording of that share can be used.

    Raises:
        ValueError: there is nothing to read, or recordings were never labeled.
        TooManyBadFilesError: more recordings than tolerated could not be read or labeled.
    """
    settings = {
        "crop_length": data_arguments.crop_length,
        "sampling_rate": config.sampling_rate,
        "hop_length": config.samples_per_frame,
        "seed": seed,
        "max_bad_files": data_arguments.max_bad_files,
        "min_duration": data_arguments.min_duration,
    }
    share = parse_share(data_arguments.eval_share)
    if are_shards(data_arguments.train_data):
        train, evaluation = _crops_of_shards(data_arguments, share, settings)
    else:
        train, evaluation = _crops_of_recordings(data_arguments, share, settings, caches)
    if evaluation is None:
        return train, None
    report_evaluation(evaluation)
    return train, thinned(evaluation, data_arguments.max_eval_crops)


def report_evaluation(dataset: CropDataset) -> None:
    """Logs the size of the evaluation data, as a warning where it is too small to show anything."""
    found = f"Evaluation on {len(dataset)} crops of {dataset.num_recordings} recordings."
    if len(dataset) < FEW_CROPS or dataset.num_recordings < 2:
        logger.warning("%s Its results depend on chance: raise eval_share, or give eval_data.", found)
    else:
        logger.info(found)


def held_out(make: Callable[[], CropDataset]) -> CropDataset | None:
    """The held-out data; None where no recording can be used."""
    try:
        return make()
    except NothingToReadError:
        return None


def _crops_of_shards(data_arguments: PretrainingDataArguments, share: float, settings: dict[str, Any]) -> Datasets:
    def crops(data: Sequence[str], **choice: Any) -> ShardCropDataset:
        return ShardCropDataset(data, window=data_arguments.stream_window, **choice, **settings)

    data, weights = data_arguments.train_data, data_arguments.train_weights
    if data_arguments.eval_data:
        return crops(data, weights=weights), crops(data_arguments.eval_data)
    train = crops(data, weights=weights, held_out=share)
    return train, held_out(lambda: crops(data, held_out=share, only_held_out=True)) if share else None


def _crops_of_recordings(
    data_arguments: PretrainingDataArguments, share: float, settings: dict[str, Any], caches: Sequence[LabelCache]
) -> Datasets:
    def crops(recordings: AudioFiles, select: np.ndarray | None = None) -> AudioCropDataset:
        dataset = AudioCropDataset(recordings, weighting=data_arguments.weighting, select=select, **settings)
        for cache in caches:  # recordings that could not be labeled count as bad files
            dataset.leave_out(cache.failures(dataset.used_recordings))
            cache.check(dataset.used_recordings)
        return dataset

    train_data = open_indexed(data_arguments.train_data, data_arguments.train_split)
    if data_arguments.eval_data or data_arguments.eval_split:
        eval_data = open_indexed(data_arguments.eval_data or data_arguments.train_data, data_arguments.eval_split)
        return crops(train_data), crops(eval_data)
    chosen = held_out_recordings(train_data, share)
    return crops(train_data, ~chosen), held_out(lambda: crops(train_data, chosen)) if chosen.any() else None


def parse_share(text: str) -> float:
    """A percentage such as "0.5%" as a share between 0 and 1; "0" is 0.

    Raises:
        ValueError: the text has another form.
    """
    tolerance = Tolerance.parse(text)
    if tolerance.share is None and tolerance.count:
        raise ValueError(f"eval_share is {text!r}; give a percentage from 0% to 100% such as 0.5%.")
    return tolerance.share or 0.0


def thinned(dataset: Dataset, count: int) -> Dataset:
    """At most `count` items of a data set, spread evenly."""
    if len(dataset) <= count:
        return dataset
    return Subset(dataset, [math.floor(index * len(dataset) / count) for index in range(count)])
