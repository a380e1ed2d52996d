"""Trainer for pre-training: exact normalisation over masked frames, every part of the loss logged, device labels."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from ..hub.trainer import HubTrainerMixin
from ..modeling.configuration_mert import MERTConfig
from ..modeling.configuration_mert2 import MERT2Config
from ..modeling.modeling_mert import MERTForPreTrainingOutput
from .callbacks import CropEpochCallback, NonFiniteLossCallback
from .collator import CLEAN_WAVEFORMS, DataCollatorForMERTPreTraining, MERTBatch


class LossMeter:
    """Averages of the parts of the loss since they were last read, weighted by masked frames, over all processes."""

    def __init__(self):
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._audio_seconds = 0.0
        self._teacher_seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def add(self, outputs: MERTForPreTrainingOutput, weight: torch.Tensor, batch: MERTBatch) -> None:
        """Adds a micro-batch: the model's output, its number of masked frames, and where it comes from."""
        parts: dict[str, torch.Tensor] = {}
        if outputs.feature_penalty is not None:
            parts["feature_penalty"] = outputs.feature_penalty
        if outputs.codebook_losses is not None:
            for index, (loss, accuracy) in enumerate(
                zip(outputs.codebook_losses, outputs.codebook_accuracies, strict=True)
            ):
                parts[f"codebook_{index}_loss"] = loss
                parts[f"codebook_{index}_accuracy"] = accuracy
        if outputs.cqt_loss is not None:
            parts["cqt_loss"] = outputs.cqt_loss
        for name, value in {**parts, "weight": torch.ones_like(weight, dtype=torch.float32)}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float() * weight
        self._audio_seconds += batch.audio_seconds
        for name, seconds in batch.teacher_seconds.items():
            self._teacher_seconds[name] = self._teacher_seconds.get(name, 0.0) + seconds

    def read(self, accelerator: Any) -> dict[str, float]:
        """Averages over all processes and the speeds in seconds of audio per second; starts anew. Collective."""
        if not self._sums:
            return {}
        elapsed = time.perf_counter() - self._started
        times = {"audio": self._audio_seconds, **self._teacher_seconds}
        device = self._sums["weight"].device
        vector = torch.stack([*self._sums.values(), *(torch.tensor(value, device=device) for value in times.values())])
        totals = accelerator.reduce(vector.float(), reduction="sum").tolist()
        sums = dict(zip([*self._sums, *times], totals, strict=True))
        metrics = {name: sums[name] / max(sums["weight"], 1.0) for name in self._sums if name != "weight"}
        metrics["x_real_time"] = sums["audio"] / elapsed
        for name in self._teacher_seconds:
            # Both sums run over all processes, so this is the speed of one teacher.
            metrics[f"{name}_x_real_time"] = sums["audio"] / max(sums[name], 1e-9)
        self._reset()
        return metrics


class MERTTrainer(HubTrainerMixin, Trainer):
    """`Trainer` for `MERTForPreTraining` with a `DataCollatorForMERTPreTraining`. What it adds:

    - The loss is MERT's over the whole accumulated and distributed batch: cross-entropy and spectrum error are averaged
      over all its masked frames (and the others by `unmasked_loss_weight`), the feature penalty over all its frames.
      (The stock Trainer works too, and averages the means of micro-batches instead.)
    - Each log holds the loss and accuracy of each codebook, the spectrum loss, the feature penalty, and the speeds of
      training and teachers.
    - Targets are made on the device of the model where the collator leaves them to it (`labels_on_device`).
    - Random crops change from epoch to epoch, and a non-finite loss stops the run before it spoils the weights.
    - Weight decay holds for all parameters, norms and biases included, as in fairseq.
    - What `push_to_hub` sends loads anywhere and carries the project's card.

    Raises:
        ValueError: for several GPUs in one process, and for teachers on a GPU with forked data workers.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process (DataParallel) are not supported: start one process for each "
                "with `accelerate launch`, or show one GPU with CUDA_VISIBLE_DEVICES=0."
            )
        # The loss is normalised here over the whole batch, so Trainer must not divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = True
        self.train_meter, self.eval_meter = LossMeter(), LossMeter()
        self.non_finite_callback = NonFiniteLossCallback()
        self.add_callback(self.non_finite_callback)
        if hasattr(self.train_dataset, "set_epoch"):
            self.add_callback(CropEpochCallback(self.train_dataset))

    def get_train_dataloader(self):
        collator = self.data_collator
        if isinstance(collator, DataCollatorForMERTPreTraining) and not collator.labels_on_device:
            collator.check_forked_worker(self.args.dataloader_num_workers > 0)
        return super().get_train_dataloader()

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name, _ in model.named_parameters()]

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device | None = None
    ) -> tuple[list, torch.Tensor | None]:
        """The micro-batches of an update, and the (masked frames, frames) of all of them in all processes."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if not batches:
            return batches, None
        totals = (
            torch.stack([count_frames(batch, self.model.config) for batch in batches]).sum(dim=0).to(self.args.device)
        )
        if self._averages_across_devices():
            totals = self.accelerator.reduce(totals, reduction="sum")
        return batches, totals

    def _prepare_inputs(self, inputs: Mapping[str, torch.Tensor]) -> MERTBatch:
        prepared = MERTBatch(super()._prepare_inputs(inputs))
        if isinstance(inputs, MERTBatch):
            prepared.__dict__.update(inputs.__dict__)
        return self.data_collator.add_targets(prepared) if CLEAN_WAVEFORMS in prepared else prepared

    def compute_loss(
        self,
        model: nn.Module,
        inputs: MERTBatch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """This batch's share of the loss over the whole update (times the processes that will average it)."""
        outputs = model(**inputs)
        loss = outputs.loss
        masked_frames, frames = counts = count_frames(inputs, self.model.config)
        if num_items_in_batch is not None:
            predicted, all_predicted = (
                predicted_frames(item, self.model.config) for item in (counts, num_items_in_batch)
            )
            penalty = 0.0
            if outputs.feature_penalty is not None:
                penalty = self.model.config.feature_penalty_weight * outputs.feature_penalty
            loss = (loss - penalty) * (predicted / all_predicted) + penalty * (frames / num_items_in_batch[1])
            if self._averages_across_devices():
                loss = loss * self.accelerator.num_processes
        if model.training:
            self.non_finite_callback.observe(loss, inputs, inputs.crops)
        (self.train_meter if model.training else self.eval_meter).add(outputs, masked_frames, inputs)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds the parts of the loss to the training log."""
        if "loss" in logs:
            logs = {**logs, **self.train_meter.read(self.accelerator)}
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        """Adds the parts of the loss to the metrics of an evaluation."""
        self.eval_meter = LossMeter()
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        output.metrics.update({f"{prefix}_{k}": v for k, v in self.eval_meter.read(self.accelerator).items()})
        return output

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        # FSDP2 makes a class of its own out of the model's, and transformers would copy that one's source files.
        trained, plain = self.model, original_class(self.model)
        try:
            if plain is not type(trained):
                with torch.device("meta"):
                    self.model = plain(trained.config)
            super()._save(output_dir, state_dict=state_dict)
        finally:
            self.model = trained

    def _averages_across_devices(self) -> bool:
        return self.args.average_tokens_across_devices and self.accelerator.num_processes > 1


def original_class(model: nn.Module) -> type[nn.Module]:
    """The model's class, below what torch may have put on top of it."""
    return next(kind for kind in type(model).__mro__ if not kind.__module__.startswith("torch."))


def count_frames(batch: Mapping[str, torch.Tensor], config: MERTConfig | MERT2Config) -> torch.Tensor:
    """Masked frames and valid frames of a batch, float32 (2,)."""
    mask = batch["mask_time_indices"]
    if "attention_mask" in batch:
        frames = config.num_frames(batch["attention_mask"].sum(dim=1)).sum()
    else:
        frames = torch.tensor(mask.numel(), device=mask.device)
    return torch.stack([mask.sum(), frames]).float()


def predicted_frames(counts: torch.Tensor, config: MERTConfig | MERT2Config) -> torch.Tensor:
    """Frames that the prediction losses are averaged over, from `count_frames`: unmasked ones count by their weight."""
    masked, frames = counts
    return masked + config.unmasked_loss_weight * (frames - masked)
