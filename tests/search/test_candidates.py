"""Pairs of recordings that are compared by their fingerprints: near vectors, or codes in common."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("lancedb", reason="the search extra is not installed")

from mert_hf.search import duplicates


class Table:
    """The part of an index that `candidates` reads."""

    def __init__(self, codes: list[np.ndarray], vectors: np.ndarray | None = None, durations: list | None = None):
        draws = np.random.default_rng(1)
        self.vectors = draws.standard_normal((len(codes), 8)) if vectors is None else vectors
        self.durations = durations or [10.0] * len(codes)
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def columns(self, names):
        flat = pa.array(self.vectors.astype(np.float16).reshape(-1))
        return pa.table({"duration": self.durations, "vector": pa.FixedSizeListArray.from_arrays(flat, 8)})

    def batches(self, names):
        for start in range(0, len(self.codes), 3):
            part = [code.astype("<u4").tobytes() for code in self.codes[start : start + 3]]
            yield pa.RecordBatch.from_arrays([pa.array(part, pa.binary())], names=["fingerprint"])


def pairs_of(table: Table, difference: float = 5.0) -> set[tuple[int, int]]:
    return {tuple(pair) for block in duplicates.candidates(table, difference) for pair in block.tolist()}


def test_rows_that_share_codes_are_compared_whatever_their_vectors():
    """The vectors of rows 0 and 1 are opposite, and 60 other rows are nearer to each."""
    draws = np.random.default_rng(0)
    codes = [draws.integers(1, 2**32, 200) for _ in range(62)]
    codes[1] = np.where(draws.random(200) < 0.95, draws.integers(1, 2**32, 200), codes[0])
    vectors = np.concatenate([np.eye(8)[:1], -np.eye(8)[:1], draws.standard_normal((60, 8)) * 0.1 + np.eye(8)[1]])
    assert (0, 1) in pairs_of(Table(codes, vectors))
    assert (0, 1) not in pairs_of(Table([*codes[:1], codes[2], *codes[2:]], vectors))
    assert (0, 1) not in pairs_of(Table(codes, vectors, [10.0, 40.0, *[10.0] * 60]))


@pytest.mark.parametrize("codes_at_once", [10**6, 100])
def test_shared_codes_equal_a_comparison_of_sets(monkeypatch, codes_at_once):
    """Also where the codes are sorted in several parts; the code of silence does not count."""
    monkeypatch.setattr(duplicates, "CODES_AT_ONCE", codes_at_once)
    monkeypatch.setattr(duplicates, "RARE", 20)
    draws = np.random.default_rng(2)
    codes = [draws.integers(0, 60, 6) for _ in range(20)]
    expected = {(a, b) for a, b in combinations(range(20), 2) if (set(codes[a]) & set(codes[b])) - {0}}
    found = np.concatenate(list(duplicates._by_code(Table(codes), 200.0)))
    assert {tuple(pair) for pair in found.tolist()} == expected
    assert len(found) == len(expected)


def test_a_row_keeps_those_with_which_it_shares_the_most(monkeypatch):
    monkeypatch.setattr(duplicates, "NEIGHBORS", 2)
    rows, counts = np.array([0, 0, 0, 1, 1, 2]), np.array([3, 9, 5, 1, 1, 1])
    kept = duplicates._among_best(rows, counts)
    assert kept.tolist() == [False, True, True, True, True, True]


def test_no_codes():
    assert pairs_of(Table([np.zeros(4), np.zeros(0)])) == {(0, 1)}  # by their vectors
