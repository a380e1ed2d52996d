"""Rules of a mix: limits, exclusions, and the correction for hubs next to plain second implementations."""

from __future__ import annotations

import numpy as np
import pytest

from mert_hf.search.mixing import FEWEST_REFERENCES, choose, correct_hubs, is_excluded
from mert_hf.search.settings import MixRules
from mert_hf.search.store import unit


def row(path: str, artist: str | None = None, album: str | None = None, albumartist: str | None = None) -> dict:
    return {"path": path, "artist": artist, "album": album, "albumartist": albumartist}


ROWS = [
    row("/m/1.mp3", "Ana", "Greatest Hits"),
    row("/m/2.mp3", "ANA", "Other"),
    row("/m/3.mp3", "Cafe\u0301", "Greatest Hits"),
    row("/n/4.mp3", "Caf\u00e9", "Greatest Hits"),
    row("/n/5.mp3"),
    row("/n/6.mp3", None, "Various", "Ana"),
    row("/n/7.mp3"),
]


def never(one: dict, other: dict) -> bool:
    raise AssertionError("compared without need")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (MixRules(), "1234567"),
        (MixRules(per_artist=1), "1357"),  # also in other capitals, in another normalization, as the album's artist
        (MixRules(per_artist=2), "123457"),
        (MixRules(per_album=1), "124567"),  # folders are other albums of the same title
        (MixRules(exclude=("/n",)), "123"),
        (MixRules(exclude=("4.mp3", "/m/1.mp3")), "23567"),
    ],
)
def test_limits_and_exclusions(rules, expected):
    assert "".join(found["path"][3] for found in choose(ROWS, rules, 10, never)) == expected


def test_one_file_of_each_recording():
    found = choose(ROWS, MixRules(distinct=True), 3, lambda one, other: {one["path"][1], other["path"][1]} == {"m"})
    assert [one["path"] for one in found] == ["/m/1.mp3", "/n/4.mp3", "/n/5.mp3"]


def test_folders_are_excluded_as_wholes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rock").mkdir()
    assert is_excluded(f"{tmp_path}/rock/a.mp3", ["rock"]) and is_excluded(f"{tmp_path}/rock/a.mp3", ["rock/"])
    assert not is_excluded(f"{tmp_path}/rockabilly/a.mp3", ["rock"])
    assert not is_excluded("/m/song10.mp3", ["0.mp3"])


@pytest.mark.parametrize(("name", "value"), [("per_artist", 0), ("per_album", -1)])
def test_limits_below_one_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value} must be at least 1"):
        MixRules(**{name: value})
    with pytest.raises(ValueError, match="exclude='/m' must be a list"):
        MixRules(exclude="/m")


def test_hubs_are_corrected_as_in_a_loop():
    draws = np.random.default_rng(0)
    vectors = unit(draws.standard_normal((150, 8)) + 0.5)
    query = unit(draws.standard_normal(8))
    corrected = correct_hubs(vectors @ query, vectors, vectors)
    for place in range(0, 150, 10):
        others = sorted(vectors[place] @ vectors[other] for other in range(150) if other != place)
        assert corrected[place] == pytest.approx(vectors[place] @ query - np.mean(others[-20:]) / 2, abs=1e-6)


def test_fewer_occurrences_of_hubs():
    """Rows near what all have in common are among the nearest of very many others."""
    draws = np.random.default_rng(0)
    vectors = unit(draws.uniform(0.5, 2, (400, 1)) * draws.standard_normal((400, 64)) + 0.5)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    corrected = np.stack([correct_hubs(one, vectors, vectors) for one in similarity])
    largest = [np.bincount(np.argsort(-table)[:, :10].ravel()).max() for table in (similarity, corrected)]
    assert largest[1] < 0.5 * largest[0]


def test_small_libraries_are_not_corrected():
    vectors = unit(np.random.default_rng(0).standard_normal((FEWEST_REFERENCES - 1, 8)))
    similarity = vectors @ vectors[0]
    assert correct_hubs(similarity, vectors, vectors) is similarity
