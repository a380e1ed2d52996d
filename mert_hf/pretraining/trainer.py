"""Trainer for pre-training: exact normalization over masked frames, every part of the loss logged, device labels."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import torch
from accelerate.data_loader import DataLoaderDispatcher
from torch import nn
from transformers import PretrainedConfig, Trainer, TrainerCallback

from ..hub.checkpoint import HubTrainerMixin
from ..modeling.modeling_mert import MERTForPreTrainingOutput
from ..utils.devices import Stopwatch
from .callbacks import CropEpochCallback, NonFiniteStepCallback
from .collator import CLEAN_WAVEFORMS, DataCollatorForMERTPreTraining, MERTBatch
from .resuming import ProcessCountCallback


class LossMeter:
    """Averages of the parts of the loss since it was made, weighted by masked frames, over all processes.

    Everything stays on the device until it is read.
    """

    def __init__(self):
        self._sums: dict[str, torch.Tensor] = {}
        self._audio_seconds = 0.0
        self._teacher_times: dict[str, list[Stopwatch]] = {}
        self._invalid_codes: list[torch.Tensor] = []
        self._started = time.perf_counter()

    def add(self, outputs: MERTForPreTrainingOutput, weight: torch.Tensor, batch: MERTBatch) -> None:
        """Adds a micro-batch: the output of the model, its number of masked frames, and the batch itself."""
        parts = {name: getattr(outputs, name) for name in ("cqt_loss", "view_loss", "feature_penalty")}
        if outputs.codebook_losses is not None:
            pairs = zip(outputs.codebook_losses, outputs.codebook_accuracies, strict=True)
            for index, (loss, accuracy) in enumerate(pairs):
                parts[f"codebook_{index}_loss"] = loss
                parts[f"codebook_{index}_accuracy"] = accuracy
        parts = {name: value for name, value in parts.items() if value is not None}
        for name, value in {**parts, "weight": torch.ones_like(weight, dtype=torch.float32)}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float() * weight
        self._audio_seconds += batch.audio_seconds
        for name, stopwatch in batch.teacher_times.items():
            self._teacher_times.setdefault(name, []).append(stopwatch)
        if batch.invalid_codes is not None:
            self._invalid_codes.append(batch.invalid_codes)

    def read(self, accelerator: Any) -> dict[str, float]:
        """Averages over all processes, and speeds in seconds of audio per second; refuses invalid codes. Collective."""
        if not self._sums:
            return {}
        elapsed = time.perf_counter() - self._started
        times = {name: sum(watch.seconds() for watch in watches) for name, watches in self._teacher_times.items()}
        device = self._sums["weight"].device
        invalid = torch.stack([torch.zeros((), device=device), *(flag.to(device) for flag in self._invalid_codes)])
        host = torch.tensor([self._audio_seconds, *times.values()], device=device)
        # One reduction and one transfer for all numbers: each of them makes the host wait for the device.
        vector = torch.cat([torch.stack([*self._sums.values()]), host, invalid.sum()[None]])
        *totals, invalid_batches = accelerator.reduce(vector.float(), reduction="sum").tolist()
        sums = dict(zip([*self._sums, "audio", *times], totals, strict=True))
        metrics = {name: sums[name] / max(sums["weight"], 1.0) for name in self._sums if name != "weight"}
        metrics["x_real_time"] = sums["audio"] / elapsed
        for name in times:
            # Both sums run over all processes, so this is the speed of one teacher.
            metrics[f"{name}_x_real_time"] = sums["audio"] / max(sums[name], 1e-9)
        if invalid_batches:
            raise ValueError(
                f"The acoustic teacher gave codes outside its codebooks in {invalid_batches:.0f} micro-batches since "
                "the last log. Check that the teacher belongs to the configuration."
            )
        return metrics


class UpdateReader(TrainerCallback):
    """Reads the micro-batches of an update from a data loader, and those of the next one while the model computes.

    Without it the data workers stand still from the moment their queues are full until the next update begins, and the
    model waits for all micro-batches of an update before its first forward. Host memory holds two updates.

    The end of an epoch waits for the reader: accelerate counts epochs where the data loader ends, which the reader may
    reach after the Trainer has begun the next epoch. That one would then have the order of the epoch after it.
    """

    def __init__(self):
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="next_update")
        self._iterator: Iterator | None = None
        self._following: Future[list] | None = None

    def read(self, iterator: Iterator, count: int, following: int) -> list:
        """The next `count` micro-batches, fewer at the end of an epoch; starts to read up to `following` more."""
        if iterator is not self._iterator:
            self.stop()
        batches = self._following.result() if self._following is not None else []
        batches += itertools.islice(iterator, count - len(batches))
        self._iterator = iterator
        self._following = self._pool.submit(lambda: list(itertools.islice(iterator, following)))
        return batches

    def stop(self) -> None:
        """Waits until nothing is read any more, and forgets what was read."""
        if self._following is not None:
            self._following.exception()
        self._iterator = self._following = None

    def on_epoch_end(self, args, state, control, **kwargs):
        self.stop()


class MERTTrainer(HubTrainerMixin, Trainer):
    """`Trainer` for `MERTForPreTraining` and `MERT2ForPreTraining` with a `DataCollatorForMERTPreTraining`.

    It differs from `Trainer` as follows:

    - The loss is MERT's over the whole accumulated and distributed batch: cross-entropy and spectrum error are averaged
      over all its masked frames (and the others by `unmasked_loss_weight`), the feature penalty over all its frames.
      (The stock Trainer works too, and averages the means of micro-batches instead.)
    - Each log holds the loss and accuracy of each codebook, the spectrum loss, the feature penalty, and the speeds of
      training and teachers.
    - The next update is read while the present one is computed. A micro-batch moves to the device when it is used, and
      targets are computed there where the collator leaves them to it (`labels_on_device`).
    - Random crops change from epoch to epoch. Evaluation has no mixture, and the same crops and masks each time.
    - Updates that are not finite are skipped, up to `max_non_finite_steps` in a row; then the run saves and stops.
    - Checkpoints state how many processes saved them.
    - Under FSDP gradients are reduced, and outputs returned, in float32.
    - Weight decay applies to all parameters, norms and biases included, as in fairseq.
    - What `push_to_hub` sends loads anywhere and carries the project's card.

    Attributes:
        teacher_licenses: licenses of the weights of encoders among the teachers by their names.

    Raises:
        ValueError: there are several GPUs in one process, or teachers on a GPU with forked data workers.
    """

    teacher_licenses: Mapping[str, str] = MappingProxyType({})

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process (DataParallel) are not supported: start one process for each "
                "with `accelerate launch`, or make one GPU visible with CUDA_VISIBLE_DEVICES=0."
            )
        # The loss is normalized here over the whole batch, so Trainer must not divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = True
        self.train_meter, self.eval_meter = LossMeter(), LossMeter()
        self.update_reader = UpdateReader()
        self.reads_ahead = True
        self.add_callback(self.update_reader)
        self.non_finite_callback = NonFiniteStepCallback(getattr(self.args, "max_non_finite_steps", 3))
        self.add_callback(self.non_finite_callback)
        clips = self.args.train_batch_size * self.args.gradient_accumulation_steps * max(self.args.world_size, 1)
        self.add_callback(ProcessCountCallback(clips))
        if hasattr(self.train_dataset, "set_epoch"):
            self.add_callback(CropEpochCallback(self.train_dataset))
        reduce_in_float32(getattr(self.accelerator.state, "fsdp_plugin", None))

    def train(self, *args, **kwargs):
        """Trains as `Trainer.train` does.

        Raises:
            NonFiniteLossError: too many updates in a row were not finite; a checkpoint has been saved.
        """
        try:
            result = super().train(*args, **kwargs)
        finally:
            self.update_reader.stop()
        if self.non_finite_callback.failure is not None:
            raise self.non_finite_callback.failure
        return result

    def get_train_dataloader(self):
        collator = self.data_collator
        if isinstance(collator, DataCollatorForMERTPreTraining) and not collator.labels_on_device:
            collator.check_forked_worker(self.args.dataloader_num_workers > 0)
        loader = super().get_train_dataloader()
        loader.device = None  # micro-batches wait on the host, and `_prepare_inputs` moves one when its turn comes
        # A dispatcher communicates with other processes while it reads, which a second thread must not do.
        self.reads_ahead = not isinstance(loader, DataLoaderDispatcher)
        return loader

    def _get_train_sampler(self, *args, **kwargs):
        # The order of an epoch is computed by the data set: no list of all items, and none to restore on resuming.
        if hasattr(self.train_dataset, "sampler"):
            return self.train_dataset.sampler(self.args.train_batch_size)
        return super()._get_train_sampler(*args, **kwargs)

    def get_eval_dataloader(self, *args, **kwargs):
        collator = self.data_collator
        try:
            if isinstance(collator, DataCollatorForMERTPreTraining):
                self.data_collator = collator.for_evaluation()
            return super().get_eval_dataloader(*args, **kwargs)
        finally:
            self.data_collator = collator

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name, _ in model.named_parameters()]

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device | None = None
    ) -> tuple[list, torch.Tensor | None]:
        """The micro-batches of an update, and the (masked frames, frames) of all of them in all processes."""
        if self.reads_ahead:
            batches = self.update_reader.read(epoch_iterator, num_batches, self.args.gradient_accumulation_steps)
        else:
            batches = list(itertools.islice(epoch_iterator, num_batches))
        if not batches:
            return batches, None
        counts = [count_frames(batch, self.model.config) for batch in batches]
        totals = torch.stack(counts).sum(dim=0).to(self.args.device)
        if self._averages_across_devices():
            totals = self.accelerator.reduce(totals, reduction="sum")
        return batches, totals

    def _prepare_inputs(self, inputs: Mapping[str, torch.Tensor]) -> MERTBatch:
        prepared = MERTBatch(super()._prepare_inputs(inputs), like=inputs)
        return self.data_collator.add_targets(prepared) if CLEAN_WAVEFORMS in prepared else prepared

    def compute_loss(
        self,
        model: nn.Module,
        inputs: MERTBatch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """This batch's share of the loss over the whole update (times the processes that will average it)."""
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        loss = outputs.loss
        if num_items_in_batch is not None and self._averages_across_devices():
            loss = loss * self.accelerator.num_processes
        if model.training:
            self.non_finite_callback.observe(loss, inputs, inputs.crops)
        masked_frames, _ = count_frames(inputs, self.model.config)
        (self.train_meter if model.training else self.eval_meter).add(outputs, masked_frames, inputs)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds the parts of the loss to the training log."""
        if "loss" in logs:
            meter, self.train_meter = self.train_meter, LossMeter()
            logs = {**logs, **meter.read(self.accelerator)}
            if self.non_finite_callback.skipped:
                logs["skipped_updates"] = self.non_finite_callback.skipped
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
        trained = self.model
        plain = next(kind for kind in type(trained).__mro__ if not kind.__module__.startswith("torch."))
        try:
            if plain is not type(trained):
                with torch.device("meta"):
                    self.model = plain(trained.config)
            super()._save(output_dir, state_dict=state_dict)
        finally:
            self.model = trained

    def _averages_across_devices(self) -> bool:
        return self.args.average_tokens_across_devices and self.accelerator.num_processes > 1


def reduce_in_float32(fsdp_plugin: Any) -> None:
    """Changes the precision policy of accelerate's FSDP plugin: gradients are reduced and outputs returned in float32.

    accelerate computes, reduces and returns in the type of `mixed_precision`, and a sum of bfloat16 gradients over many
    processes loses most of its digits. The parameters stay as they are: computed with in `mixed_precision`.
    """
    policy = getattr(fsdp_plugin, "mixed_precision_policy", None)
    if policy is None:
        return
    fields = {"reduce_dtype": torch.float32}
    if hasattr(policy, "output_dtype"):  # FSDP2
        fields["output_dtype"] = torch.float32
    fsdp_plugin.mixed_precision_policy = type(policy)(**{**vars(policy), **fields})


def count_frames(batch: Mapping[str, torch.Tensor], config: PretrainedConfig) -> torch.Tensor:
    """Masked frames and valid frames of a batch, float32 (2,)."""
    mask = batch["mask_time_indices"]
    if "attention_mask" in batch:
        frames = config.num_frames(batch["attention_mask"].sum(dim=1)).sum()
    else:
        frames = torch.tensor(mask.numel(), device=mask.device)
    return torch.stack([mask.sum(), frames]).float()
