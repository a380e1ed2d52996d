"""Distances between collections: against plain second implementations, and on music that is made worse step by step."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from scipy import linalg

from mert_hf.benchmarks import Collection, Moments, distance
from mert_hf.benchmarks.distances import frechet_distance, frechet_limit
from mert_hf.cli.app import app
from mert_hf.embedding import embed_dataset

SETTINGS = {"fingerprint": "f", "layer": 1, "window": 5.0, "hop": 5.0, "channels": "mean", "hidden_size": 6}


def collection(recordings: int, seed: int, shift: float = 0.0, windows: int = 8, scale: float = 1.0) -> Collection:
    """Recordings with an offset of their own, so that windows of one resemble each other."""
    rng = np.random.default_rng(seed)
    offsets = np.repeat(rng.normal(size=(recordings, 6)), windows, axis=0)
    rows = scale * (offsets + 0.3 * rng.normal(size=offsets.shape)) + shift
    owners = np.repeat(np.arange(recordings), windows)
    return Collection(rows, owners, tuple(f"{seed}-{k}.wav" for k in range(recordings)), SETTINGS)


def published_fad(a: np.ndarray, b: np.ndarray) -> float:
    """The formula by scipy's square root of a matrix."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(first @ second)
    shift = a.mean(0) - b.mean(0)
    return float(shift @ shift + np.trace(first + second - 2 * root.real))


def published_kad(reference: np.ndarray, rows: np.ndarray) -> float:
    """Sums over all pairs, one by one."""
    pairs = [np.linalg.norm(x - y) for k, x in enumerate(reference) for y in reference[k + 1 :]]
    gamma = 1 / (2 * sorted(pairs)[(len(pairs) - 1) // 2] ** 2 + 1e-8)

    def mean(x, y, same):
        pairs = [(p, q) for k, p in enumerate(x) for m, q in enumerate(y) if not same or k != m]
        return np.mean([np.exp(-gamma * np.sum((p - q) ** 2)) for p, q in pairs])

    return 100 * (mean(reference, reference, True) + mean(rows, rows, True) - 2 * mean(reference, rows, False))


def test_frechet_distance_equals_the_published_formula():
    a, b = collection(30, 0), collection(20, 1, shift=0.5, scale=1.3)
    assert distance(a, b, draws=0).value == pytest.approx(published_fad(a.rows, b.rows), rel=1e-9)


def test_kernel_distance_equals_the_published_formula():
    a, b = collection(6, 0), collection(5, 1, shift=0.5)
    assert distance(a, b, "kad", draws=0).value == pytest.approx(published_kad(a.rows, b.rows), rel=1e-6)


def test_values_of_other_programs():
    """Computed on these rows by the functions of fadtk 1.1.0, kadtk 1.1.0 and frechet-audio-distance 0.3.4."""
    a, b = collection(60, 0), collection(50, 1, shift=0.5, scale=1.3)
    for frechet in (2.7002545149395303, 2.7002545149395445):
        assert distance(a, b, draws=0).value == pytest.approx(frechet, rel=1e-9)
    assert distance(a, b, "kad", draws=0).value == pytest.approx(7.608815484399112, rel=1e-7)  # float32 kernel width


def test_the_limit_equals_other_programs_on_their_draws():
    a, b = collection(60, 0, windows=20), collection(60, 1, shift=0.5, windows=20)
    random, sizes = np.random.RandomState(3), np.linspace(500, len(b.rows), 25).astype(int)
    values = [published_fad(a.rows, b.rows[random.choice(len(b.rows), size=n, replace=True)]) for n in sizes]
    slope, intercept = np.polyfit(1 / sizes, values, 1)
    assert frechet_limit(a.moments(), b.rows, np.random.RandomState(3)) == pytest.approx(intercept, rel=1e-9)
    assert slope > 0  # small samples are farther away


def test_the_limit_removes_the_bias_of_small_collections():
    a, b = collection(400, 0), collection(90, 1, windows=8)
    assert abs(distance(a, b, "fad_inf", draws=0).value) < distance(a, b, draws=0).value


def test_singular_covariances_are_real_and_noted():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 6))
    few = Collection(rows, np.arange(4), tuple("abcd"), SETTINGS)
    same = distance(few, few, draws=0)
    assert same.value == pytest.approx(0, abs=1e-6)
    assert "fewer than the 6 values" in same.text()
    other = Collection(rng.normal(size=(4, 6)), few.owners, few.paths, SETTINGS)
    found = distance(few, other, draws=5)
    assert found.interval is None and "without an interval" in found.text() and found.p_value is not None
    assert distance(few, other, "kad", draws=5).interval is not None
    flat = Moments(np.zeros(6), np.zeros((6, 6)), 9, SETTINGS)
    assert frechet_distance(flat, few.moments()) == pytest.approx(
        rows.mean(0) @ rows.mean(0) + np.trace(np.cov(rows, rowvar=False))
    )


@pytest.mark.parametrize("kind", ["fad", "fad_inf", "kad"])
def test_collections_that_differ_are_significant(kind):
    found = distance(collection(20, 0), collection(20, 1, shift=1.5), kind, draws=40)
    assert found.p_value == pytest.approx(1 / 41)
    assert found.interval[0] < found.value


def test_halves_of_one_collection_are_rarely_significant():
    whole = collection(40, 0)
    rng = np.random.default_rng(0)
    significant = 0
    for _ in range(40):
        order = rng.permutation(40)
        halves = []
        for part in (order[:20], order[20:]):
            rows = np.isin(whole.owners, part)
            _, owners = np.unique(whole.owners[rows], return_inverse=True)
            halves.append(Collection(whole.rows[rows], owners, tuple(map(str, part)), SETTINGS))
        significant += distance(*halves, "kad", draws=39).p_value <= 0.05
    assert significant <= 5


def test_an_outlier_has_the_largest_share():
    a, b = collection(20, 0), collection(20, 1)
    b.rows[b.owners == 7] += 6
    found = distance(a, b, draws=0, shares=True)
    assert next(iter(found.shares)) == "1-7.wav"
    rest = b.rows[b.owners != 7]
    assert found.shares["1-7.wav"] == pytest.approx(found.value - published_fad(a.rows, rest))


def test_statistics_are_kept_and_give_the_same_distance(tmp_path):
    a, b = collection(20, 0), collection(20, 1, shift=0.2)
    a.moments().save(tmp_path / "a.npz")
    stored = distance(tmp_path / "a.npz", b, draws=10)
    assert stored.value == distance(a, b, draws=0).value
    assert stored.p_value is None and stored.recordings == (None, 20)
    with pytest.raises(ValueError, match="stored statistics have none"):
        distance(tmp_path / "a.npz", b, "kad")
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="does not hold statistics"):
        distance(tmp_path / "other.npz", b)


def test_different_features_are_refused():
    other = collection(20, 1)
    other = Collection(other.rows, other.owners, other.paths, {**SETTINGS, "layer": 2})
    with pytest.raises(ValueError, match="layer: 1 and 2"):
        distance(collection(20, 0), other)


def test_audio_is_mixed_as_in_the_data_set_that_it_is_compared_with(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "music").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / "music" / f"{number}.wav", 0.1 * rng.standard_normal((48000, 2)), 24000)
    music = str(tmp_path / "music")
    quiet = {"show_progress_bar": False}
    for channels in ("left", "mean"):
        embed_dataset(music, tmp_path / channels, "mel", layers=[0], window=1.0, channels=channels, **quiet)
    same = distance(str(tmp_path / "left"), music, model="mel", draws=0, **quiet)
    assert same.value == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="channels: 'left' and 'mean'"):
        distance(str(tmp_path / "left"), str(tmp_path / "mean"), draws=0)


def write_music(folder, seed: int, noise: float, songs: int = 6) -> str:
    folder.mkdir()
    rng, noises = np.random.default_rng(seed), np.random.default_rng(99)
    time = np.arange(24000 * 4) / 24000
    for number in range(songs):
        notes = 220 * 2 ** (rng.integers(0, 24, 3) / 12)
        tone = sum(np.sin(2 * np.pi * note * time) for note in notes) / 6 * np.exp(-(time % 0.5) * 4)
        soundfile.write(folder / f"{number}.wav", tone + noise * noises.standard_normal(len(time)), 24000)
    return str(folder)


def test_noise_on_music_is_ordered_and_the_command_prints_it(tmp_path):
    from typer.testing import CliRunner

    clean = write_music(tmp_path / "clean", 0, 0.0)
    values = []
    for step, noise in enumerate((0.0, 0.01, 0.1)):
        other = write_music(tmp_path / f"noise{step}", 1, noise)
        arguments = ["distance", clean, other, "--kind", "kad", "--window", "1", "--draws", "0", "--json", "--quiet"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        values.append(json.loads(result.stdout)["value"])
    assert values == sorted(values) and values[2] > values[0]


def test_the_interval_of_a_kernel_distance_holds_the_value():
    found = distance(collection(20, 0), collection(20, 1, shift=1.0), "kad")
    assert found.interval[0] < found.value < found.interval[1]
