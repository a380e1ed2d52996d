"""The teacher of Music2Vec (arXiv 2212.02508): an average of the student's own weights, as in data2vec (2202.03555)."""

from __future__ import annotations

import copy

import torch
from torch import nn

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
        """Starts from a copy of the student's encoder.

        Raises:
            ValueError: the encoder has another width, or fewer layers than are averaged.
        """
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
        """(batch, samples) float32 -> (batch, frames of the student, num_bins) float32.

        Raises:
            ValueError: there is no average yet; `MERTTrainer` with `EMATeacherCallback` makes it.
        """
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
