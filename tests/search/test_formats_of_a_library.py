"""A library of 60 files in 12 formats, as users have them: `embed`, `index`, `search` and `duplicates`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pytest
from encoding import encode
from sounds import melody, write

pytest.importorskip("lancedb", reason="the index needs the extra 'search'")

from mert_hf.audio import audio_info
from mert_hf.embedding.dataset import embed_dataset
from mert_hf.search import MusicIndex

RATE = 44100
SONGS = 5
LOSSLESS = {  # name of the file: encoder of FFmpeg
    "a.wav": "pcm_s16le",
    "b.aiff": "pcm_s16be",
    "c.flac": "flac",
    "d.wv": "wavpack",
    "e.m4a": "alac",
    "f.mka": "flac",
}
LOSSY = {
    "g.mp3": "libmp3lame",
    "h.ogg": "libvorbis",
    "i.opus": "libopus",
    "j.m4a": "aac",
    "k.wma": "wmav2",
    "l.ac3": "ac3",
}
PCM = {"float": "f32le", "rate": str(RATE)}


def by_ffmpeg(path: Path, codec: str, rate: int, samples: np.ndarray) -> None:
    """Writes samples (samples, 2) with the command."""
    source = write(path.with_name("source.wav"), samples, RATE)
    command = ["ffmpeg", "-v", "error", "-i", source, "-c:a", codec, "-ar", rate, "-b:a", 192_000, path]
    subprocess.run([str(word) for word in command], check=True)
    source.unlink()


def by_library(path: Path, codec: str, rate: int, samples: np.ndarray) -> None:
    """Writes samples (samples, 2) with FFmpeg's libraries."""
    if codec.startswith("pcm"):
        write(path, samples, rate, "WAV" if path.suffix == ".wav" else "AIFF")
    elif codec == "libvorbis":
        write(path, samples, rate, "OGG", "VORBIS")
    else:
        encode(path, codec, rate, samples)


def song(number: int) -> np.ndarray:
    """(samples, 2) in 16 bits; about whole blocks, since WMA and AC-3 do not state where the last one ends."""
    size = 2048 * (151 + 15 * number) + 500
    left, right = (melody(seed, size / RATE + 1, RATE)[:size] for seed in (number, number + SONGS))
    return np.round(np.stack([left, 0.5 * left + 0.3 * right], axis=1) * 32767) / 32768


@pytest.mark.slow
@pytest.mark.parametrize("write_file", [by_ffmpeg, by_library])
def test_sixty_files_in_twelve_formats(write_file, tiny_checkpoint, tmp_path):
    if write_file is by_ffmpeg and shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    seconds, groups = {}, []
    for number in range(SONGS):
        folder = tmp_path / "music" / f"song{number}"
        folder.mkdir(parents=True)
        samples = song(number)
        for name, codec in {**LOSSLESS, **LOSSY}.items():
            rate = 48000 if codec == "libopus" else RATE
            if write_file is by_library and codec == "libopus":
                import soxr

                write_file(folder / name, codec, rate, soxr.resample(samples, RATE, rate).astype(np.float32))
            else:
                write_file(folder / name, codec, rate, samples.astype(np.float32))
            seconds[str(folder / name)] = len(samples) / RATE
        groups.append([str(folder / name) for name in sorted({**LOSSLESS, **LOSSY})])
    assert len(seconds) == 60
    for path, expected in seconds.items():
        assert audio_info(path).duration == pytest.approx(expected, abs=0.02), path

    options = {"device": "cpu", "show_progress_bar": False}
    embedded = embed_dataset([tmp_path / "music"], tmp_path / "embeddings", tiny_checkpoint, layers=2, **options)
    assert embedded.failed == () and embedded.files == 60
    table = pyarrow.dataset.dataset(tmp_path / "embeddings", format="parquet").to_table(columns=["path", "end"])
    ends = dict(table.group_by("path").aggregate([("end", "max")]).to_pandas().itertuples(index=False))
    assert ends == pytest.approx(seconds, abs=0.02)

    summary = MusicIndex.update([tmp_path / "music"], tmp_path / "index", tiny_checkpoint, **options)
    assert summary.failed == () and summary.recordings == 60
    index = MusicIndex(tmp_path / "index", device="cpu")
    for path, expected in seconds.items():
        best, *others = index.search(path, top_k=12)
        assert (best.path, best.similarity) == (path, 1.0) or Path(path).name in LOSSLESS and best.similarity == 1.0
        assert best.duration == pytest.approx(expected, abs=0.02)
        if Path(path).name in LOSSLESS:
            same = [match for match in (best, *others) if match.similarity == 1.0]
            assert {f"{Path(path).parent.name}/{name}" for name in LOSSLESS} <= {
                "/".join(Path(match.path).parts[-2:]) for match in same
            }
    assert index.duplicates() == groups
