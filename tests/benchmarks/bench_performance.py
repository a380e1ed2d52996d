"""The table of docs/performance.md: speed and accuracy of ours, transformers' HubertModel and ONNX Runtime on this CPU.

    python tests/benchmarks/bench_performance.py [--music FILES...] [--rounds 3] [--clips 2] [--threads 1]

The models have the size of MERT-v1-95M and random weights; MERT2Model is 12 blocks of width 512. The rows of a group
take turns in one process, round after round, so that a busy machine slows them alike; the median of the CPU seconds
counts. Accuracy is the cosine of the embeddings to those in float32, for windows of 5 s of the given recordings and
the bundled models. The output is Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import HubertConfig, HubertModel

from mert_hf import MERT2Config, MERT2Model, MERTConfig, MERTEmbedder, MERTFeatureExtractor, MERTModel
from mert_hf.encoders.cpu import use_cpu_front_end
from mert_hf.export import OnnxEmbedder, export_onnx
from mert_hf.utils.text import markdown_table

SECONDS, RATE, MATRIX = 5.0, 24000, 2048
GFLOP_PER_SECOND_OF_AUDIO = 20.8  # of the 95M forward pass, both operations of a multiply-add counted
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "avx_vnni")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BUNDLED = ("mert-nano", "mert2-nano")
LAYERS = (1, 4, 8)
SECOND_GENERATION = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
COLUMNS = ("", "precision", "CPU seconds", "x real time", "of the float32 matrix bound")
BOUND = ("matrix product", "float32")

Jobs = dict[tuple[str, str], Callable[[], object]]


def processor() -> str:
    """Name and the flags that decide about the speed."""
    lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    found = {key.strip(): value.strip() for key, value in reversed(lines)}
    flags = found.get("flags", "").split()
    return f"{found.get('model name', 'unknown CPU')}: {', '.join(flag for flag in FLAGS if flag in flags)}"


def groups(waveforms: torch.Tensor, folder: Path, threads: int) -> Iterator[Jobs]:
    """Models that are measured next to each other; only the models of one group are in memory."""
    for precision in DTYPES:
        yield first_generation(waveforms, precision)
    yield onnx_runtime(waveforms, folder, threads)
    yield second_generation(waveforms)


def first_generation(waveforms: torch.Tensor, precision: str) -> Jobs:
    """Forward passes, whole and up to a layer, and the front ends alone, ours in training and in inference."""
    dtype = DTYPES[precision]
    inputs = waveforms.to(dtype)
    mert = MERTModel(MERTConfig()).eval().requires_grad_(False).to(dtype)
    use_cpu_front_end(mert)
    hubert = HubertModel(HubertConfig(attn_implementation="sdpa")).eval().requires_grad_(False).to(dtype)
    jobs = {
        "HubertModel of transformers": partial(hubert, inputs),
        "MERTModel": partial(mert, inputs),
        "front end of HubertModel": partial(hubert.feature_extractor, inputs),
        "front end of MERTModel in training": partial(with_gradients, mert.feature_extractor, inputs),
        "front end of MERTModel": partial(mert.feature_extractor, inputs),
        **{f"MERTModel up to layer {layer}": partial(mert, inputs, last_layer=layer) for layer in LAYERS},
    }
    return {(name, precision): job for name, job in jobs.items()}


def second_generation(waveforms: torch.Tensor) -> Jobs:
    jobs: Jobs = {}
    for precision, dtype in DTYPES.items():
        model = MERT2Model(MERT2Config(**SECOND_GENERATION)).eval().to(dtype)
        jobs["MERT2Model", precision] = partial(model, waveforms)
    return jobs


def with_gradients(encoder: torch.nn.Module, inputs: torch.Tensor) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        encoder(inputs)


def onnx_runtime(waveforms: torch.Tensor, folder: Path, threads: int) -> Jobs:
    embedder = MERTEmbedder(MERTModel(MERTConfig(attn_implementation="eager")), MERTFeatureExtractor())
    inputs = {"input_values": waveforms.numpy(), "attention_mask": np.ones(waveforms.shape, np.int64)}
    jobs: Jobs = {("MERTModel, next to ONNX Runtime", "float32"): partial(embedder.model, waveforms)}
    for precision in ("float32", "int8"):
        export_onnx(embedder, folder / precision, layers=-1, int8=precision == "int8")
        began = time.perf_counter()
        session = OnnxEmbedder.from_pretrained(folder / precision, threads=threads).session
        size = sum(file.stat().st_size for file in (folder / precision).iterdir()) / 2**20
        print(f"ONNX, {precision}: {size:.0f} MiB, loaded in {time.perf_counter() - began:.2f} s", flush=True)
        jobs["MERTModel in ONNX Runtime", precision] = partial(session.run, ["embeddings"], inputs)
    half = MERTModel(MERTConfig()).eval().bfloat16()
    jobs["MERTModel, next to ONNX Runtime", "bfloat16"] = partial(half, waveforms.bfloat16())
    return jobs


def medians(jobs: Jobs, rounds: int) -> dict[tuple[str, str], float]:
    """CPU seconds of each job; a first round warms up."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in jobs}
    for number in range(rounds + 1):
        for key, job in jobs.items():
            began = time.process_time()
            with torch.inference_mode():
                job()
            if number:
                times[key].append(time.process_time() - began)
    return {key: statistics.median(values) for key, values in times.items()}


def speed_rows(found: dict[tuple[str, str], float], audio: float) -> Iterator[tuple[str, ...]]:
    """(model, precision, CPU seconds, x real time, share of the float32 matrix bound) for seconds of audio."""
    rate = 2 * MATRIX**3 / found.pop(BOUND) / 1e9
    for (name, precision), seconds in found.items():
        speed = audio / seconds
        whole = name.startswith(("MERTModel", "HubertModel")) and "layer" not in name
        share = f"{100 * speed * GFLOP_PER_SECOND_OF_AUDIO / rate:.0f} % of {rate:.0f} GFLOP/s" if whole else ""
        yield name, precision, f"{seconds:.3f}", f"{speed:.1f}", share


def accuracy_rows(music: list[str], folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """(model, precision, smallest, median cosine) over all windows and layers of the recordings."""
    options = {"show_progress_bar": False, "window": SECONDS}
    for name in BUNDLED:
        load = partial(MERTEmbedder.from_pretrained, device="cpu")
        exact = vectors(load(name, dtype="float32").encode(music, **options))
        for precision in ("bfloat16", "float16"):
            yield name, precision, *cosines(vectors(load(name, dtype=precision).encode(music, **options)), exact)
        for precision in ("float32", "int8"):
            place = folder / f"{name}-{precision}"
            export_onnx(name, place, int8=precision == "int8")
            yield name, f"{precision} in ONNX Runtime", *cosines(vectors(load(place).encode(music, **options)), exact)


def vectors(results: list) -> np.ndarray:
    return np.concatenate([np.asarray(result) for result in results])


def cosines(values: np.ndarray, exact: np.ndarray) -> tuple[str, str]:
    norms = np.linalg.norm(values, axis=-1) * np.linalg.norm(exact, axis=-1)
    cosine = (values * exact).sum(axis=-1) / norms
    return f"{cosine.min():.5f}", f"{np.median(cosine):.6f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--music", nargs="+", default=[], help="Recordings for the accuracy; not measured if none.")
    parser.add_argument(
        "--rounds", type=int, default=3, help="Runs of each row, of which the median counts; 0: accuracy only."
    )
    parser.add_argument("--clips", type=int, default=2, help="Clips of 5 s in a batch.")
    parser.add_argument("--threads", type=int, default=1, help="Of torch and onnxruntime.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    waveforms = torch.randn(arguments.clips, round(SECONDS * RATE))
    print(f"{processor()}; {arguments.threads} threads, {arguments.clips} clips of {SECONDS:g} s\n", flush=True)
    bound = {BOUND: partial(torch.mm, *torch.randn(2, MATRIX, MATRIX))}
    with tempfile.TemporaryDirectory() as folder:
        for jobs in groups(waveforms, Path(folder), arguments.threads) if arguments.rounds else ():
            found = medians(jobs | bound, arguments.rounds)
            rows = list(speed_rows(found, arguments.clips * SECONDS))
            print(markdown_table(COLUMNS, rows) + "\n", flush=True)
            del jobs
        if arguments.music:
            rows = list(accuracy_rows(arguments.music, Path(folder)))
            print(markdown_table(["model", "precision", "smallest cosine", "median"], rows))


if __name__ == "__main__":
    main()
