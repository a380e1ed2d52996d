"""Recordings of several lengths, rates and kinds for the embedding tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sounds import sweep, write

from mert_hf import MERTEmbedder


@pytest.fixture(scope="session")
def embedder(tiny_checkpoint) -> MERTEmbedder:
    return MERTEmbedder.from_pretrained(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> list[Path]:
    """Five files: 6.5, 0.4, 5, 12.3 and 2 s."""
    folder = tmp_path_factory.mktemp("recordings")
    cases = [
        ("a.flac", 6.5, 44100, "FLAC"),
        ("b.wav", 0.4, 8000, "WAV"),
        ("c.wav", 5.0, 24000, "WAV"),
        ("d.wav", 12.3, 22050, "WAV"),
        ("e.flac", 2.0, 48000, "FLAC"),
    ]
    return [write(folder / name, sweep(seconds, rate), rate, format) for name, seconds, rate, format in cases]


@pytest.fixture
def damaged(tmp_path) -> list[Path]:
    """Four files that cannot be embedded, the last of them only found out after two windows of five seconds."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "empty.wav").touch()
    (folder / "letter.mp3").write_text("Dear reader, this is not music.")
    write(folder / "short.wav", np.zeros(200, np.float32), 24000)
    late = sweep(14.0, 24000)
    late[-1] = np.nan
    write(folder / "z_late.wav", late, 24000, subtype="FLOAT")
    return sorted(folder.iterdir())
