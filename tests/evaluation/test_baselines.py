"""Hand-made features and fresh or foreign encoders with the one interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from mert_hf.audio import read_audio
from mert_hf.embedding.windows import embed_windows, recording_windows
from mert_hf.encoders import open_encoder
from mert_hf.encoders.handmade import BASELINES, HandmadeEncoder, log_mel
from mert_hf.evaluation.probing.features import FeatureRequest
from mert_hf.hub.names import untrained_checkpoint

from .synthesis import note, write


def describe(name: str, path, pooling: str = "mean_std") -> np.ndarray:
    encoder = HandmadeEncoder(name, "cpu")
    windows = ((0, window) for window in recording_windows(encoder, path))
    ((_, window, values),) = embed_windows(encoder, windows, [0], pooling)
    request = FeatureRequest(encoder, 5.0, pooling, encoder.layers)
    return request.grid_frames(window, values) if pooling == "frames" else values


@pytest.mark.parametrize("pitch", [57, 60, 66, 71])
def test_chroma_peaks_at_the_pitch_class(pitch, tmp_path):
    values = describe("chroma", write(tmp_path / "a.wav", note(pitch, 1.0, "flute")))
    assert values.shape == (1, 24)
    assert values[0, :12].argmax() == pitch % 12 and values[0, :12].sum() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_frames_hold_values_and_their_rises(name, tmp_path):
    silence_then_note = np.concatenate([np.zeros(8000, np.float32), note(60, 1.0)])
    values = describe(name, write(tmp_path / "a.wav", silence_then_note), "frames")
    encoder = HandmadeEncoder(name, "cpu")
    assert values.shape[1:] == (1, 2 * encoder.hidden_size) and len(values) in (150, 151)
    rises = values[:, 0, encoder.hidden_size :]
    assert (rises >= 0).all() and abs(rises.sum(axis=1).argmax() - 75) <= 13  # half of chroma's long frame
    assert encoder.frame_times(151)[75] == 1.0


def test_chunks_are_mean_and_deviation_of_the_descriptor(tmp_path):
    path = write(tmp_path / "a.wav", note(60, 1.0), 24000)
    frames = log_mel(torch.from_numpy(read_audio(path, 24000))[None], 24000, 320)[0]
    expected = torch.cat([frames.mean(dim=0), frames.std(dim=0, correction=0)])
    np.testing.assert_allclose(describe("mel", path)[0], expected, atol=1e-4)


def test_handmade_is_the_three_side_by_side(tmp_path):
    path = write(tmp_path / "a.wav", note(60, 1.0), 24000)
    expected = [describe("mel", path), describe("mfcc", path) / np.sqrt(80), 12 * describe("chroma", path)]
    for half in (0, 1):  # means, deviations
        parts = [np.split(values[0], 2)[half] for values in expected]
        found = np.split(describe("handmade", path)[0], 2)[half]
        np.testing.assert_allclose(found, np.concatenate(parts), rtol=1e-5, atol=1e-6)


def test_random_is_the_same_net_with_fresh_weights(tiny_checkpoint):
    trained, fresh = open_encoder(str(tiny_checkpoint), "cpu"), open_encoder(f"random:{tiny_checkpoint}", "cpu")
    assert type(fresh.model) is type(trained.model)
    again = open_encoder(f"random:{tiny_checkpoint}", "cpu")
    assert fresh.fingerprint == again.fingerprint
    for one, two in zip(fresh.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_fresh_weights_of_other_seeds(tiny_checkpoint):
    draws = [open_encoder(f"random:{seed}{tiny_checkpoint}", "cpu") for seed in ("", "0:", "1:", "2:")]
    assert draws[0].fingerprint == draws[1].fingerprint
    assert len({draw.fingerprint for draw in draws}) == 3


def test_names_of_untrained_checkpoints():
    assert untrained_checkpoint("random:mert-nano") == ("mert-nano", 0)
    assert untrained_checkpoint("random:12:m-a-p/MERT-v1-95M") == ("m-a-p/MERT-v1-95M", 12)
    assert untrained_checkpoint("random:C:/model") == ("C:/model", 0)
    assert untrained_checkpoint("mert-nano") is None


def test_random_leaves_the_global_random_state_alone(tiny_checkpoint):
    before = torch.get_rng_state()
    open_encoder(f"random:{tiny_checkpoint}", "cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_fingerprint_follows_weights_and_not_the_folder(tiny_checkpoint, tmp_path):
    encoder = open_encoder(str(tiny_checkpoint), "cpu")
    encoder.model.save_pretrained(tmp_path / "copy")
    encoder.feature_extractor.save_pretrained(tmp_path / "copy")
    assert open_encoder(str(tmp_path / "copy"), "cpu").fingerprint == encoder.fingerprint
    with torch.no_grad():
        next(encoder.model.parameters()).add_(1e-3)
    encoder.model.save_pretrained(tmp_path / "copy")
    assert open_encoder(str(tmp_path / "copy"), "cpu").fingerprint != encoder.fingerprint


@pytest.mark.parametrize("family", ["Hubert", "Wav2Vec2", "Data2VecAudio"])
def test_other_encoders_of_the_hub_give_all_their_layers(family, tmp_path):
    config = getattr(transformers, f"{family}Config")(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=3 if family == "Data2VecAudio" else 16,
        num_conv_pos_embedding_groups=2,
        conv_pos_kernel_size=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        getattr(transformers, f"{family}Model")(config).save_pretrained(tmp_path / "model")
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(tmp_path / "model")
    encoder = open_encoder(str(tmp_path / "model"), "cpu")
    path = write(tmp_path / "a.wav", note(60, 2.0))
    windows = [(0, window) for window in recording_windows(encoder, path, 1.0)]
    values = [values for _, _, values in embed_windows(encoder, windows, encoder.layers)]
    assert encoder.sampling_rate == 16000 and encoder.hop_length == 320
    assert [value.shape for value in values] == [(3, 16), (3, 16)]


def test_unknown_models_are_told():
    with pytest.raises(FileNotFoundError, match=r"(?s)no/such-model.*a baseline: mfcc, chroma, mel"):
        open_encoder("no/such-model")
