"""The Music2Vec teacher against a plain computation of data2vec's targets and of the moving average."""

from __future__ import annotations

import pytest
import torch
from tiny_sizes import STUDENT_SIZES

from mert_hf.modeling.configuration_mert import MERTConfig
from mert_hf.modeling.modeling_mert import MERTModel
from mert_hf.teachers.music2vec import Music2VecTeacher, average_of_layers

SIZES = {**STUDENT_SIZES, "num_hidden_layers": 3}


@pytest.fixture
def encoder() -> MERTModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MERTModel(MERTConfig(**SIZES)).train()


def teacher_of(encoder: MERTModel, **settings) -> Music2VecTeacher:
    teacher = Music2VecTeacher(16, 2000, 40, top_layers=2, **settings)
    teacher.follow(encoder)
    return teacher


def test_targets_are_the_mean_of_the_normalized_top_layers(encoder):
    """data2vec, section 3.3: each channel of each layer normalized over the frames of the clip, then averaged."""
    clips = torch.randn(2, 2000, generator=torch.Generator().manual_seed(1)) * 0.1
    targets = teacher_of(encoder)(clips)
    states = encoder.eval()(clips, output_hidden_states=True).hidden_states
    assert targets.shape == states[-1].shape == (2, encoder.config.num_frames(2000), 16)
    expected = torch.zeros_like(targets)
    for layer in states[-2:]:
        for row in range(2):
            for channel in range(16):
                values = layer[row, :, channel]
                expected[row, :, channel] += (values - values.mean()) / (values.var(correction=0) + 1e-5).sqrt() / 2
    assert torch.allclose(targets, expected, atol=1e-4)
    assert torch.allclose(average_of_layers(states[-2:]), expected, atol=1e-4)


def test_the_average_moves_towards_the_student(encoder):
    teacher = teacher_of(encoder)
    before = {name: weight.clone() for name, weight in teacher.average.named_parameters()}
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(1.0)
    teacher.update(encoder, decay=0.9)
    for name, weight in teacher.average.named_parameters():
        assert torch.allclose(weight, before[name] + 0.1, atol=1e-6), name
    assert not any(weight.requires_grad for weight in teacher.average.parameters())


def test_the_teacher_stays_in_evaluation(encoder):
    teacher = teacher_of(encoder).train()
    assert not teacher.training and not teacher.average.training


def test_normalized_clips(encoder):
    clips = torch.randn(2, 2000, generator=torch.Generator().manual_seed(1)) * 0.01 + 0.3
    normalized = (clips - clips.mean(1, keepdim=True)) / clips.std(1, keepdim=True, correction=0)
    assert torch.allclose(teacher_of(encoder, normalize=True)(clips), teacher_of(encoder)(normalized), atol=1e-4)


def test_students_that_do_not_fit(encoder):
    with pytest.raises(ValueError, match="averages 8 layers of width 16; the student has 3 layers of width 16"):
        Music2VecTeacher(16, 2000, 40).follow(encoder)
    with pytest.raises(ValueError, match="no student to follow yet"):
        Music2VecTeacher(16, 2000, 40)(torch.zeros(1, 2000))
