"""The folder of a reader of the documents: recordings under the names that the documents use, and small checkpoints."""

from __future__ import annotations

import contextlib
import glob
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import soundfile
import torch
from typer.testing import CliRunner

from mert_hf import MERT2Config, MERT2Model, MERTConfig, MERTFeatureExtractor, MERTModel
from mert_hf.cli.app import app
from mert_hf.hub import save_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
RATE = 24000
NARROW = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
NARROW_SUBSAMPLING = {"num_mel_bins": 16, "subsampling_channels": [8, 8, 16], "subsampling_depths": [1, 1, 1]}


def write_song(path: Path, frequency: float, seconds: float) -> None:
    """A decaying tone that starts twice a second."""
    time = np.arange(int(seconds * RATE)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * time) * np.exp(-time % 0.5), RATE)


def write_songs(folder: Path, count: int = 12) -> None:
    """Labeled songs of 3 s: half of them low, half high, in all three splits."""
    folder.mkdir()
    rows = ["file_name,genre,valence,arousal,tags,split"]
    for number in range(count):
        high, split = number % 2, ("train", "train", "validation", "test")[number // 3]
        write_song(folder / f"{number}.wav", 110.0 * (1 + 7 * high) + 3 * number, 3.0)
        genre, tags = ("low", "high")[high], ("calm", "calm|bright")[high]
        rows.append(f"{number}.wav,{genre},{0.1 * number:.1f},{high},{tags},{split}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


def make_checkpoints(folder: Path) -> None:
    """Untrained checkpoints under their names on the Hub: as many layers as the published models, very narrow."""
    save = {"feature_extractor": MERTFeatureExtractor(), "card": "---\nlicense: mit\n---\n"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mert = MERTModel(MERTConfig(**NARROW, num_hidden_layers=12, conv_dim=[16] * 7, num_conv_pos_embedding_groups=2))
        mert2 = MERT2Model(MERT2Config(**NARROW, num_hidden_layers=24, **NARROW_SUBSAMPLING))
    save_checkpoint(mert, output_dir=folder / "m-a-p" / "MERT-v1-95M", **save)
    for name in ("MERT-v2-30s", "MERT-v2-FullSong"):
        save_checkpoint(mert2, output_dir=folder / "m-a-p" / name, **save)


def make_reader_folder(folder: Path) -> Path:
    """The folder in which documents run: songs, the examples, and checkpoints under names of the Hub."""
    write_song(folder / "song.wav", 440.0, 10.0)
    for number, name in enumerate(("song.mp3", "a.mp3", "b.mp3", "b.flac", "calm.flac", "loud.flac", "riff.wav")):
        write_song(folder / name, 440.0 + 110.0 * number, 10.0)
    for name in ("my_songs", "my_music"):
        write_songs(folder / name)
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    make_checkpoints(folder)
    return folder


def blocks_of(text: str) -> list[tuple[str, str]]:
    """(language, content) of each block of Python or shell in a Markdown page, in order."""
    return re.findall(r"^ *```(python|bash)\n(.*?)^ *```$", text, re.M | re.S)


def lines_of(block: str) -> list[str]:
    """The commands of a block of shell, continued lines joined."""
    return [line.strip() for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.strip()]


def run_python(code: str, namespace: dict, name: str) -> str:
    """Runs a block of Python; returns what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), namespace)
    return printed.getvalue()


def run_mert_hf(words: list[str]) -> None:
    """Runs a `mert-hf` command in this process."""
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"mert-hf {' '.join(words)}\n{result.output[-3000:]}\n{result.exception!r}"


def run_script(words: list[str], monkeypatch) -> None:
    """Runs a script with its arguments in this process."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", words)
        patch.syspath_prepend(str(Path(words[0]).parent.resolve()))
        runpy.run_path(words[0], run_name="__main__")


def run_line(line: str, monkeypatch, not_run: Iterable[str], shorter: Mapping[str, str]) -> None:
    """Runs a command of a document in this process.

    Args:
        line: the command, `mert-hf` or `python`.
        monkeypatch: fixture of the test.
        not_run: beginnings of commands that are not run.
        shorter: options to add, by the beginning of the command.
    """
    if line.startswith(tuple(not_run)):
        return
    extra = next((more for start, more in shorter.items() if line.startswith(start)), "")
    program, *words = shlex.split(f"{line.partition(' #')[0]} {extra}")
    if program == "mert-hf":
        run_mert_hf([path for word in words for path in (sorted(glob.glob(word)) or [word])])
    else:
        assert program == "python", f"{line}: state why it does not run"
        run_script(words, monkeypatch)
