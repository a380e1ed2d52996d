"""Announced by transformers: new names of audio inputs, audio processors, and functions that it removes."""

import ast
import inspect
import os
import subprocess
import sys
import textwrap
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import audio_utils

from mert_hf import (
    MERT2Config,
    MERT2ForPreTraining,
    MERT2ForSequenceClassification,
    MERT2Model,
    MERTConfig,
    MERTFeatureExtractor,
    MERTForPreTraining,
    MERTForSequenceClassification,
    MERTModel,
)
from mert_hf.encoders.handmade import mel_filters
from mert_hf.hub import save_checkpoint
from mert_hf.modeling import __path__ as MODELING
from mert_hf.modeling.modeling_mert2 import MERT2MelFrontEnd
from mert_hf.registration import register_audio_processors

MODELS = [
    MERTModel, MERTForPreTraining, MERTForSequenceClassification,
    MERT2Model, MERT2ForPreTraining, MERT2ForSequenceClassification,
]  # fmt: skip
# Names of `audio_utils` that pull request 48115 of transformers removes.
REMOVED = {"mel_filter_bank", "spectrogram", "spectrogram_batch", "power_to_db_batch", "amplitude_to_db_batch"}


@pytest.fixture
def build(tiny_config, tiny_config2):
    def make(model_class, **fields):
        torch.manual_seed(0)
        config = (tiny_config2 if model_class.__name__.startswith("MERT2") else tiny_config)(**fields)
        return model_class(config).eval()

    return make


def padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    waveforms = torch.randn(2, 12_000, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 12_000, dtype=torch.long)
    waveforms[1, 7_000:], mask[1, 7_000:] = 0, 0
    return waveforms, mask


# Names of inputs


@pytest.mark.parametrize("model_class", MODELS)
def test_audio_values_are_another_name_of_the_input(build, model_class):
    model, (waveforms, mask) = build(model_class), padded_batch()
    with torch.no_grad():
        expected = model(waveforms, attention_mask=mask)[0]
        assert torch.equal(model(audio_values=waveforms, audio_values_mask=mask)[0], expected)
        assert torch.equal(model(audio_values=waveforms, attention_mask=mask)[0], expected)
    assert {"input_values", "audio_values", "audio_values_mask"} <= set(inspect.signature(model.forward).parameters)
    with pytest.raises(ValueError, match="input_values and its other name were both given"):
        model(waveforms, audio_values=waveforms)
    with pytest.raises(ValueError, match="attention_mask and its other name were both given"):
        model(waveforms, attention_mask=mask, audio_values_mask=mask)


def test_the_feature_extractor_takes_the_other_name():
    extractor, clips = MERTFeatureExtractor(), [np.ones(5, np.float32), np.ones(3, np.float32)]
    ours = extractor(audio_values=clips, sampling_rate=24_000, return_tensors="np")
    assert np.array_equal(ours["input_values"], extractor(clips, 24_000, return_tensors="np")["input_values"])
    padded = extractor.pad([{"audio_values": clip, "labels": 1} for clip in clips])
    assert padded["audio_values"].tolist() == [[1.0] * 5, [1.0] * 3 + [0.0] * 2]
    assert padded["labels"].tolist() == [1, 1]


@pytest.mark.parametrize("tensors", [None, "np", "pt"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "longest", "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 12},
        {"padding": "max_length", "max_length": 5, "truncation": True},
        {"truncation": True, "max_length": 5, "pad_to_multiple_of": 4},
        {"max_length": 4},
        {"return_attention_mask": False},
    ],
    ids=str,
)
def test_padding_equals_that_of_transformers(options, tensors):
    base = pytest.importorskip(
        "transformers.feature_extraction_sequence_utils", reason="removed"
    ).SequenceFeatureExtractor
    extractor, draw = MERTFeatureExtractor(padding_value=0.5), np.random.default_rng(0)
    clips = [draw.standard_normal(size) for size in (7, 3, 10)]
    for features in (clips, [torch.from_numpy(clip) for clip in clips], [clip.tolist() for clip in clips]):
        rows = [{"input_values": clip, "labels": label} for label, clip in enumerate(features)]
        ours = extractor.pad(rows, return_tensors=tensors, **options)
        theirs = base.pad(extractor, rows, return_tensors=tensors, **options)
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert type(ours[key]) is type(theirs[key])
            assert ours[key].dtype == theirs[key].dtype
            assert ours[key].tolist() == theirs[key].tolist()


def test_padding_refuses_what_it_cannot_pad():
    extractor = MERTFeatureExtractor()
    with pytest.raises(ValueError, match="need input_values or audio_values, given .'values'."):
        extractor.pad({"values": [[1.0]]})
    for options in ({"padding": "max_length"}, {"truncation": True}):
        with pytest.raises(ValueError, match="max_length is needed"):
            extractor.pad({"input_values": [[1.0]]}, **options)


# What is removed


@pytest.mark.skipif(not hasattr(audio_utils, "mel_filter_bank"), reason="transformers has removed it")
def test_mel_filters_equal_those_of_transformers(tiny_config2):
    for fields in ({}, {"num_mel_bins": 40, "n_fft": 512, "win_length": 512}):
        config = tiny_config2(**fields)
        size, nyquist = config.n_fft // 2 + 1, config.sampling_rate / 2
        theirs = audio_utils.mel_filter_bank(size, config.num_mel_bins, 0.0, nyquist, config.sampling_rate, None, "htk")
        ours = MERT2MelFrontEnd(config).mel_scale.fb
        assert np.abs(ours.numpy() - theirs).max() < 1e-7
    for size, bins, rate in ((1025, 80, 24_000), (257, 40, 8_000), (200, 20, 1_500)):
        theirs = audio_utils.mel_filter_bank(size, bins, 0.0, rate / 2, rate, "slaney", "slaney")
        assert np.abs(mel_filters(size, bins, rate).numpy() - theirs).max() < 1e-7


def test_no_file_that_travels_needs_what_transformers_removes(travelling_files):
    for path in travelling_files:
        tree = ast.parse(path.read_text())
        guarded = {id(node) for branch in ast.walk(tree) if isinstance(branch, ast.Try) for node in ast.walk(branch)}
        names = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and id(node) not in guarded
            for alias in node.names
        }
        assert not names & (REMOVED | {"SequenceFeatureExtractor"}), path.name


@pytest.fixture
def travelling_files():
    from pathlib import Path

    files = sorted(Path(MODELING[0]).glob("*.py"))
    assert len(files) > 5
    return files


def test_a_pushed_checkpoint_loads_where_they_are_removed(build, tmp_path):
    """Its code, not our package, computes the same numbers where the test has removed what transformers will."""
    model, (waveforms, _) = build(MERT2ForSequenceClassification), padded_batch()
    folder = save_checkpoint(model, MERTFeatureExtractor(), tmp_path / "checkpoint")
    program = f"""
        import sys
        import torch
        import transformers.audio_utils, transformers.feature_extraction_utils
        for name in {sorted(REMOVED)}:
            vars(transformers.audio_utils).pop(name, None)
        sys.modules["transformers.feature_extraction_sequence_utils"] = None
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
        model = AutoModelForAudioClassification.from_pretrained({str(folder)!r}, trust_remote_code=True).eval()
        extractor = AutoFeatureExtractor.from_pretrained({str(folder)!r}, trust_remote_code=True)
        assert type(extractor).__mro__[1].__name__ == "FeatureExtractionMixin", type(extractor).__mro__
        assert not any(name == "mert_hf" or name.startswith("mert_hf.") for name in sys.modules)
        clips = torch.load({str(tmp_path / "clips.pt")!r}, weights_only=True)
        inputs = extractor(list(clips), sampling_rate=24_000, return_tensors="pt")
        with torch.no_grad():
            torch.save(model(**inputs).logits, {str(tmp_path / "logits.pt")!r})
    """
    torch.save(waveforms, tmp_path / "clips.pt")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    inputs = MERTFeatureExtractor()(list(waveforms), sampling_rate=24_000, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt", weights_only=True), expected, atol=1e-6, rtol=1e-5)


# Audio processors


class AnnouncedProcessor:
    """A base class of the announced form: attributes of the class are defaults, which keyword arguments replace."""

    sampling_rate = None
    force_mono = None

    def __init__(self, sampling_rate=None, force_mono=None, **kwargs):
        self.sampling_rate = self.sampling_rate if sampling_rate is None else sampling_rate
        self.force_mono = self.force_mono if force_mono is None else force_mono
        if self.sampling_rate is None or self.force_mono is None:
            raise ValueError("sampling_rate and force_mono are needed")
        vars(self).update(kwargs)


def test_the_audio_processor_gives_what_the_feature_extractor_gives(monkeypatch, build):
    stand_in = ModuleType("transformers.audio_processing_utils")
    stand_in.BaseAudioProcessor = AnnouncedProcessor
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.delitem(sys.modules, "mert_hf.modeling.audio_processing_mert", raising=False)
    from mert_hf.modeling.audio_processing_mert import MERTAudioProcessor

    clips = [np.random.default_rng(0).standard_normal((2, size)).astype(np.float32) for size in (9_000, 4_000)]
    processor, extractor = MERTAudioProcessor(sampling_rate=24_000), MERTFeatureExtractor()
    ours = processor(clips, sampling_rate=22_050, return_tensors="pt")
    theirs = extractor(clips, sampling_rate=22_050, return_tensors="pt")
    assert list(ours) == ["audio_values", "audio_values_mask"] == processor.model_input_names
    assert torch.equal(ours["audio_values"], theirs["input_values"])
    assert torch.equal(ours["audio_values_mask"], theirs["attention_mask"])
    model = build(MERTModel)
    with torch.no_grad():
        assert torch.equal(model(**ours)[0], model(**theirs)[0])
    assert list(processor(clips, sampling_rate=22_050, return_padding_mask=False)) == ["audio_values"]
    registered = {}
    auto_class = SimpleNamespace(register=lambda config, kind, exist_ok: registered.update({config: kind}))
    monkeypatch.setattr(sys.modules["transformers"], "AutoAudioProcessor", auto_class, raising=False)
    register_audio_processors()
    assert registered == dict.fromkeys((MERTConfig, MERT2Config), MERTAudioProcessor)


# Attention and masks


@pytest.mark.parametrize("model_class", [MERTModel, MERT2Model])
@pytest.mark.parametrize(
    "kind", ["eager", "sdpa", pytest.param("flex_attention", marks=pytest.mark.slow), "flash_attention_2"]
)
def test_every_kind_of_attention_gives_the_same_states(build, model_class, kind):
    model, (waveforms, mask) = build(model_class, attn_implementation="eager"), padded_batch()
    if not hasattr(model, "set_attn_implementation"):
        pytest.skip("this transformers cannot change the kind of attention of a model")
    if kind == "flash_attention_2" and not torch.cuda.is_available():
        with pytest.raises((ImportError, ValueError), match=r"(?i)flash"):
            model.set_attn_implementation(kind)
        return
    with torch.no_grad():
        expected = model(waveforms, attention_mask=mask)
        torch.compiler.reset()
        model.set_attn_implementation(kind)
        found = model(waveforms, attention_mask=mask)
    valid = expected.feature_attention_mask
    torch.testing.assert_close(found.last_hidden_state[valid], expected.last_hidden_state[valid], atol=1e-5, rtol=1e-4)


def test_the_first_generation_returns_its_frame_mask(build):
    model, (waveforms, mask) = build(MERTModel), padded_batch()
    with torch.no_grad():
        padded, whole = model(waveforms, attention_mask=mask), model(waveforms)
    assert torch.equal(padded.feature_attention_mask, model.frame_mask(mask))
    assert padded.feature_attention_mask.sum(dim=1).tolist() == [model.config.num_frames(n) for n in (12_000, 7_000)]
    assert whole.feature_attention_mask.all()
    assert whole.feature_attention_mask.shape == whole.last_hidden_state.shape[:2]
