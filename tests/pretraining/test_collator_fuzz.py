"""Arbitrary input to the collator."""

from __future__ import annotations

import pytest
import torch
from tiny_pretraining import RATE, make_collator

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is installed for development only")
arrays = pytest.importorskip("hypothesis.extra.numpy")
strategies = hypothesis.strategies

ARRAYS = arrays.arrays(
    dtype=strategies.sampled_from(["float32", "float64", "float16", "int16", "int32", "uint8", "int64", "bool", "U1"]),
    shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=300),
)
ITEMS = strategies.one_of(
    ARRAYS,
    ARRAYS.map(lambda array: {"input_values": array}),
    ARRAYS.map(lambda array: {"audio": {"array": array, "sampling_rate": RATE}}),
    strategies.sampled_from([None, "clip.wav", b"RIFF", 3.0, {}, {"audio": None}, [], object()]),
)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@hypothesis.given(items=strategies.lists(ITEMS, min_size=1, max_size=3))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_comes_gives_a_batch_or_a_documented_error(items):
    collator = make_collator()
    try:
        batch = collator(items)
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    assert len(batch["input_values"]) == len(items)
    assert all(torch.isfinite(tensor.float()).all() for tensor in batch.values())
