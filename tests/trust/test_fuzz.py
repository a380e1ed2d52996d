"""Arbitrary input gives a result or a documented error: never a crash, a hang, NaN or a silent skip.

tests/pretraining/test_collator_fuzz.py does the same for the collator. The slow tests try ten times as much.
"""

from __future__ import annotations

import csv
import io
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sounds import FORMATS, write_format

from mert_hf import MERTConfig, MERTFeatureExtractor, MERTModel
from mert_hf.audio import AudioReadError, audio_info, read_audio
from mert_hf.recordings.audiofolder import read_metadata

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is installed for development only")
arrays = pytest.importorskip("hypothesis.extra.numpy")
strategies = hypothesis.strategies

RATE = 8000
MP3_PADDING = 2304  # samples that MP3 encoders add, see mert_hf.audio.decoding


def run(check, *cases, examples: int) -> None:
    """Runs a check on so many drawn cases, the same ones each time."""
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    settings(hypothesis.given(*cases)(check))()


def sizes(fast: int):
    """Number of examples by default, and under the marker `slow`."""
    slow = pytest.param(10 * fast, marks=pytest.mark.slow, id="slow")
    return pytest.mark.parametrize("examples", [pytest.param(fast, id="fast"), slow])


# Feature extractor

TYPES = "float16 float32 float64 int8 int16 int32 int64 uint8 bool complex64 U1 O M8[s]".split()
SAMPLES = arrays.arrays(
    dtype=strategies.sampled_from(TYPES),
    shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40),
)
RATES = strategies.one_of(
    strategies.none(),
    strategies.sampled_from(
        [0, -1, 1, 7, 8000, 16000, 24000, 44100, 22050.5, 1e9, math.nan, math.inf, "24000", True, [1]]
    ),
    strategies.floats(),
    strategies.integers(),
)
SCALARS = strategies.one_of(
    *(strategies.none(), strategies.booleans(), strategies.integers(), strategies.floats()),
    *(strategies.text(max_size=3), strategies.binary(max_size=3)),
)
CLIPS = strategies.one_of(
    SAMPLES,
    SAMPLES.filter(lambda array: array.dtype.kind in "fi" and array.dtype != np.float16).map(torch.from_numpy),
    SAMPLES.map(lambda array: array.tolist()),
    strategies.builds(lambda array, rate: {"array": array, "sampling_rate": rate}, SAMPLES, RATES),
    strategies.dictionaries(strategies.sampled_from(["array", "raw", "sampling_rate", "path"]), SCALARS, max_size=3),
    SCALARS,
)
AUDIO = strategies.one_of(CLIPS, strategies.lists(CLIPS, max_size=3), strategies.tuples(CLIPS, CLIPS))


def check_extractor(audio, rate, normalize) -> None:
    extractor = MERTFeatureExtractor(do_normalize=normalize)
    try:
        features = extractor(audio, sampling_rate=rate, return_tensors="pt")
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    values, mask = features["input_values"], features["attention_mask"]
    assert values.dtype == torch.float32 and values.shape == mask.shape and values.numel()
    assert values.isfinite().all()
    assert (mask.sum(dim=1) > 0).all()
    if isinstance(audio, (list, tuple)) and not all(np.isscalar(value) for value in audio):
        assert len(values) == len(audio)  # no clip is left out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@sizes(150)
def test_feature_extractor(examples):
    run(check_extractor, AUDIO, RATES, strategies.booleans(), examples=examples)


# Audio reader


@cache
def recording(folder: Path, name: str) -> bytes:
    """A sound recording of half a second in one of `FORMATS`."""
    return write_format(folder, name, seconds=0.5).read_bytes()


@strategies.composite
def damages(draw):
    """A format, and where and how to damage it: cut off, bits turned over, bytes replaced, a part taken out."""
    name = draw(strategies.sampled_from(sorted(FORMATS)))
    place = strategies.floats(0, 1)
    early = strategies.floats(0, 0.02)  # headers
    changes = strategies.lists(
        strategies.tuples(strategies.one_of(place, early), strategies.integers(1, 255)), max_size=8
    )
    cut = draw(strategies.one_of(strategies.just(1.0), place))
    taken_out = draw(strategies.one_of(strategies.none(), strategies.tuples(place, place)))
    return name, cut, draw(changes), taken_out


def damage(sound: bytes, cut: float, changes, taken_out) -> bytes:
    data = bytearray(sound)
    for where, bits in changes:
        data[min(int(where * len(data)), len(data) - 1)] ^= bits
    if taken_out is not None:
        begin, end = sorted(int(where * len(data)) for where in taken_out)
        del data[begin:end]
    return bytes(data[: math.ceil(cut * len(data))])


def read_or_refuse(data: bytes, path: Path) -> np.ndarray | None:
    """Reads bytes as a file and from memory: the same samples, finite, or an AudioReadError from both."""
    path.write_bytes(data)
    results = []
    for source in (path, io.BytesIO(data)):
        try:
            samples = read_audio(source, RATE)
        except AudioReadError as error:
            assert error.problem and error.remedy
            results.append(None)
            continue
        assert samples.dtype == np.float32 and samples.ndim == 1 and len(samples)
        assert np.isfinite(samples).all()
        results.append(samples)
    try:
        info = audio_info(path)
        assert info.duration >= 0 and math.isfinite(info.duration)
    except AudioReadError:
        assert results[0] is None
    return results[0]


@sizes(60)
def test_damaged_recordings(tmp_path, examples):
    def check(case) -> None:
        name, *how = case
        read_or_refuse(damage(recording(tmp_path, name), *how), tmp_path / f"damaged{Path(name).suffix}")

    run(check, damages(), examples=examples)


@sizes(60)
def test_cut_recordings_never_lose_sound_in_silence(tmp_path, examples):
    """A recording that lost its end is refused, unless all its sound is still there."""

    def check(name: str, cut: float) -> None:
        sound = recording(tmp_path, name)
        whole = len(read_audio(io.BytesIO(sound), RATE))
        samples = read_or_refuse(sound[: int(cut * len(sound))], tmp_path / f"cut{Path(name).suffix}")
        tolerance = MP3_PADDING * RATE / FORMATS[name][2] if name.endswith("mp3") else 0
        assert samples is None or len(samples) >= whole - tolerance

    run(check, strategies.sampled_from(sorted(FORMATS)), strategies.floats(0, 1, exclude_max=True), examples=examples)


@sizes(100)
def test_bytes_that_are_not_audio(tmp_path, examples):
    heads = [
        b"",
        b"RIFF",
        b"fLaC",
        b"OggS",
        b"FORM",
        b"ID3",
        b".snd",
        b"\xff\xfb\x90",
        b"caff",
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
    ]

    def check(head: bytes, tail: bytes, suffix: str) -> None:
        read_or_refuse(head + tail, tmp_path / f"bytes{suffix}")

    suffixes = strategies.sampled_from([".wav", ".mp3", ".flac", ".ogg", ".aiff", ".au", ".raw", ".txt", ""])
    run(check, strategies.sampled_from(heads), strategies.binary(max_size=300), suffixes, examples=examples)


# config.json

HOSTILE = strategies.one_of(
    strategies.integers(),
    strategies.sampled_from([0, 1, -1, 2**31, 2**63, 10**30, 65536, 1e308, -0.0, math.nan, math.inf, -math.inf]),
    strategies.sampled_from(
        ["", "768", "__import__('os')", "gelu", None, True, False, [], {}, [1, "2"], [[1]], {"a": 1}]
    ),
    strategies.lists(strategies.integers(-2, 10**9), max_size=8),
    strategies.floats(),
)
FIELDS = sorted(set(MERTConfig().to_dict()) - {"auto_map", "model_type", "transformers_version"})
LARGEST = 11 * 10**10  # parameters of what is let through: the validator counts matrices only
SMALL = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    **{
        "conv_dim": [8] * 7,
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "classifier_proj_size": 8,
    },
}


def check_config(path: Path, fields: dict) -> None:
    path.write_text(json.dumps({"model_type": "mert_model", **SMALL, **fields}), encoding="utf-8")
    try:
        config = MERTConfig.from_pretrained(path.parent)
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    assert config.hop_length >= 1 and config.receptive_field >= 1 and config.frame_rate > 0
    assert 0 <= config.num_frames(24000) <= 24000
    unused = ("pad_token_id", "bos_token_id", "eos_token_id")  # transformers' own, of which MERT has no use
    numbers = [value for name, value in config.to_dict().items() if isinstance(value, float) and name not in unused]
    assert all(math.isfinite(value) for value in numbers)
    if config.num_hidden_layers <= 8:
        with torch.device("meta"):
            model = MERTModel(config)
        assert sum(parameter.numel() for parameter in model.parameters()) < LARGEST


@sizes(150)
def test_config_files(tmp_path, examples):
    own = [name for name in FIELDS if name in MERTConfig.__annotations__]
    fields = strategies.dictionaries(strategies.sampled_from(own), HOSTILE, min_size=1, max_size=3)
    run(lambda drawn: check_config(tmp_path / "config.json", drawn), fields, examples=examples)


@pytest.mark.parametrize(
    "fields",
    [
        {
            "hidden_size": 65536,
            "num_hidden_layers": 1024,
            "num_attention_heads": 64,
            "num_conv_pos_embedding_groups": 16,
        },
        {
            "hidden_size": 65536,
            "num_attention_heads": 64,
            "num_conv_pos_embeddings": 65536,
            "num_conv_pos_embedding_groups": 1,
        },
        {"num_codebooks": 1024, "codebook_size": 10_000_000, "codebook_dim": 65536},
    ],
)
def test_sizes_whose_product_is_huge_are_refused(fields):
    with pytest.raises(ValueError, match="parameters, more than 1e[+]11"):
        MERTConfig(**fields)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '"x"', "\x00", "{}" * 2])
def test_files_that_are_not_a_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises((ValueError, TypeError, OSError)):  # OSError: how transformers reports invalid JSON
        MERTConfig.from_pretrained(tmp_path)


# metadata.csv

NAMES = strategies.one_of(
    strategies.text(max_size=12),
    strategies.lists(
        strategies.sampled_from(["..", ".", "/", "\\", "a.wav", "C:", "~", "%2e%2e", "\x00", "\u2024\u2024", " "]),
        max_size=5,
    ).map("/".join),
    strategies.sampled_from(
        ["a" * 5000, "../outside.wav", "sub/../../outside.wav", "//host/a.wav", "sub/b.wav", "a.wav"]
    ),
)


def check_metadata(folder: Path, data: bytes) -> None:
    (folder / "metadata.csv").write_bytes(data)
    try:
        entries = read_metadata(folder)
    except ValueError as error:
        assert str(error)
        return
    assert entries
    for path, row in entries:
        assert path.resolve().is_relative_to(folder.resolve()) and path.is_file()
        assert all(isinstance(value, str) for value in row.values())


@pytest.fixture
def audio_folder(tmp_path) -> Path:
    """A folder of two recordings, with one outside that must not be reached."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "a.wav", folder / "sub" / "b.wav", tmp_path / "outside.wav"):
        path.touch()
    return folder


@sizes(150)
def test_metadata_names_stay_in_the_folder(audio_folder, examples):
    def check(names: list[str], label: str) -> None:
        table = io.StringIO()
        writer = csv.writer(table, escapechar="\\")
        writer.writerow(["file_name", "label"])
        writer.writerows([name, label] for name in names)
        check_metadata(audio_folder, table.getvalue().encode("utf-8", "surrogatepass"))

    run(check, strategies.lists(NAMES, min_size=1, max_size=3), strategies.text(max_size=5), examples=examples)


@sizes(100)
def test_metadata_of_any_bytes(audio_folder, examples):
    head = strategies.sampled_from([b"", b"file_name,label\n", b"file_name\na.wav\n", b"\xff\xfe", b'file_name\n"'])

    def check(head: bytes, tail: bytes) -> None:
        check_metadata(audio_folder, head + tail)

    run(check, head, strategies.binary(max_size=200), examples=examples)


def test_a_huge_metadata_cell_is_reported(audio_folder):
    (audio_folder / "metadata.csv").write_text("file_name,label\na.wav," + "x" * 200_000 + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="metadata.csv"):
        read_metadata(audio_folder)
