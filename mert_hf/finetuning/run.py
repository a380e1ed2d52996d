"""Fine-tuning from arguments to a saved model, its metrics and its card."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    EvalPrediction,
    PretrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import HubStrategy, get_last_checkpoint

from ..evaluation.metrics.weighted import scored_labels
from ..evaluation.probing.chunks import RegressionHead
from ..evaluation.tasks import Task, get_task
from ..hub import HubTrainerMixin
from ..hub.cards import CardFacts, kept_update, trainer_measurements, training_facts
from ..hub.licenses import base_license
from ..hub.names import is_hub_id, one_line_errors, readable_weights
from ..recordings.frames import FRAME_CLASSES
from ..recordings.recordings import TaskData, check_audio
from ..utils.files import check_output_folder, write_json
from ..utils.optional import needs_extra, require_extra
from ..utils.parser import explained_bf16_refusal
from ..utils.settings import described
from .objective import PROBLEM_TYPES, Clip, ClipCollator, FrameObjective, RandomCrops, RecordingObjective, window_clips
from .settings import CLIP_SECONDS, FINETUNING_FILE, FineTuningArguments, LoraArguments

RESULTS_FILE = "eval_results.json"
ADAPTERS_FOLDER = "adapters"
FROZEN_PARTS = {"none": "nothing", "feature_encoder": "convolutions", "backbone": "the whole encoder"}
QUERY_AND_VALUE = ("q_proj", "v_proj", "query_proj", "value_proj")  # of the first generation, of the second


@dataclass(frozen=True)
class FineTuningSetup:
    """A task on labeled recordings with known lengths, and the configuration of the model that learns it, fitted to
    the labels."""

    arguments: FineTuningArguments
    task: Task
    data: TaskData
    config: PretrainedConfig
    feature_extractor: Any
    objective: RecordingObjective | FrameObjective

    @classmethod
    def build(cls, arguments: FineTuningArguments, task: Task) -> FineTuningSetup:
        """Reads and checks the data, and fits the checkpoint's configuration to its labels; ValueError for a wrong
        layout, unusable recordings, or labels that cannot be learned or scored."""
        config = AutoConfig.from_pretrained(**arguments.checkpoint())
        data = task.load(arguments.source, arguments.max_bad_files, required=("train", "valid"))
        shortest = config.receptive_field / config.sampling_rate
        data = check_audio(data.with_channels(arguments.channels), shortest, arguments.max_bad_files)
        config.id2label = dict(enumerate(data.labels))
        config.label2id = {label: index for index, label in enumerate(data.labels)}
        config.problem_type = PROBLEM_TYPES[task.kind]
        config.use_weighted_layer_sum = arguments.weighted
        if hasattr(config, "layerdrop"):
            config.layerdrop = arguments.layerdrop
        by_frame = task.kind in FRAME_CLASSES
        objective = FrameObjective(task.kind, config) if by_frame else RecordingObjective(task.kind, data)
        if task.kind == "multilabel":  # the metrics at the end of an epoch would be undefined
            scored_labels(objective.head.targets(data.split("valid")).numpy())
        extractor = AutoFeatureExtractor.from_pretrained(**arguments.checkpoint())
        return cls(arguments, task, data, config, extractor, objective)

    def windows(self, split: str) -> list[Clip]:
        """The windows of a split's recordings."""
        return window_clips(self.data.split(split), self.task.window, self.objective.shortest_window)

    def metrics(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """Computes the metrics of a split's recordings from the Trainer's predictions of its windows."""
        windows = self.windows(split)
        return lambda prediction: self.objective.metrics(prediction.predictions, windows)


@dataclass
class FineTuningTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults of fine-tuning: evaluate and save each epoch, keep the best."""

    learning_rate: float = described("Peak learning rate of the head and the last layer.", 5e-5)
    num_train_epochs: float = described("Passes over the training recordings.", 20.0)
    per_device_train_batch_size: int = described("Clips per device and step.", 8)
    eval_strategy: str = described("When to evaluate: no, steps or epoch.", "epoch")
    save_strategy: str = described("When to save: no, steps, epoch or best.", "epoch")
    save_total_limit: int | None = described("Checkpoints that are kept.", 2)
    load_best_model_at_end: bool = described("Keep the best checkpoint, not the last.", True)
    logging_strategy: str = described("When to log the loss: no, steps or epoch; steps with logging_steps.", "epoch")
    remove_unused_columns: bool = described("Must stay off: the collator reads audio.", False)
    logging_nan_inf_filter: bool = described("Log losses as they are, also where they are not finite.", False)
    label_names: list[str] | None = described("Keys of the batch that are labels.", factory=lambda: ["labels"])

    def __post_init__(self) -> None:
        if self.logging_strategy == "epoch" and self.logging_steps != TrainingArguments.logging_steps:
            self.logging_strategy = "steps"
        with explained_bf16_refusal(self):
            super().__post_init__()


class FineTuningTrainer(HubTrainerMixin, Trainer):
    """Trainer for the MERT heads, with layer-wise learning rates, and a card with what was measured."""

    def __init__(self, setup: FineTuningSetup, **options: Any) -> None:
        super().__init__(**options)
        self.setup = setup

    def create_optimizer(self, *arguments: Any, **options: Any) -> torch.optim.Optimizer:
        """Trainer's optimizer, its parameter groups divided by depth where `layer_decay` is below 1."""
        made_here, decay = self.optimizer is None, self.setup.arguments.layer_decay
        optimizer = super().create_optimizer(*arguments, **options)
        if made_here and decay < 1:
            names = {parameter: name for name, parameter in self.model.named_parameters()}
            scale_learning_rates(optimizer, names, self.model.config, decay)
        return optimizer

    def card_facts(self) -> CardFacts:
        setup, state, base = self.setup, self.state, self.setup.arguments.model_name_or_path
        arguments, data = setup.arguments, setup.data
        name = self.args.hub_model_id or Path(self.args.output_dir).resolve().name
        license_name, note = base_license(base)
        kept = kept_update(state, self.args)
        titles = setup.task.title, "-".join(data.name.split()), data.name
        measured = trainer_measurements(state, kept, *titles)
        tested = trainer_measurements(state, kept, *titles, "test", "test_")
        train, valid, test = (len(data.split(split)) for split in ("train", "valid", "test"))
        return CardFacts(
            model_name=name.split("/")[-1],
            repo_id=self.args.hub_model_id,
            base_model=Path(base).name if Path(base).is_dir() else base,
            base_model_relation="finetune",
            datasets=(data.name,) if is_hub_id(data.name) and "/" in data.name else (),
            data=f"{data.name}: {train} recordings to train on, {valid} for validation, {test} for test",
            hours=round(data.hours("train"), 4),
            training={
                "Frozen": FROZEN_PARTS[arguments.freeze],
                "Layer-wise decay": f"{arguments.layer_decay:g}",
                "Weighted layer sum": "yes" if arguments.weighted else "no",
                "Clips": f"{setup.task.window:g} s; random in training, whole recordings in windows in evaluation",
                "Split": data.manifest_hash,
                **training_facts(state, self.args),
            },
            measurements=measured + tested,
            license=license_name,
            license_note=note,
        )


def fine_tune(
    arguments: FineTuningArguments, training_arguments: FineTuningTrainingArguments, lora: LoraArguments | None = None
) -> dict[str, float]:
    """Fine-tunes a MERT checkpoint and saves the result with its card to `training_arguments.output_dir`.

    Readers, windows, splits and metrics are those of `mert-hf evaluate`: training clips are random crops of the task's
    window, and the metrics are those of whole recordings.

    Args:
        arguments: model, data and task.
        training_arguments: arguments of the Trainer.
        lora: train low-rank adapters instead of the encoder. The saved model has them merged into its weights; they
            are also saved by themselves, to the folder `adapters`.

    Returns:
        Metrics of the kept checkpoint: `eval_*` on the validation split, `test_*` on the test split if there is one.

    Raises:
        ValueError: arguments or data that cannot work, or a Hub that refuses (PushError), before training starts.
        OSError: nothing can be written to `output_dir`; raised before anything is loaded.
    """
    require_extra("eval", "scipy", "sklearn", "mir_eval")
    if lora is not None:
        require_extra("lora", "peft")
    check_output_folder(training_arguments.output_dir)
    task = choose_task(arguments)
    _check_run(arguments, training_arguments, task, lora)
    setup = FineTuningSetup.build(arguments, task)
    model = build_model(arguments, setup.config, setup.objective.by_frame, training_arguments.seed)
    if lora is None and arguments.freeze == "feature_encoder":
        model.freeze_feature_encoder()
    elif lora is None and arguments.freeze == "backbone":
        model.freeze_base_model()
    if training_arguments.device.type == "cpu":
        torch.set_flush_denormal(True)  # denormal activations make training on a CPU several times slower over time
    with one_line_errors(training_arguments.hub_model_id or training_arguments.output_dir):
        trainer = FineTuningTrainer(
            setup,
            model=model if lora is None else add_adapters(model, lora),
            args=training_arguments,
            train_dataset=RandomCrops(setup.data.split("train"), task.window),
            eval_dataset=setup.windows("valid"),
            data_collator=ClipCollator(setup.feature_extractor, setup.objective.labels),
            compute_metrics=setup.metrics("valid"),
            processing_class=setup.feature_extractor,
        )
    trainer.train(resume_from_checkpoint=training_arguments.resume_from_checkpoint)
    return finish(trainer, lora)


def choose_task(arguments: FineTuningArguments) -> Task:
    """The task with the window of the run; ValueError for an unknown task, or a kind that has no head."""
    task = get_task(arguments.task, target=arguments.target, kind=arguments.kind)
    if task.kind not in PROBLEM_TYPES:
        raise ValueError(
            f"Models cannot be fine-tuned for the kind {task.kind!r} of {task.name}; the kinds are "
            f"{', '.join(PROBLEM_TYPES)}."
        )
    window = arguments.max_seconds or (CLIP_SECONDS if task.name == "audiofolder" else task.window)
    return replace(task, window=window)


def finish(trainer: FineTuningTrainer, lora: LoraArguments | None) -> dict[str, float]:
    """Evaluates the kept checkpoint, saves model, metrics and card, and pushes them where the arguments say so."""
    setup, results = trainer.setup, trainer.evaluate()
    if setup.data.split("test"):
        trainer.compute_metrics = setup.metrics("test")
        results |= trainer.evaluate(setup.windows("test"), metric_key_prefix="test")
    output_dir = Path(trainer.args.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if setup.task.kind == "regression":
        fold_scale(model, setup.objective.head)
    if lora is not None:
        if trainer.is_world_process_zero():
            model.save_pretrained(output_dir / ADAPTERS_FOLDER)
        trainer.model = model.merge_and_unload()
    trainer.save_state()
    if trainer.is_world_process_zero():
        write_json(output_dir / RESULTS_FILE, results)
        task, channels = setup.task, setup.arguments.channels
        facts = {"task": task.name, "kind": task.kind, "window": task.window, "channels": channels}
        write_json(output_dir / FINETUNING_FILE, facts)
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.save_model()
        trainer.create_model_card()
    return results


def _check_run(
    arguments: FineTuningArguments,
    training_arguments: FineTuningTrainingArguments,
    task: Task,
    lora: LoraArguments | None,
) -> None:
    if lora is not None:
        if arguments.weighted:
            raise ValueError(
                "The learned average of the layers (--layers weighted) cannot be saved with adapters; leave it out "
                "with LoRA."
            )
        training_arguments.hub_strategy = HubStrategy.END  # the others push adapters to the place of the model
    output_dir = training_arguments.output_dir
    earlier = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
    if earlier and not training_arguments.resume_from_checkpoint:
        raise ValueError(
            f"{output_dir} holds {Path(earlier).name} of an earlier run. Choose another output folder, or remove this "
            f"one; the scripts in examples/ resume with --resume_from_checkpoint {earlier}."
        )
    if training_arguments.load_best_model_at_end and training_arguments.metric_for_best_model in (None, "loss"):
        training_arguments.metric_for_best_model = task.metric
        training_arguments.greater_is_better = True


def build_model(arguments: FineTuningArguments, config: PretrainedConfig, by_frame: bool, seed: int) -> PreTrainedModel:
    """The pre-trained encoder under a new head for recordings, or for frames; its configuration is fitted to the
    labels, and the head's weights follow from the seed alone."""
    auto_class = AutoModelForAudioFrameClassification if by_frame else AutoModelForAudioClassification
    with torch.random.fork_rng(devices=[]), readable_weights(arguments.model_name_or_path):
        torch.manual_seed(seed)  # noqa: TID251  inside fork_rng: the caller's random state is restored after it
        return auto_class.from_pretrained(
            **arguments.checkpoint(),
            config=config,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced; the encoder must fit all the same
        )


def add_adapters(model: PreTrainedModel, lora: LoraArguments) -> Any:
    """The model with low-rank adapters (arXiv 2106.09685) of peft; the head is trained in full."""
    with needs_extra("lora"):
        from peft import LoraConfig, get_peft_model

    head = [name for name in ("projector", "classifier") if hasattr(model, name)]
    config = LoraConfig(
        r=lora.lora_rank,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=_adapted_modules(model, lora.lora_modules),
        modules_to_save=head,
    )
    return get_peft_model(model, config)


def _adapted_modules(model: PreTrainedModel, names: str) -> list[str]:
    """The linear layers that get adapters, by the last part of their names; ValueError where the model has none."""
    present = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    if names == "auto":
        return [name for name in QUERY_AND_VALUE if name in present]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if absent := [name for name in wanted if name not in present]:
        raise ValueError(
            f"lora_modules={names!r}: the model has no linear layer {', '.join(absent)}; it has "
            f"{', '.join(sorted(present))}."
        )
    return wanted


@torch.no_grad()
def fold_scale(model: Any, head: RegressionHead) -> None:
    """Puts the scale and mean of the training targets into the classifier: the model then predicts their own units."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    weight, bias = base.classifier.weight, base.classifier.bias
    scale = torch.as_tensor(head.scale, dtype=weight.dtype, device=weight.device)
    weight.mul_(scale[:, None])
    bias.mul_(scale).add_(torch.as_tensor(head.mean).to(scale))


def scale_learning_rates(
    optimizer: torch.optim.Optimizer, names: dict[torch.nn.Parameter, str], config: PretrainedConfig, decay: float
) -> None:
    """Divides the groups of a fresh optimizer by depth; a parameter n layers below the head learns at decay^n.

    (Layer-wise learning-rate decay: Howard and Ruder 2018, arXiv 1801.06146, discriminative fine-tuning; Clark et al.
    2020, arXiv 2003.10555.) `names` are those of the parameters in the model.
    """
    groups = []
    for group in optimizer.param_groups:
        by_depth: dict[int, list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            by_depth.setdefault(parameter_depth(names[parameter], config), []).append(parameter)
        for depth, parameters in sorted(by_depth.items()):
            scale = decay ** (config.num_hidden_layers + 1 - depth)
            groups.append({**group, "params": parameters, "lr": group["lr"] * scale})
    optimizer.param_groups[:] = groups


def parameter_depth(name: str, config: PretrainedConfig) -> int:
    """0 for all before the first layer, n for the n-th layer (from 1), number of layers + 1 for the head."""
    if layer := re.search(r"(?:^|\.)mert\.(?:encoder\.)?layers\.(\d+)\.", name):
        return int(layer[1]) + 1
    if re.search(r"(?:^|\.)mert\.encoder\.layer_norm\.", name):
        return config.num_hidden_layers if getattr(config, "do_stable_layer_norm", False) else 0
    return 0 if re.search(r"(?:^|\.)mert\.", name) else config.num_hidden_layers + 1
