# SPDX-License-Identifier: Apache-2.0
"""Embeddings from an exported model, with onnxruntime, soundfile, soxr and numpy alone.

`mert-hf export onnx` writes a folder with `model.onnx` and a copy of this file, which needs no other file:

    from onnx_embedder import OnnxEmbedder

    embedder = OnnxEmbedder.from_pretrained(".")
    song = embedder.encode("song.wav")
    print(song.embeddings.shape)  # (windows, layers, hidden size)

or on the command line, one .npy file for each recording: `python onnx_embedder.py FOLDER OUTPUT song.wav ...`
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile
import soxr

MODEL_FILE = "model.onnx"
METADATA_KEY = "mert_hf"
POOLINGS = ("mean", "frames")
BLOCK_SECONDS = 30.0  # of a file that is decoded at a time


@dataclass(frozen=True, eq=False)
class OnnxEmbedding:
    """Embeddings of one recording; `numpy.asarray` gives `embeddings`.

    They are float32, (windows, layers, hidden) with pooling="mean", (frames, layers, hidden) with "frames"; an int for
    `layers` leaves the axis of the layers out.
    """

    embeddings: np.ndarray
    start: np.ndarray  # (windows,) float64, start of each window in seconds
    end: np.ndarray  # (windows,) float64, its end in seconds
    layers: tuple[int, ...]  # counted from 0, the encoder's input
    path: str | None = None  # file of the recording, or None for an array
    frame_times: np.ndarray | None = None  # with "frames" (frames,) float64, the center of each frame in seconds

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `embeddings`."""
        return self.embeddings.shape

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        array = self.embeddings if dtype is None else self.embeddings.astype(dtype, copy=False)
        return array.copy() if copy else array


class OnnxEmbedder:
    """Embeds recordings of any length, in windows, with the results of `MERTEmbedder` (float32 within 1e-4).

    Args:
        session: an open session of onnxruntime.
        settings: what the export stored: `sampling_rate`, `layers`, `receptive_field`, `hop_length`, `hidden_size`,
            `first_frame` (its center in seconds), and what readers need.
    """

    def __init__(self, session: onnxruntime.InferenceSession, settings: dict[str, Any]) -> None:
        self.session, self.settings = session, settings
        self.sampling_rate = int(settings["sampling_rate"])
        self.layers = tuple(settings["layers"])
        self.hidden_size = int(settings["hidden_size"])
        self.receptive_field = int(settings["receptive_field"])
        self.hop_length = int(settings["hop_length"])

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike, providers: Sequence[str] | None = None, threads: int | None = None
    ) -> OnnxEmbedder:
        """Opens a folder that `mert-hf export onnx` wrote.

        Args:
            folder: holds `model.onnx`.
            providers: providers of onnxruntime, such as ("CUDAExecutionProvider",); the CPU if None.
            threads: threads of one operator; onnxruntime's choice if None.

        Raises:
            FileNotFoundError: there is no `model.onnx` in the folder.
            ValueError: the model was not written by `mert-hf export onnx`.
        """
        path = Path(folder) / MODEL_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no {MODEL_FILE}. Give a folder that `mert-hf export onnx` wrote.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        session = onnxruntime.InferenceSession(path, options, providers=list(providers or ["CPUExecutionProvider"]))
        stored = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if stored is None:
            raise ValueError(f"{path} has no settings of mert_hf. Export the model again with `mert-hf export onnx`.")
        return cls(session, json.loads(stored))

    def encode(
        self,
        paths_or_arrays: Any,
        layers: str | int | Sequence[int] = "all",
        pooling: str = "mean",
        window: float | None = 5.0,
        hop: float | None = None,
        batch_size: int = 16,
        show_progress_bar: bool = True,
        sampling_rate: int | None = None,
    ) -> OnnxEmbedding | list[OnnxEmbedding]:
        """Embeds recordings; the result does not depend on the batch size.

        Args:
            paths_or_arrays: one or a list of: a path, or an array (samples,) or (channels, samples) of floats.
            layers: "all" that were exported, a layer or several of them; 0 is the encoder's input.
            pooling: "mean" over each window's frames, or "frames".
            window: seconds that the model takes at a time; None takes each recording whole.
            hop: seconds from one window's start to the next; `window` if None.
            batch_size: windows of one recording that the model takes at a time.
            show_progress_bar: write the number of finished recordings to the standard error stream.
            sampling_rate: rate of arrays in Hz; the model's rate if None.

        Returns:
            An `OnnxEmbedding` for one recording, a list of them for a list.

        Raises:
            ValueError: an argument out of its range, or a recording that is shorter than one frame of the model.
            OSError: a file that cannot be read.
        """
        positions = self._positions(layers)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r} must be one of {', '.join(POOLINGS)}.")
        single = isinstance(paths_or_arrays, (str, os.PathLike, np.ndarray))
        items = [paths_or_arrays] if single else list(paths_or_arrays)
        results = []
        for number, item in enumerate(items, start=1):
            windows = _windows(_blocks(item, self.sampling_rate, sampling_rate), self.sampling_rate, window, hop)
            result = self._embed(item, windows, positions, pooling, batch_size)
            if isinstance(layers, (int, np.integer)):
                result = replace(result, embeddings=result.embeddings[:, 0])
            results.append(result)
            if show_progress_bar:
                sys.stderr.write(f"\r{number} of {len(items)} recordings" + "\n" * (number == len(items)))
        return results[0] if single else results

    def frame_times(self, num_frames: int) -> np.ndarray:
        """(num_frames,) float64: the centers of a window's first frames, in seconds from the window's start."""
        return self.settings["first_frame"] + np.arange(num_frames) * self.hop_length / self.sampling_rate

    def _positions(self, layers: str | int | Sequence[int]) -> list[int]:
        """Positions of layers among those that were exported."""
        if isinstance(layers, str) and layers == "all":
            return list(range(len(self.layers)))
        given = [layers] if isinstance(layers, (int, np.integer)) else list(layers)
        absent = [layer for layer in given if layer not in self.layers]
        if absent or not given:
            raise ValueError(
                f"layers={layers!r} must name exported layers ({', '.join(map(str, self.layers))}) or be 'all'. "
                "Export the model again with other --layers."
            )
        return [self.layers.index(layer) for layer in given]

    def _embed(self, item, windows, positions, pooling, batch_size) -> OnnxEmbedding:
        """Embeds the windows of a recording: (start in samples, samples) each."""
        starts, ends, values = [], [], []
        while batch := list(islice(windows, batch_size)):
            batch = [(at, clip) for at, clip in batch if len(clip) >= self.receptive_field]
            starts += [at / self.sampling_rate for at, _ in batch]
            ends += [(at + len(clip)) / self.sampling_rate for at, clip in batch]
            values += self._run([clip for _, clip in batch], positions, pooling) if batch else []
        path = os.fspath(item) if isinstance(item, (str, os.PathLike)) else None
        if not values:
            raise ValueError(
                f"{path or 'The recording'} has no window of the {self.receptive_field} samples at "
                f"{self.sampling_rate} Hz that the model needs. Leave it out, or take longer windows."
            )
        layers, times = tuple(self.layers[position] for position in positions), None
        if pooling == "frames":
            times = np.concatenate([at + self.frame_times(len(v)) for at, v in zip(starts, values, strict=True)])
        embeddings = np.stack(values) if pooling == "mean" else np.concatenate(values)
        return OnnxEmbedding(embeddings, np.array(starts), np.array(ends), layers, path, times)

    def _run(self, clips: list[np.ndarray], positions: list[int], pooling: str) -> list[np.ndarray]:
        """Clips (samples,) -> (layers, hidden) or (frames, layers, hidden) float32 of each."""
        size = max(map(len, clips))
        waves, mask = np.zeros((len(clips), size), np.float32), np.zeros((len(clips), size), np.int64)
        for row, clip in enumerate(clips):
            waves[row, : len(clip)], mask[row, : len(clip)] = clip, 1
        inputs = {"input_values": waves, "attention_mask": mask}
        if pooling == "mean":
            return list(self.session.run(["embeddings"], inputs)[0][:, positions])
        frames, counts = self.session.run(["frames", "frame_counts"], inputs)
        return [row[positions, :count].transpose(1, 0, 2) for row, count in zip(frames, counts, strict=True)]


def _blocks(item: Any, target_rate: int, rate: int | None) -> Iterator[np.ndarray]:
    """Mono float32 blocks at the target rate; resampled by soxr at high quality."""
    if isinstance(item, (str, os.PathLike)):
        rate, blocks = soundfile.info(item).samplerate, _file_blocks(item)
    else:
        samples = np.asarray(item, dtype=np.float32)
        rate, blocks = rate or target_rate, iter([samples.mean(axis=0) if samples.ndim == 2 else samples])
    if rate == target_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, target_rate, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(np.ascontiguousarray(block))
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _file_blocks(path: str | os.PathLike) -> Iterator[np.ndarray]:
    with soundfile.SoundFile(path) as file:
        size = round(BLOCK_SECONDS * file.samplerate)
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            yield block.mean(axis=1)


def _windows(
    blocks: Iterable[np.ndarray], rate: int, window: float | None, hop: float | None
) -> Iterator[tuple[int, np.ndarray]]:
    """(start in samples, samples) of windows at 0, hop, 2 hop, ...; the last is shorter where the recording ends."""
    size = 2**62 if window is None else round(window * rate)
    step = size if hop is None else round(hop * rate)
    if min(size, step) < 1 or (window is None and hop is not None):
        raise ValueError(
            f"window={window!r} and hop={hop!r} must be seconds, at least one sample, and hop needs window."
        )
    buffer, start, covered = np.zeros(0, np.float32), 0, 0  # the samples from `start` on; windows reach to `covered`
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while len(buffer) >= max(size, step):
            yield start, buffer[:size]
            covered, start, buffer = start + size, start + step, buffer[step:]
    while len(buffer) and (start == 0 or covered < start + len(buffer)):
        yield start, buffer[:size]
        covered, start, buffer = start + size, start + step, buffer[step:]


def main(arguments: Sequence[str]) -> int:
    """Embeds files from the command line; returns the exit status."""
    if len(arguments) < 3:
        sys.stderr.write("usage: python onnx_embedder.py FOLDER OUTPUT FILE [FILE ...]\n")
        return 2
    folder, output, *files = arguments
    embedder = OnnxEmbedder.from_pretrained(folder)
    Path(output).mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in files:
        try:
            result = embedder.encode(name, show_progress_bar=False)
        except (OSError, ValueError, soundfile.LibsndfileError) as error:
            failed += 1
            sys.stderr.write(f"{name}: {error}\n")
            continue
        np.save(Path(output) / f"{Path(name).stem}.npy", result.embeddings)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
