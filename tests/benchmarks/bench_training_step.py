"""A training step with and without teachers: python tests/benchmarks/bench_training_step.py [--config mert-small]

The same student and clips, each step timed whole: collator (labels, mixture, mask), forward, backward and optimizer in
one process, as with dataloader_num_workers=0. In every round each variant takes one step, and medians are compared.
EnCodec has its published sizes and random weights; codes cost the same whatever the weights are.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from transformers import EncodecConfig, EncodecModel

from mert_hf import CQTTeacher, EncodecTeacher, MERTConfig, MERTFeatureExtractor, MERTForPreTraining
from mert_hf.corpora.dataset import AudioCrop
from mert_hf.pretraining.collator import DataCollatorForMERTPreTraining

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
CODEBOOKS, CODES = 8, 1024


class FileOfCodes:
    """Codes of one long recording in a memory-mapped file, read as the label cache reads them."""

    sampling_rate, frame_rate, num_codebooks, codebook_size = 24000, 75.0, CODEBOOKS, CODES

    def __init__(self, folder: Path, frames: int):
        codes = np.random.default_rng(0).integers(0, CODES, (CODEBOOKS, frames)).astype(np.uint16)
        np.save(folder / "codes.npy", codes)
        self.codes = np.load(folder / "codes.npy", mmap_mode="r")

    def __call__(self, source: str, first_frame: int, frames: int) -> np.ndarray:
        return self.codes[:, first_frame : first_frame + frames].astype(np.int64)


def make_clips(batch: int, samples: int) -> list[AudioCrop]:
    """Decaying chords in noise."""
    generator = torch.Generator().manual_seed(0)
    clips = []
    for index in range(batch):
        time_axis = torch.arange(samples) / 24000
        chord = sum(torch.sin(6.2832 * (110 + 20 * index) * part * time_axis) for part in (1.0, 1.25, 1.5, 2.0))
        noise = 0.01 * torch.randn(samples, generator=generator)
        clips.append(AudioCrop(0.1 * chord + noise, "recording", 320 * 100 * index, seed=index))
    return clips


def make_variants(settings: dict, folder: Path) -> dict[str, tuple[DataCollatorForMERTPreTraining, MERTForPreTraining]]:
    """For each way of making labels a collator and a student that takes them."""
    EncodecModel(EncodecConfig()).save_pretrained(folder)
    encodec, cqt = EncodecTeacher.from_pretrained(str(folder), num_codebooks=CODEBOOKS), CQTTeacher()
    cache = FileOfCodes(folder, frames=75 * 600)
    teachers = {
        "codes cached, no CQT": {"label_cache": cache},
        "codes cached, CQT live": {"label_cache": cache, "musical_teacher": cqt},
        "EnCodec and CQT live": {"acoustic_teacher": encodec, "musical_teacher": cqt},
    }
    variants = {}
    for name, labels in teachers.items():
        bins = cqt.num_bins if "musical_teacher" in labels else 0
        fields = {**settings["model_config"], "num_codebooks": CODEBOOKS, "codebook_size": CODES, "cqt_bins": bins}
        torch.manual_seed(0)
        model = MERTForPreTraining(MERTConfig(**fields)).train()
        extractor = MERTFeatureExtractor(do_normalize=False)
        variants[name] = (DataCollatorForMERTPreTraining(extractor, model.config, **labels), model)
    return variants


def time_step(collator, model, optimizer, clips) -> tuple[float, dict[str, float]]:
    """Seconds of a whole step, and of each teacher in it."""
    started = time.perf_counter()
    batch = collator(clips)
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - started, batch.teacher_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="mert-small", help="a file of examples/configs, without .yaml")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    settings = yaml.safe_load((CONFIGS / f"{arguments.config}.yaml").read_text())
    clips = make_clips(arguments.batch, settings["crop_length"])
    seconds = sum(len(clip.waveform) for clip in clips) / 24000
    with tempfile.TemporaryDirectory() as folder:
        variants = make_variants(settings, Path(folder))
        runs = {name: (*pair, torch.optim.AdamW(pair[1].parameters())) for name, pair in variants.items()}
        steps: dict[str, list] = {name: [] for name in runs}
        for _ in range(arguments.rounds + 1):
            for name, (collator, model, optimizer) in runs.items():
                steps[name].append(time_step(collator, model, optimizer, clips))
    base = None
    print(f"{arguments.config}, {arguments.batch} clips, {seconds:.0f} s of audio, {torch.get_num_threads()} threads")
    for name, timings in steps.items():
        whole = statistics.median(step for step, _ in timings[1:])  # the first round warms up
        base = base or whole
        teachers = {key: statistics.median(part[key] for _, part in timings[1:]) for key in timings[0][1]}
        shares = ", ".join(f"{key} {seconds / value:.1f} x real time" for key, value in teachers.items())
        print(f"{name:24} {whole:7.2f} s  {seconds / whole:6.2f} x real time  {whole / base:5.2f} x base  {shares}")


if __name__ == "__main__":
    main()
