"""The codes are those of EncodecModel.encode."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mert_hf.teachers import EncodecTeacher, load_teacher


@pytest.mark.parametrize(("num_codebooks", "bandwidth"), [(1, 1.5), (2, 1.5), (3, 3.0), (4, 3.0), (8, 6.0)])
def test_codes_are_those_of_the_codec(codec, sounds, num_codebooks, bandwidth):
    teacher = EncodecTeacher(codec(), num_codebooks)
    with torch.no_grad():
        expected = codec().eval().encode(sounds[:, None], bandwidth=bandwidth).audio_codes[0]
    codes = teacher(sounds)
    assert teacher.bandwidth == bandwidth and codes.dtype == torch.int64
    assert torch.equal(codes, expected[:, :num_codebooks])
    assert codes.shape == (3, num_codebooks, 113)  # 36000 / 320, rounded up
    assert min(len(book.unique()) for book in codes.transpose(0, 1)) > 5


def test_first_codebooks_do_not_depend_on_how_many_follow(codec, sounds):
    assert torch.equal(EncodecTeacher(codec(), 3)(sounds), EncodecTeacher(codec())(sounds)[:, :3])


def test_eight_codebooks_unless_there_are_fewer(codec):
    teacher = EncodecTeacher(codec())
    assert (teacher.num_codebooks, teacher.codebook_size, teacher.hop_length, teacher.frame_rate) == (
        8,
        1024,
        320,
        75.0,
    )
    assert EncodecTeacher(codec(target_bandwidths=[3.0])).num_codebooks == 4
    del (few := codec()).quantizer.layers[5:]
    assert EncodecTeacher(few).num_codebooks == 5


def test_frozen_and_in_evaluation_inside_a_trained_model(codec, sounds):
    student = torch.nn.ModuleDict({"teacher": EncodecTeacher(codec(), 2)})
    student.train()
    assert not any(module.training for module in student["teacher"].modules())
    assert not any(parameter.requires_grad for parameter in student.parameters())
    assert not student["teacher"](sounds.requires_grad_()).requires_grad
    sounds.requires_grad_(False)


def test_a_long_recording_in_blocks(codec, sounds, monkeypatch):
    teacher = EncodecTeacher(codec(), 4)
    recording = torch.cat([sounds.flatten(), sounds.flatten()[:777]])
    whole = teacher(recording[None])[0]
    monkeypatch.setattr(EncodecTeacher, "block_frames", 50)
    calls = []
    teacher.model.quantizer.register_forward_pre_hook(lambda *_: calls.append(1))
    blocks = teacher.label_recording(recording)
    assert blocks.shape == whole.shape
    assert (blocks != whole).float().mean() < 2e-3  # rounding decides between codes that are as near
    early = teacher(recording[None, : 50 * 320])[0]
    assert torch.equal(blocks[:, :49], early[:, :49])  # causal: the first block does not see what follows


def test_a_codec_that_sees_the_future_labels_in_one_piece(codec, sounds, monkeypatch):
    monkeypatch.setattr(EncodecTeacher, "block_frames", 50)
    teacher = EncodecTeacher(codec(use_causal_conv=False), 2)
    assert torch.equal(teacher.label_recording(sounds[0]), teacher(sounds[:1])[0])


def test_autocast_changes_nothing(codec, sounds):
    teacher = EncodecTeacher(codec(), 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher(sounds.double()), teacher(sounds.double().float()))


def test_saved_and_loaded(codec, sounds, tmp_path):
    teacher = EncodecTeacher(codec(), 3)
    teacher.save_pretrained(tmp_path)
    for loaded in (EncodecTeacher.from_pretrained(tmp_path), load_teacher(tmp_path)):
        assert torch.equal(loaded(sounds), teacher(sounds))
        assert loaded.fingerprint() == teacher.fingerprint()
    assert EncodecTeacher.from_pretrained(tmp_path, num_codebooks=5).num_codebooks == 5


def test_a_codec_saved_by_transformers_is_a_teacher(codec, sounds, tmp_path):
    codec().save_pretrained(tmp_path)
    assert torch.equal(load_teacher(tmp_path, num_codebooks=2)(sounds), EncodecTeacher(codec(), 2)(sounds))


def test_the_fingerprint_is_of_what_encodes(codec):
    teacher = EncodecTeacher(codec(), 3)
    before = teacher.fingerprint()
    for name, parameter in teacher.model.named_parameters():
        if name.startswith("decoder"):
            parameter.data.add_(1)
    assert teacher.fingerprint() == before
    assert EncodecTeacher(codec(), 4).fingerprint() != before
    assert EncodecTeacher(codec(pad_mode="constant"), 3).fingerprint() != before
    teacher.model.quantizer.layers[2].codebook.embed[0, 0] += 1e-3
    assert teacher.fingerprint() != before


@pytest.mark.parametrize(
    "fields", [{"audio_channels": 2}, {"normalize": True}, {"chunk_length_s": 1.0, "overlap": 0.01}]
)
def test_codecs_of_another_kind_are_refused(codec, fields):
    with pytest.raises(ValueError, match="Give a mono codec that works without chunks, such as facebook/encodec_24khz"):
        EncodecTeacher(codec(**fields))


@pytest.mark.parametrize("number", [0, -1, True, 2.0, "2"])
def test_numbers_of_codebooks_that_make_no_sense(codec, number):
    with pytest.raises(ValueError, match="num_codebooks=.* must be a positive integer"):
        EncodecTeacher(codec(), number)


def test_more_codebooks_than_there_are(codec):
    with pytest.raises(ValueError, match="num_codebooks=9 must be between 1 and 8"):
        EncodecTeacher(codec(), 9)


def test_missing_weights_are_refused(codec, tmp_path):
    codec().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if name.startswith("encoder.layers.0"))
    save_file(
        {name: weights[name] for name in weights if name != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match="lacks 1 weights of the codec, such as encoder.layers.0"):
        EncodecTeacher.from_pretrained(tmp_path)


def test_a_hostile_number_in_the_saved_settings(codec, tmp_path):
    EncodecTeacher(codec(), 3).save_pretrained(tmp_path)
    (tmp_path / "teacher_config.json").write_text(json.dumps({"teacher": "encodec", "num_codebooks": [1e9]}))
    with pytest.raises(ValueError, match="must be a positive integer"):
        load_teacher(tmp_path)


@pytest.mark.parametrize(
    ("waveforms", "error", "text"),
    [
        (torch.zeros(2, 100, dtype=torch.int16), TypeError, "Convert PCM to"),
        ([0.0] * 100, TypeError, "given list"),
        (torch.zeros(100), ValueError, "must be .batch, samples. with samples"),
        (torch.zeros(2, 0), ValueError, "with samples"),
    ],
)
def test_input_that_is_no_batch_of_waveforms(codec, waveforms, error, text):
    with pytest.raises(error, match=text):
        EncodecTeacher(codec(), 2)(waveforms)
