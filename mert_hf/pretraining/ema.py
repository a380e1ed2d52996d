"""The moving average of Music2Vec's teacher during training, and its checkpoints."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..teachers.music2vec import Music2VecTeacher
from ..utils.files import staged_file

AVERAGE_NAME = "ema_teacher.safetensors"


class EMATeacherCallback(TrainerCallback):
    """Updates the average after each optimizer step, saves it with each checkpoint and loads it on resuming.

    The decay grows linearly from `start_decay` to `end_decay` over `decay_steps` updates; the defaults are those of
    data2vec for audio (arXiv 2202.03555, section 4.2).

    Args:
        teacher: the teacher.
        model: the student, with its encoder as `mert`.
        start_decay, end_decay: share of the average that is kept in an update.
        decay_steps: updates over which the decay grows.
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
    """The folder of a checkpoint."""
    return Path(output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
