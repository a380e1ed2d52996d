"""The Trainer of fine-tuning and its arguments: layer-wise learning rates, and a card with what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, Trainer, TrainingArguments

from ..hub import CardFacts, HubTrainerMixin
from ..utils.parser import explained_bf16_refusal
from ..utils.settings import described


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
    """Trainer for the MERT heads; `layer_decay` is the factor on the learning rate from each layer to the one below,
    and `facts` is called for the facts of a card, with the trainer."""

    def __init__(
        self, *arguments: Any, layer_decay: float = 1.0, facts: Callable[[Trainer], CardFacts], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.layer_decay, self.facts = layer_decay, facts

    def card_facts(self) -> CardFacts:
        """The facts of the run."""
        return self.facts(self)

    def create_optimizer(self, *arguments: Any, **options: Any) -> torch.optim.Optimizer:
        """Trainer's optimizer, its parameter groups divided by depth where `layer_decay` is below 1."""
        made_here = self.optimizer is None
        optimizer = super().create_optimizer(*arguments, **options)
        if made_here and self.layer_decay < 1:
            names = {parameter: name for name, parameter in self.model.named_parameters()}
            scale_learning_rates(optimizer, names, self.model.config, self.layer_decay)
        return optimizer


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
