"""Every registered teacher: opened, saved, computed, documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny_pretraining import tiny_config

from mert_hf.modeling.modeling_mert import MERTModel
from mert_hf.teachers import (
    TEACHERS,
    AcousticTeacher,
    CombinedMusicalTeacher,
    CombinedTeacher,
    CQTTeacher,
    EncodecTeacher,
    EncoderTeacher,
    FeatureTeacher,
    FusedEncoderTeacher,
    LogMelTeacher,
    Music2VecTeacher,
    RandomProjectionTeacher,
    load_teacher,
)
from mert_hf.teachers.encodec import MetaEncodecTeacher, meta_encodec
from mert_hf.teachers.fitting import train_mel_rvq
from mert_hf.teachers.settings import RVQSettings
from mert_hf.utils.optional import MissingExtraError

DOCUMENTED = (Path(__file__).resolve().parents[2] / "docs" / "teachers.md").read_text(encoding="utf-8")
RVQ = RVQSettings(codebooks=2, codebook_size=8, codebook_dim=4, num_bins=20, steps=2, show_progress_bar=False)


def music2vec() -> Music2VecTeacher:
    """One that follows a tiny encoder."""
    config = tiny_config()
    sizes = {"num_bins": config.hidden_size, "sampling_rate": config.sampling_rate, "hop_length": config.hop_length}
    teacher = Music2VecTeacher(**sizes, top_layers=1)
    teacher.follow(MERTModel(config))
    return teacher


def meta() -> MetaEncodecTeacher:
    try:
        meta_encodec()
    except MissingExtraError:
        pytest.skip("the package encodec is not installed")
    return MetaEncodecTeacher(2)


# A new teacher needs an entry: how a small one is made, of clips (clips, samples) at 24 kHz.
EXAMPLES = {
    "combined": lambda request: CombinedTeacher([request.getfixturevalue("kmeans"), RandomProjectionTeacher()]),
    "combined_musical": lambda request: CombinedMusicalTeacher([LogMelTeacher(num_bins=8), LogMelTeacher(num_bins=20)]),
    "cqt": lambda request: CQTTeacher(num_bins=84, bins_per_octave=12),
    "encodec": lambda request: EncodecTeacher(request.getfixturevalue("codec")(), 2),
    "encodec_meta": lambda request: meta(),
    "encoders": lambda request: EncoderTeacher.fit(
        request.getfixturevalue("sounds"), [{"name": "mfcc", "layer": 0}], 3, show_progress_bar=False
    ),
    "features": lambda request: FeatureTeacher.fit(request.getfixturevalue("sounds"), [{"name": "mfcc"}]),
    "fused": lambda request: FusedEncoderTeacher.fit(
        request.getfixturevalue("sounds"), [{"name": "mfcc", "layer": 0}], (4, 4), 3, show_progress_bar=False
    ),
    "kmeans": lambda request: request.getfixturevalue("kmeans"),
    "log_mel": lambda request: LogMelTeacher(num_bins=20),
    "mel_rvq": lambda request: train_mel_rvq(list(request.getfixturevalue("sounds")), RVQ),
    "music2vec": lambda request: music2vec(),
    "random_projection": lambda request: RandomProjectionTeacher(num_codebooks=2, codebook_size=16),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_every_registered_teacher_keeps_the_contract(kind, request, sounds, tmp_path):
    """Shapes, types, no gradients, the same targets whatever autocast says, and the same teacher from its folder."""
    teacher = EXAMPLES[kind](request)
    assert type(teacher) is TEACHERS[kind] and teacher.kind == kind and not teacher.train().training
    clips = sounds.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = teacher(clips)
    assert targets.shape[0] == len(clips) and not targets.requires_grad
    if isinstance(teacher, AcousticTeacher):
        assert targets.dtype == torch.int64 and targets.shape[1] == teacher.num_codebooks == len(teacher.codebook_sizes)
        assert all(
            0 <= codes.min() and codes.max() < size
            for codes, size in zip(targets.transpose(0, 1), teacher.codebook_sizes, strict=True)
        )
        assert targets.shape[2] >= clips.shape[1] // teacher.hop_length
    else:
        assert targets.dtype == torch.float32 and targets.shape[2] == teacher.num_bins
        assert targets.shape[1] >= clips.shape[1] // teacher.hop_length - 1
    assert torch.equal(teacher(sounds), targets)
    with pytest.raises(TypeError, match="floating-point"):
        teacher(sounds.to(torch.int16))
    teacher.save_pretrained(tmp_path)
    loaded = load_teacher(tmp_path)
    assert type(loaded) is type(teacher) and loaded.fingerprint() == teacher.fingerprint()
    if kind != "music2vec":  # which has no student yet
        assert torch.equal(loaded(sounds), targets)


@pytest.mark.parametrize("kind", TEACHERS)
def test_every_registered_teacher_is_documented(kind):
    assert re.search(rf"^\| `{kind}` \|", DOCUMENTED, re.M), f"docs/teachers.md has no line for {kind}"


@pytest.mark.parametrize("kind", [kind for kind, teacher in TEACHERS.items() if teacher.made_by and kind != "encodec"])
def test_teachers_with_weights_are_not_opened_by_their_name(kind):
    with pytest.raises(ValueError, match=f"A {kind} teacher is made first, by `{TEACHERS[kind].made_by}`"):
        load_teacher(kind)
