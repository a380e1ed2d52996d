"""MERTFeatureExtractor: every kind of audio, padding, normalization, errors."""

import re
from array import array

import numpy as np
import pytest
import torch

from mert_hf import MERTFeatureExtractor


@pytest.fixture
def extractor():
    return MERTFeatureExtractor()


def sine(seconds=0.5, rate=24000, frequency=440.0):
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate).astype(np.float32) * 0.5


class Decoder:
    """The object that datasets gives for an Audio column since version 4."""

    def __init__(self, data, rate):
        self.data, self.sample_rate = torch.from_numpy(data), rate

    def get_all_samples(self):
        return self


KINDS = {
    "array": lambda x: x,
    "tensor": torch.from_numpy,
    "bfloat16 tensor": lambda x: torch.from_numpy(x).bfloat16(),
    "list": lambda x: x.tolist(),
    "double": lambda x: x.astype(np.float64),
    "batch of one": lambda x: [x],
    "one channel": lambda x: x[None],
    "stereo": lambda x: np.stack([x * 0.5, x * 1.5]),
    "int16": lambda x: np.round(x * 2**15).astype(np.int16),
    "int32": lambda x: np.round(x.astype(np.float64) * 2**31).astype(np.int32),
    "uint8": lambda x: np.round(x * 127 + 128).astype(np.uint8),
    "dictionary": lambda x: {"array": x, "sampling_rate": 24000, "path": None},
    "pipeline's dictionary": lambda x: {"raw": x, "sampling_rate": 24000},
    "decoder": lambda x: Decoder(np.stack([x, x]), 24000),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_gives_the_same_input(extractor, kind):
    features = extractor(kind(sine()), sampling_rate=24000, return_tensors="pt")
    assert features["input_values"].shape == features["attention_mask"].shape == (1, 12000)
    assert features["input_values"].dtype == torch.float32
    expected = extractor(sine(), sampling_rate=24000, return_tensors="pt")["input_values"]
    assert (features["input_values"] - expected).abs().max() < 0.03  # uint8 and bfloat16 are coarse


def test_batches(extractor):
    ragged = extractor([sine(0.5), sine(0.25), np.stack([sine(0.1)] * 2)], sampling_rate=24000, return_tensors="np")
    assert ragged["input_values"].shape == (3, 12000)
    assert ragged["attention_mask"].sum(1).tolist() == [12000, 6000, 2400]
    assert not ragged["input_values"][1, 6000:].any()
    assert extractor(np.stack([sine()] * 3), sampling_rate=24000, return_tensors="np")["input_values"].shape == (
        3,
        12000,
    )
    assert extractor(np.ones((4, 2, 900), np.float32), sampling_rate=24000)["input_values"][3].shape == (900,)


def test_normalization_uses_valid_samples_only(extractor):
    values = extractor([sine(0.5) + 0.3, sine(0.25)], sampling_rate=24000, return_tensors="np")["input_values"]
    for row, length in ((values[0], 12000), (values[1], 6000)):
        assert row[:length].mean() == pytest.approx(0, abs=1e-5) and row[:length].std() == pytest.approx(1, abs=1e-3)
    raw = MERTFeatureExtractor(do_normalize=False)(sine(), sampling_rate=24000, return_tensors="np")
    np.testing.assert_array_equal(raw["input_values"][0], sine())


def test_integer_tensors_are_not_changed_in_place(extractor):
    clip = sine()
    before = clip.copy()
    extractor(clip, sampling_rate=24000)
    np.testing.assert_array_equal(clip, before)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_resampling(rate):
    extractor = MERTFeatureExtractor(do_normalize=False)
    resampled = extractor(sine(0.5, rate), sampling_rate=rate)["input_values"][0]
    assert abs(len(resampled) - 12000) <= 1
    middle = slice(1000, 11000)
    assert np.abs(resampled[middle] - sine()[middle]).max() < 2e-3


def test_a_clips_own_rate_wins(extractor):
    features = extractor({"array": sine(0.5, 48000), "sampling_rate": 48000}, sampling_rate=24000)
    assert len(features["input_values"][0]) == 12000


def test_padding_options(extractor):
    clips = [sine(0.5), sine(0.25)]
    padded = extractor(clips, 24000, padding="max_length", max_length=15000, return_tensors="pt")
    assert padded["input_values"].shape == (2, 15000)
    cut = extractor(clips, 24000, truncation=True, max_length=5000, return_tensors="pt")
    assert cut["input_values"].shape == (2, 5000) and cut["attention_mask"].all()
    multiple = extractor(clips, 24000, pad_to_multiple_of=320, return_tensors="pt")
    assert multiple["input_values"].shape == (2, 12160)
    lists = extractor(clips, 24000, padding=False)
    assert [len(values) for values in lists["input_values"]] == [12000, 6000]
    assert "attention_mask" not in extractor(clips, 24000, return_attention_mask=False)


def test_lists_arrays_and_buffers_are_the_same_clip(extractor):
    clip = sine(0.1)
    expected = extractor(clip, 24000)["input_values"][0]
    stereo = np.stack([clip, clip])
    for same in (
        clip.tolist(),
        [clip.tolist()],
        [tuple(clip)],
        [stereo.tolist()],
        [[clip, clip]],
        [torch.tensor(clip)],
        array("f", clip),
    ):
        np.testing.assert_allclose(extractor(same, 24000)["input_values"][0], expected, atol=1e-6)
    one = {"array": [torch.tensor(clip), torch.tensor(clip)], "sampling_rate": 24000}
    np.testing.assert_allclose(extractor(one)["input_values"][0], expected, atol=1e-6)


def test_round_trip(tmp_path):
    MERTFeatureExtractor(sampling_rate=16000, do_normalize=False).save_pretrained(tmp_path)
    again = MERTFeatureExtractor.from_pretrained(tmp_path)
    assert (again.sampling_rate, again.do_normalize) == (16000, False)


def test_a_clip_shorter_than_a_sample_of_the_model_is_refused():
    with pytest.raises(ValueError, match="A clip of 1 samples at 48001 Hz has none at 24000"):
        MERTFeatureExtractor()(np.zeros(1, np.float32), sampling_rate=48001)


@pytest.mark.parametrize(
    ("audio", "error", "message"),
    [
        ([], ValueError, "list of clips is empty"),
        (np.zeros(0, np.float32), ValueError, "no samples"),
        (np.zeros((0, 2), np.float32), ValueError, "no samples"),
        ("song.wav", TypeError, "Read files with mert_hf.audio.read_audio"),
        ([b"RIFF"], TypeError, "given bytes"),
        (None, TypeError, "given NoneType"),
        (np.array([0.0, np.nan]), ValueError, "NaN or infinite"),
        (np.array([0.0, np.inf]), ValueError, "NaN or infinite"),
        (np.zeros(100, np.int64), TypeError, "int64 has no defined scale"),
        (np.zeros(100, np.complex64), TypeError, "real numbers"),
        (np.zeros((9000, 2), np.float32), ValueError, "looks like (samples, channels)"),
        ([np.zeros((9000, 2), np.float32)], ValueError, "looks like (samples, channels)"),
        (np.zeros((2, 2, 2, 9), np.float32), ValueError, "must have shape (samples,)"),
        ({"array": np.zeros(9)}, ValueError, "needs the keys"),
        ({"array": np.zeros(9), "sampling_rate": -1}, ValueError, "sampling_rate=-1 must be a positive number"),
        ([[0.0, 1.0], ["a"]], TypeError, "real numbers"),
        ([[0.5, range(10**12)]], TypeError, "given range from list"),
        ([[[[range(10**12)]]]], TypeError, "given list from list"),
        (range(10**12), TypeError, "given range"),
        ({"array": range(10**12), "sampling_rate": 24000}, TypeError, "given range"),
    ],
)
def test_bad_audio_names_the_remedy(extractor, audio, error, message):
    with pytest.raises(error, match=re.escape(message)):
        extractor(audio, sampling_rate=24000)


def test_left_padding_is_refused():
    with pytest.raises(ValueError, match="padding_side='left'"):
        MERTFeatureExtractor(padding_side="left")
