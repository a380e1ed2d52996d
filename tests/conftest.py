"""Fixtures for all tests: offline, CPU, tiny models built once."""

from __future__ import annotations

import faulthandler
import gc
import os
import threading
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from sounds import write_users_recordings
from tqdm import tqdm

# tqdm shares its lock with forked processes: one that a test kills while it holds the lock would stop all others. Its
# thread, which may hold the lock while a process is forked, is not started.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0

# A forked process that collects a session of ONNX Runtime waits for its threads, which only the parent has, forever.
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)

LONGEST = 1200  # seconds of one test
REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_AUDIO = REPOSITORY.parent / "shared" / "audio"


def missing_package(skip: pytest.ExceptionInfo | None) -> bool:
    """Whether a test was skipped because a package or program is not installed."""
    return skip is not None and (skip.traceback[-1].name == "importorskip" or "not installed" in str(skip.value))


def fail_if_missing(report: pytest.TestReport | pytest.CollectReport, skip: pytest.ExceptionInfo | None):
    """The report, as a failure where CI skipped something for a package that CI must have."""
    if os.environ.get("CI") == "true" and report.skipped and missing_package(skip):
        report.outcome, report.longrepr = "failed", f"In CI a missing package is a failure: {skip.value}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call):
    """Skips of a test or of its fixtures."""
    return fail_if_missing((yield), call.excinfo)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Skips of a whole module."""
    report = yield
    return fail_if_missing(report, report.call.excinfo)


@pytest.fixture(autouse=True, scope="session")
def single_thread():
    """Tests run side by side: one thread each keeps them from fighting for the cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_hang():
    """A test that hangs ends its process with a traceback, also where it is in compiled code."""
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def subnormal_numbers():
    """Training runs flush subnormal numbers to zero for their whole process; the next test has them again."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def audio_dir(tmp_path_factory) -> Path:
    """Recordings in the formats that users have and, in `damaged`, damaged ones.

    Real ones from ../shared/audio, which are not part of the repository, and where it is missing generated ones.
    """
    if SHARED_AUDIO.is_dir():
        return SHARED_AUDIO
    return write_users_recordings(tmp_path_factory.mktemp("audio"))


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator, so that each test draws the same numbers alone and in a suite."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def music() -> np.ndarray:
    """Two seconds at 24 kHz of a decaying chord, float32 in [-1, 1], shape (48000,)."""
    time = np.arange(48000) / 24000
    chord = sum(np.sin(2 * np.pi * f * time) * np.exp(-2 * time) for f in (220.0, 277.2, 329.6, 440.0))
    return (chord / 4).astype(np.float32)


TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_codebooks": 3,
    "codebook_size": 17,
    "codebook_dim": 16,
    "cqt_bins": 84,
    "classifier_proj_size": 16,
}


@pytest.fixture
def tiny_config():
    """Builds a MERTConfig with tiny sizes; keyword arguments override its fields."""
    from mert_hf import MERTConfig

    return lambda **fields: MERTConfig(**{**TINY, **fields})


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A folder with a tiny random MERTModel and its feature extractor, as `save_pretrained` leaves it."""
    from mert_hf import MERTConfig, MERTFeatureExtractor, MERTModel

    folder = tmp_path_factory.mktemp("tiny_mert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MERTModel(MERTConfig(**TINY)).save_pretrained(folder)
    MERTFeatureExtractor().save_pretrained(folder)
    return folder


TINY2 = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_mel_bins": 16,
    "n_fft": 512,
    "win_length": 512,
    "subsampling_channels": [16, 24, 32],
    "subsampling_depths": [1, 2, 1],
    "conv_depthwise_kernel_size": 7,
    "codebook_sizes": [17, 5, 9],
    "codebook_dim": 16,
    "cqt_bins": 12,
    "classifier_proj_size": 16,
}


@pytest.fixture
def tiny_config2():
    """Builds a MERT2Config with tiny sizes; keyword arguments override its fields."""
    from mert_hf import MERT2Config

    return lambda **fields: MERT2Config(**{**TINY2, **fields})


@pytest.fixture(scope="session")
def tiny_checkpoint2(tmp_path_factory) -> Path:
    """A folder with a tiny random MERT2Model and its feature extractor, as `save_pretrained` leaves it."""
    from mert_hf import MERT2Config, MERT2Model, MERTFeatureExtractor

    folder = tmp_path_factory.mktemp("tiny_mert2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MERT2Model(MERT2Config(**TINY2)).save_pretrained(folder)
    MERTFeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder
