"""What one fine-tuning run knows: data, configuration, batches, metrics, and the facts of its card."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelCard
from transformers import EvalPrediction, Trainer

from ..data.labelled import LabelledAudio
from ..data.recordings import BeatTimes
from ..evaluation.beats import decode_beats
from ..evaluation.heads import HEADS
from ..evaluation.metrics import beat_metrics, scored_labels
from ..hub.cards import CardFacts, trainer_measurements, training_facts
from ..hub.checkpoint import CARD_FILE
from ..hub.names import local_checkpoint, resolve_checkpoint
from ..modeling.configuration_mert import MERTConfig
from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from .arguments import FineTuningArguments
from .clips import BeatCollator, ClipCollator, Clips

logger = logging.getLogger(__name__)

PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "key": "single_label_classification",
    "beats": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
AUTHORS_LICENCE = "cc-by-nc-4.0"


@dataclass(frozen=True)
class Job:
    """Arguments, data and configuration of a run, with the head that gives targets and metrics (None for beats)."""

    arguments: FineTuningArguments
    labelled: LabelledAudio
    kind: str
    config: MERTConfig
    feature_extractor: MERTFeatureExtractor
    head: Any

    @classmethod
    def build(cls, arguments: FineTuningArguments, labelled: LabelledAudio, kind: str, config: MERTConfig) -> Job:
        """Fits the configuration to the labels.

        Raises:
            ValueError: labels that cannot be learned or scored.
        """
        labels = labelled.data.labels
        config.update(
            {
                "id2label": dict(enumerate(labels)),
                "label2id": {label: index for index, label in enumerate(labels)},
                "problem_type": PROBLEM_TYPES[kind],
                "use_weighted_layer_sum": arguments.use_weighted_layer_sum,
                "layerdrop": arguments.layerdrop,
            }
        )
        head = HEADS[kind](labelled.data) if kind != "beats" else None
        if kind == "multilabel":  # the metrics at the end of an epoch would be undefined
            scored_labels(head.targets(labelled.data.split("valid")).numpy())
        source = resolve_checkpoint(arguments.model_name_or_path, arguments.model_revision)
        feature_extractor = MERTFeatureExtractor.from_pretrained(source, revision=arguments.model_revision)
        return cls(arguments, labelled, kind, config, feature_extractor, head)

    def clips(self, split: str, random: bool = False) -> Clips:
        """The clips of a split."""
        return Clips(self.labelled, split, self.config.sample_rate, self.arguments.max_seconds, random)

    def collator(self) -> ClipCollator | BeatCollator:
        """Makes batches of clips."""
        if self.kind == "beats":
            return BeatCollator(self.feature_extractor, self.config)
        return ClipCollator(self.feature_extractor, self.head.targets)

    def metrics(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """Computes the metrics of a split from the Trainer's predictions."""
        clips = self.clips(split)
        if self.kind == "beats":
            return lambda prediction: _beat_metrics(prediction, clips, self.config)
        targets = self.head.targets(clips.recordings)
        return lambda prediction: self.head.metrics(torch.from_numpy(prediction.predictions), targets)

    def card_facts(self, trainer: Trainer) -> CardFacts:
        """The facts of the result's card."""
        name = trainer.args.hub_model_id or Path(trainer.args.output_dir).resolve().name
        data, base = self.labelled.data, self.arguments.model_name_or_path
        licence, note = _base_licence(base)
        task = f"{self.arguments.target} ({self.kind})"
        dataset = "-".join(self.labelled.name.split())
        measured = trainer_measurements(trainer.state, task, dataset, self.labelled.name)
        tested = trainer_measurements(trainer.state, task, dataset, self.labelled.name, "test", "test_")
        frozen = {"none": "nothing", "feature_encoder": "convolutions", "backbone": "the whole encoder"}
        return CardFacts(
            model_name=name.split("/")[-1],
            repo_id=trainer.args.hub_model_id,
            base_model=Path(base).name if Path(base).is_dir() else base,
            base_model_relation="finetune",
            datasets=(self.labelled.name,) if self.arguments.dataset_name and not Path(dataset).exists() else (),
            data=f"{self.labelled.name}: {len(data.split('train'))} recordings to train on, "
            f"{len(data.split('valid'))} for validation, {len(data.split('test'))} for test",
            hours=round(self.labelled.hours("train"), 4),
            training={
                "Frozen": frozen[self.arguments.freeze],
                "Layer-wise decay": f"{self.arguments.layer_decay:g}",
                "Weighted layer sum": "yes" if self.arguments.use_weighted_layer_sum else "no",
                "Clips": f"{self.arguments.max_seconds:g} s; random in training, the middle in evaluation",
                **training_facts(trainer.state, trainer.args),
            },
            measurements=measured + tested,
            licence=licence,
            licence_note=note,
        )


def _beat_metrics(prediction: EvalPrediction, clips: Clips, config: MERTConfig) -> dict[str, float]:
    """F-measures of beats and downbeats inside each recording's middle clip, from logits (clips, frames, 3)."""
    references, estimates = [], []
    for index, (logits, labels) in enumerate(zip(prediction.predictions, prediction.label_ids, strict=True)):
        frames = int((labels != -100).sum())
        times = np.asarray(config.frame_times(frames))
        reference = _beats_between(clips.recordings[index].target, clips.offset(index), times[-1])
        if reference.beats.size == 0:
            logger.info("%s has no beats in its middle clip and is not scored", clips.recordings[index].id)
            continue
        references.append(reference)
        probabilities = torch.from_numpy(logits[:frames]).double().softmax(dim=1).numpy()
        estimates.append(decode_beats(probabilities, times))
    return beat_metrics(references, estimates)


def _beats_between(beats: BeatTimes, offset: float, seconds: float) -> BeatTimes:
    """The beats of [offset, offset + seconds], counted from offset."""
    beats_, downbeats = (
        times[(times >= offset) & (times <= offset + seconds)] - offset for times in (beats.beats, beats.downbeats)
    )
    return BeatTimes(beats_, downbeats)


def _base_licence(base: str) -> tuple[str | None, str]:
    """The licence that the base model's card states, and where that is from; weights carry it on."""
    card = (local_checkpoint(base) or Path(base)) / CARD_FILE
    if card.is_file():
        licence = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
        return licence, "as stated by the card of the base model" if licence else ""
    if base.startswith("m-a-p/"):
        return AUTHORS_LICENCE, "the licence of the base model's weights"
    return None, ""
