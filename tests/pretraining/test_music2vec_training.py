"""Music2Vec on the trainer: the average follows and is checkpointed; a run resumes to the bit and does not collapse."""

from __future__ import annotations

import pytest
import torch
from tiny_pretraining import losses_of

from mert_hf.pretraining import run
from mert_hf.teachers import Music2VecTeacher
from mert_hf.teachers.music2vec import AVERAGE_NAME


@pytest.fixture
def music2vec_run(tiny_run, monkeypatch) -> list[str]:
    """Arguments of a run of the tiny student against its own average."""
    monkeypatch.undo()  # the real registry of teachers
    teacher = '{"type": "music2vec", "num_bins": 16, "sampling_rate": 2000, "hop_length": 40, "top_layers": 2}'
    decay = '{"start_decay": 0.9, "end_decay": 0.99, "decay_steps": 4}'
    student = '{"sample_rate": 2000, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, '
    student += '"intermediate_size": 32, "conv_dim": [8, 8, 8], "conv_stride": [5, 4, 2], "conv_kernel": [10, 4, 2], '
    student += '"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "cqt_loss_weight": 4.0}'
    settings = ["--musical_teacher", teacher, "--ema", decay, "--model_config", student]
    path = tiny_run[0]
    text = open(path).read().split("\n")
    kept = "\n".join(line for line in text if "acoustic_teacher" not in line and "type: loudness" not in line)
    open(path, "w").write(kept)
    return [path, *settings]


def teacher_of(trainer) -> Music2VecTeacher:
    return trainer.data_collator.musical_teacher


def test_a_run_resumes_to_the_bit_with_its_average(music2vec_run, tmp_path):
    straight = run.main([*music2vec_run, "--output_dir", str(tmp_path / "straight")])
    assert len(losses_of(straight)) == 6
    checkpoint = tmp_path / "straight" / "checkpoint-3"
    assert (checkpoint / AVERAGE_NAME).is_file()
    (tmp_path / "resumed").mkdir()
    checkpoint.rename(tmp_path / "resumed" / "checkpoint-3")
    resumed = run.main([*music2vec_run, "--output_dir", str(tmp_path / "resumed")])
    assert losses_of(resumed) == losses_of(straight)
    for one, other in zip(
        teacher_of(straight).average.parameters(), teacher_of(resumed).average.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_the_average_is_that_of_all_updates(music2vec_run, tmp_path):
    """Against the recursion written out, with the weights after each update."""
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        def __init__(self):
            self.weights = []

        def on_step_begin(self, args, state, control, model=None, **kwargs):
            self.weights.append([weight.detach().clone() for weight in model.mert.parameters()])

        on_train_end = on_step_begin

    keeper = Keeper()
    trainer = run.run_pretraining(*run.parse_arguments(music2vec_run), callbacks=[keeper])
    expected = keeper.weights[0]
    for step, weights in enumerate(keeper.weights[1:]):
        decay = 0.9 + 0.09 * min(step / 4, 1.0)
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
    for weight, reference in zip(teacher_of(trainer).average.parameters(), expected, strict=True):
        assert torch.allclose(weight, reference, atol=1e-6)


def test_wrong_decays(music2vec_run):
    with pytest.raises(ValueError, match="Decays must satisfy"):
        run.main([*music2vec_run, "--ema", '{"start_decay": 0.9, "end_decay": 0.5}'])


@pytest.mark.slow
@pytest.mark.long
def test_no_collapse_over_500_updates(music2vec_run, tmp_path, monkeypatch):
    """The teacher's last layer still differs from frame to frame, and the loss is below that of predicting the mean.

    The targets are normalized over time, so that their own spread could not show a collapse.
    """
    spreads = []
    forward = Music2VecTeacher.forward

    def recorded(self, waveforms):
        spreads.append(float(self.average(waveforms).last_hidden_state.std(dim=1).mean()))
        return forward(self, waveforms)

    monkeypatch.setattr(Music2VecTeacher, "forward", recorded)
    options = ["--max_steps", "500", "--learning_rate", "1e-3", "--warmup_steps", "50", "--save_steps", "1000"]
    ema = ["--ema", '{"start_decay": 0.99, "end_decay": 0.999, "decay_steps": 300}', "--disable_tqdm", "true"]
    trainer = run.main([*music2vec_run, *options, *ema, "--output_dir", str(tmp_path)])
    losses = [entry["cqt_loss"] for entry in trainer.state.log_history if "cqt_loss" in entry]
    assert sum(spreads[-50:]) > 0.5 * sum(spreads[:50]), "the teacher has not collapsed"
    assert sum(losses[-50:]) / 50 < 0.97, "predicting the mean of each channel costs 1"
