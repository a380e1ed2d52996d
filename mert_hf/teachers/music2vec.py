"""The teacher of Music2Vec (arXiv 2212.02508): an average of the student's own weights, as in data2vec (2202.03555)."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..utils.files import staged_file
from .base import MusicalTeacher


class Music2VecTeacher(MusicalTeacher):
    """Average of the top layers of an exponential moving average of the student, on unmasked clean audio.

    The student regresses it at masked frames like a spectrum: its `cqt_head` is data2vec's projection, and
    `cqt_loss_weight` the square root of the hidden size gives data2vec's scale of the loss. `EMATeacherCallback` keeps
    the average up to date and checkpoints it. Targets follow the training, so that they cannot be made ahead of time.

    Args:
        num_bins: hidden size of the student.
        sampling_rate, hop_length: as of `Teacher`; a frame is one of the student.
        top_layers: number of layers, counted from the last, whose outputs are averaged; 8 of 12 in Music2Vec.
        normalize: give the teacher clips of zero mean and unit variance, where the student has `do_normalize`.
    """

    kind = "music2vec"
    setting_names = ("num_bins", "sampling_rate", "hop_length", "top_layers", "normalize")

    def __init__(
        self,
        num_bins: int = 768,
        sampling_rate: int = 16000,
        hop_length: int = 320,
        top_layers: int = 8,
        normalize: bool = False,
    ):
        super().__init__(num_bins=num_bins, sampling_rate=sampling_rate, hop_length=hop_length, top_layers=top_layers)
        self.normalize = normalize
        self.average: nn.Module | None = None

    def state_dict(self, *args, **kwargs) -> dict[str, torch.Tensor]:
        """No weights: the average belongs to a run, whose checkpoints hold it."""
        return {}

    def follow(self, encoder: nn.Module) -> None:
        """Starts from a copy of the student's encoder. Raises ValueError where its width or layers do not fit."""
        config = encoder.config
        if config.hidden_size != self.num_bins or config.num_hidden_layers < self.top_layers:
            raise ValueError(
                f"Music2VecTeacher averages {self.top_layers} layers of width {self.num_bins}; the student has "
                f"{config.num_hidden_layers} layers of width {config.hidden_size}. Set num_bins and top_layers."
            )
        self.average = copy.deepcopy(encoder).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, encoder: nn.Module, decay: float) -> None:
        """Moves the average towards the student's weights: average = decay * average + (1 - decay) * student."""
        students = dict(encoder.named_parameters())
        for name, weight in self.average.named_parameters():
            weight.lerp_(students[name].detach().to(weight.dtype), 1.0 - decay)
        buffers = dict(encoder.named_buffers())
        for name, buffer in self.average.named_buffers():
            buffer.copy_(buffers[name])

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, frames of the student, num_bins) float32, after `follow`."""
        if self.average is None:
            raise ValueError("Music2VecTeacher has no student to follow yet: call follow(model.mert) first.")
        if self.normalize:
            deviation, mean = torch.std_mean(waveforms, dim=1, keepdim=True, correction=0)
            waveforms = (waveforms - mean) / deviation.clamp(1e-4)
        states = self.average(waveforms, output_hidden_states=True, return_dict=True).hidden_states
        return average_of_layers(states[-self.top_layers :])


def average_of_layers(states: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Mean of layers (batch, frames, width), each normalized over time: data2vec's instance normalization.

    Each channel of a clip has zero mean and unit variance over its frames, so that no layer dominates the average and
    the targets cannot collapse to a constant (data2vec, section 3.3).
    """
    normalized = [nn.functional.instance_norm(layer.float().transpose(1, 2)) for layer in states]
    return torch.stack(normalized).mean(dim=0).transpose(1, 2)


AVERAGE_NAME = "ema_teacher.safetensors"


class EMATeacherCallback(TrainerCallback):
    """Updates the average after each optimizer step, saves it with each checkpoint and loads it on resuming.

    The decay, the share of the average that is kept in an update, grows linearly from `start_decay` to `end_decay` over
    `decay_steps` updates; the defaults are those of data2vec for audio (arXiv 2202.03555, section 4.2). The student has
    its encoder as `mert`.
    """

    def __init__(
        self,
        teacher: Music2VecTeacher,
        model: nn.Module,
        start_decay: float = 0.999,
        end_decay: float = 0.9999,
        decay_steps: int = 30000,
    ):
        if not 0.0 <= start_decay <= end_decay <= 1.0:
            raise ValueError(f"Decays must satisfy 0 <= start <= end <= 1, got {start_decay} and {end_decay}.")
        self.teacher, self.encoder = teacher, model.mert
        self.start_decay, self.end_decay, self.decay_steps = start_decay, end_decay, max(decay_steps, 1)
        teacher.follow(self.encoder)

    def decay(self, step: int) -> float:
        """The decay of an update, counted from 0."""
        progress = min(step / self.decay_steps, 1.0)
        return self.start_decay + (self.end_decay - self.start_decay) * progress

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.global_step:
            self.teacher.follow(self.encoder)
        else:
            path = checkpoint_of(args.output_dir, state.global_step)
            self.teacher.average.load_state_dict(load_file(path / AVERAGE_NAME))
        self.teacher.average.to(next(self.encoder.parameters()).device)

    def on_step_end(self, args, state, control, **kwargs):
        self.teacher.update(self.encoder, self.decay(state.global_step - 1))

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            weights = {name: tensor.contiguous() for name, tensor in self.teacher.average.state_dict().items()}
            with staged_file(checkpoint_of(args.output_dir, state.global_step) / AVERAGE_NAME) as path:
                save_file(weights, path)


def checkpoint_of(output_dir: str, step: int) -> Path:
    return Path(output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
