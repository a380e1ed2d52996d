"""MERTEmbedder: shapes, times, layers, poolings, batch sizes, other encoders, errors."""

from __future__ import annotations

import io
import shutil
import sys
import typing

import numpy as np
import pytest
import torch
from sounds import melody
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from mert_hf import MERTEmbedder, MERTFeatureExtractor, MERTModel
from mert_hf.audio import AudioReadError, find_audio_files, read_audio
from mert_hf.embedding.embedder import OneRecording
from mert_hf.embedding.windows import SpeedBar, recording_windows
from mert_hf.utils.devices import resolve_dtype

QUIET = {"show_progress_bar": False}
TINY_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


def test_one_recording(embedder, recordings):
    result = embedder.encode(recordings[3], **QUIET)
    assert result.shape == result.embeddings.shape == (3, 4, 32)
    assert result.embeddings.dtype == np.float32
    assert np.asarray(result) is result.embeddings
    np.testing.assert_allclose(result.start, [0, 5, 10])
    np.testing.assert_allclose(result.end, [5, 10, 12.3], atol=1e-4)
    assert result.layers == (0, 1, 2, 3)
    assert result.path == str(recordings[3])
    assert result.frame_times is None


def test_values_are_the_model_s(embedder, recordings):
    samples = read_audio(recordings[0], 24000)
    result = embedder.encode(recordings[0], **QUIET)
    for index, part in enumerate((samples[:120000], samples[120000:])):
        inputs = embedder.encoder.feature_extractor(part, sampling_rate=24000, return_tensors="pt")
        with torch.no_grad():
            states = embedder.model(**inputs, output_hidden_states=True).hidden_states
        expected = torch.stack(states, dim=1)[0].mean(dim=1)
        np.testing.assert_allclose(result.embeddings[index], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "frames"])
def test_batch_size_does_not_matter(embedder, recordings, pooling):
    alone = [embedder.encode(path, batch_size=1, pooling=pooling, **QUIET) for path in recordings]
    for batch_size in (2, 16, 10**30):
        together = embedder.encode(recordings, batch_size=batch_size, pooling=pooling, **QUIET)
        for one, other in zip(alone, together, strict=True):
            assert one.path == other.path
            np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-5)


def test_frames(embedder, recordings):
    result = embedder.encode(recordings[0], pooling="frames", layers=[1, 3], **QUIET)
    mean = embedder.encode(recordings[0], layers=[1, 3], **QUIET)
    assert result.shape == (374 + 112, 2, 32)
    assert result.frame_times.shape == result.frame_windows.shape == (486,)
    np.testing.assert_allclose(result.frame_times[[0, 1, 374]], [200 / 24000, 520 / 24000, 5 + 200 / 24000])
    for window in (0, 1):
        own = result.embeddings[result.frame_windows == window]
        np.testing.assert_allclose(own.mean(axis=0), mean.embeddings[window], atol=1e-5)


def test_layers(embedder, recordings):
    everything = embedder.encode(recordings[2], **QUIET).embeddings
    some = embedder.encode(recordings[2], layers=[-1, 0], **QUIET)
    assert some.layers == (3, 0)
    np.testing.assert_array_equal(some.embeddings, everything[:, [3, 0]])
    one = embedder.encode(recordings[2], layers=-2, **QUIET)
    assert (one.layers, one.shape) == ((2,), (1, 32))
    np.testing.assert_array_equal(one.embeddings, everything[:, 2])
    frames = embedder.encode(recordings[2], layers=2, pooling="frames", **QUIET)
    assert frames.shape == (374, 32)


def test_audio_in_memory(embedder, recordings):
    samples = read_audio(recordings[0], 24000)
    expected = embedder.encode(recordings[0], **QUIET)
    stereo = np.stack([samples, samples])
    for audio in (samples, torch.from_numpy(samples), stereo, {"array": samples, "sampling_rate": 24000}):
        result = embedder.encode(audio, sampling_rate=24000, **QUIET)
        assert result.path is None
        np.testing.assert_allclose(result.embeddings, expected.embeddings, atol=1e-5)
    several = embedder.encode([samples, stereo, recordings[0], recordings[0].open("rb")], sampling_rate=24000, **QUIET)
    for result in several:
        np.testing.assert_allclose(result.embeddings, expected.embeddings, atol=1e-5)
    content = recordings[0].read_bytes()
    assert embedder.encode(io.BytesIO(content), **QUIET).path == "<audio in memory>"
    assert np.array_equal(embedder.encode(content, **QUIET), embedder.encode(recordings[0], **QUIET))
    assert embedder.encode(samples[:24000], sampling_rate=48000, **QUIET).end.tolist() == [0.5]
    assert embedder.encode(samples[:4000].tolist(), sampling_rate=24000, **QUIET).shape == (1, 4, 32)
    assert embedder.encode([], **QUIET) == []


def test_short_last_windows(embedder, music):
    samples = music[: 24000 + 399]  # the last window is one sample short of a frame
    result = embedder.encode(samples, window=1.0, sampling_rate=24000, **QUIET)
    assert result.end.tolist() == [1.0]
    assert embedder.encode(music[: 24000 + 400], window=1.0, sampling_rate=24000, **QUIET).shape[0] == 2
    assert embedder.encode(music[:36000], window=1.0, min_window=0.6, sampling_rate=24000, **QUIET).shape[0] == 1
    assert embedder.encode(music[:400], min_window=0.6, sampling_rate=24000, **QUIET).shape[0] == 1


def test_hop_and_whole_recordings(embedder, recordings):
    overlapping = embedder.encode(recordings[0], window=3.0, hop=1.5, **QUIET)
    np.testing.assert_allclose(overlapping.start, [0, 1.5, 3, 4.5])
    whole = embedder.encode(recordings[0], window=None, **QUIET)
    assert (whole.shape[0], whole.end[0]) == (1, 6.5)


@pytest.mark.parametrize(
    "model",
    [
        HubertModel(HubertConfig(**TINY_ENCODER, **POSITIONS)),
        Wav2Vec2Model(Wav2Vec2Config(**TINY_ENCODER, **POSITIONS, feat_extract_norm="layer")),
        Data2VecAudioModel(
            Data2VecAudioConfig(**TINY_ENCODER, num_conv_pos_embeddings=2, num_conv_pos_embedding_groups=2)
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_other_encoders(model, recordings, tmp_path):
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(tmp_path)
    embedder = MERTEmbedder.from_pretrained(tmp_path, device="cpu")
    together = embedder.encode(recordings, batch_size=16, **QUIET)
    assert [result.shape for result in together] == [(count, 3, 32) for count in (2, 1, 1, 3, 1)]
    for path, result in zip(recordings, together, strict=True):
        alone = embedder.encode(path, batch_size=1, **QUIET)
        np.testing.assert_allclose(alone.embeddings, result.embeddings, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "model", "options"),
    [
        (Wav2Vec2Config, Wav2Vec2Model, {}),
        (Wav2Vec2Config, Wav2Vec2Model, {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
        (HubertConfig, HubertModel, {"conv_pos_batch_norm": True}),
        (Data2VecAudioConfig, Data2VecAudioModel, {}),
    ],
)
def test_other_encoders_do_not_hear_the_padding_of_their_batch(config, model, options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embedder = MERTEmbedder(model(config(**TINY_ENCODER | POSITIONS | options)), Wav2Vec2FeatureExtractor())
    clips = [melody(number, seconds, 16000) for number, seconds in enumerate((1.5, 0.6, 1.0))]
    for found, clip in zip(embedder.encode(clips, sampling_rate=16000, **QUIET), clips, strict=True):
        alone = embedder.encode(clip, sampling_rate=16000, **QUIET).embeddings
        np.testing.assert_allclose(found.embeddings, alone, atol=1e-6)


def test_bfloat16_is_near_float32(tiny_checkpoint, embedder, recordings):
    low = MERTEmbedder.from_pretrained(tiny_checkpoint, device="cpu", dtype="bfloat16")
    assert low.model.dtype == torch.bfloat16
    result = low.encode(recordings[2], **QUIET)
    assert result.embeddings.dtype == np.float32
    np.testing.assert_allclose(result.embeddings, embedder.encode(recordings[2], **QUIET).embeddings, atol=0.1)


def test_silence_embeds(embedder):
    result = embedder.encode(np.zeros(48000, np.float32), sampling_rate=24000, **QUIET)
    assert np.isfinite(result.embeddings).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 4}, "Layer 4 does not exist: the encoder has 4 layers, from 0"),
        ({"layers": [-5]}, "Layer -5 does not exist"),
        ({"layers": "last"}, "layers='last' must be \"all\""),
        ({"layers": [1, -3]}, "each once"),
        ({"layers": []}, "at least one layer"),
        ({"pooling": "max"}, "pooling='max' must be one of mean, frames"),
        ({"window": 0}, "window=0 must be"),
        ({"window": 0.001}, "window=0.001 s is too short: the model needs"),
        ({"hop": -1.0}, "hop=-1.0 must be"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": 1.5}, "batch_size=1.5 must be at least 1, a whole number"),
        ({"workers": 0}, "workers=0 must be at least 1"),
    ],
)
def test_arguments_out_of_range(embedder, music, arguments, message):
    with pytest.raises(ValueError, match=message):
        embedder.encode(music, sampling_rate=24000, **arguments, **QUIET)


def test_layers_of_another_type(embedder, music):
    for layers in ([1.5], [True], 1.5, None):
        with pytest.raises(TypeError, match="layers="):
            embedder.encode(music, layers=layers, sampling_rate=24000, **QUIET)


def test_recordings_that_cannot_be_embedded(embedder, damaged, recordings):
    messages = ["the file is empty", "not audio", "too short: 200 samples at 24000 Hz.*400", "NaN or infinite"]
    for path, message in zip(damaged, messages, strict=True):
        with pytest.raises(AudioReadError, match=f"{path.name}: .*{message}"):
            embedder.encode([recordings[1], path], **QUIET)
    with pytest.raises(AudioReadError, match="<audio in memory>: too short: 399 samples"):
        embedder.encode(np.zeros(399, np.float32), sampling_rate=24000, **QUIET)
    with pytest.raises(ValueError, match="NaN"):
        embedder.encode(np.full(4000, np.nan, np.float32), sampling_rate=24000, **QUIET)


def test_overflow_is_an_error(tiny_config, music):
    model = MERTModel(tiny_config())
    with torch.no_grad():
        model.encoder.layers[0].final_layer_norm.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"NaN or infinite embeddings in float32"):
        MERTEmbedder(model, MERTFeatureExtractor()).encode(music, sampling_rate=24000, **QUIET)


def test_rates_that_disagree(tiny_config):
    with pytest.raises(ValueError, match="The model was made for 24000 Hz, its feature extractor gives 16000 Hz"):
        MERTEmbedder(MERTModel(tiny_config()), MERTFeatureExtractor(sampling_rate=16000))


def test_missing_weights_of_other_encoders_are_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    HubertModel(HubertConfig(**TINY_ENCODER, **POSITIONS)).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layers.1.attention.k_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="are missing or of another shape: encoder.layers.1.attention.k_proj.weight"):
        MERTEmbedder.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_are_an_error_that_names_the_checkpoint(tiny_checkpoint, tmp_path, name):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for content in (b"\x80\x02cbuiltins\nprint\n.", (tiny_checkpoint / "model.safetensors").read_bytes()[:5000]):
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match="checkpoint are truncated, damaged") as caught:
            MERTEmbedder.from_pretrained(folder)
        assert "weights_only" not in str(caught.value)


def test_dtypes():
    assert resolve_dtype("float16") is torch.float16
    with pytest.raises(ValueError, match="dtype='int8' must be one of auto, float32, float16, bfloat16"):
        resolve_dtype("int8")


def test_progress_counts_overlapping_windows_once(embedder, recordings, capsys, monkeypatch):
    windows = [*recording_windows(embedder.encoder, recordings[0], 3.0, 1.0)]
    windows += recording_windows(embedder.encoder, recordings[1])
    with SpeedBar(None, disable=True) as bar:
        for index, window in enumerate(windows):
            bar.advance("a" if index < 5 else "b", window)
    assert bar.seconds == pytest.approx(6.5 + 0.4)
    embedder.encode(recordings[1])
    assert not capsys.readouterr().err  # done before the bar appears
    monkeypatch.setattr("mert_hf.embedding.windows.DELAY", 0.0)
    embedder.encode(recordings[:2])
    assert "x real time" in capsys.readouterr().err


def test_users_recordings_embed(embedder, audio_dir):
    files = [path for path in find_audio_files(audio_dir) if path.parent.name != "damaged"]
    files.append(audio_dir / "damaged" / "silence.wav")
    results = embedder.encode(files, **QUIET)
    for path, result in zip(files, results, strict=True):
        assert np.isfinite(result.embeddings).all()
        assert result.end[-1] == pytest.approx(len(read_audio(path, 24000)) / 24000)


def test_unreadable_recordings_can_be_skipped(embedder, recordings, tmp_path, caplog):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    results = embedder.encode([recordings[1], bad, recordings[2]], errors="skip", layers=1, **QUIET)
    assert results[1] is None and "bad.wav" in caplog.text
    for path, result in zip((recordings[1], recordings[2]), (results[0], results[2]), strict=True):
        np.testing.assert_allclose(result, embedder.encode(path, layers=1, **QUIET), atol=1e-5)
    assert embedder.encode(bad, errors="skip", **QUIET) is None
    with pytest.raises(ValueError, match="errors='ignore' must be"):
        embedder.encode(bad, errors="ignore", **QUIET)


def test_rows_of_datasets_that_are_not_decoded(embedder, recordings):
    expected = embedder.encode(recordings[1], **QUIET)
    rows = [{"bytes": recordings[1].read_bytes(), "path": "a.wav"}, {"bytes": None, "path": str(recordings[1])}]
    for result in embedder.encode(rows, **QUIET):
        np.testing.assert_allclose(result, expected, atol=1e-5)
    assert embedder.encode(rows[0], **QUIET).path == "a.wav"


def test_an_embedding_shows_its_shape_and_not_its_values(embedder, recordings):
    text = repr(embedder.encode(recordings[1], **QUIET))
    assert text.startswith("Embedding(shape=(") and str(recordings[1]) in text and "array" not in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 keeps no overloads")
def test_type_checkers_know_the_result_for_one_recording_and_for_many():
    one, many = typing.get_overloads(MERTEmbedder.encode)
    assert (one.__annotations__["paths_or_arrays"], one.__annotations__["return"]) == ("OneRecording", "Embedding")
    assert many.__annotations__["return"] == "list[Embedding]"
    assert {str, np.ndarray, torch.Tensor} <= set(typing.get_args(OneRecording))
