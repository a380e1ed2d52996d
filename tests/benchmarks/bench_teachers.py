"""Short trainings of a small model against each kind of teacher: are there codes to learn, and are they learned?

    mert-hf quickstart --output RUN
    python tests/benchmarks/bench_teachers.py RUN/scores/pretraining --output OUT --teacher mel_rvq [--updates 500]

DATA has a metadata.csv with the splits train and valid. Each run fits its teacher to the training split, trains a
MERT-v2 of half a million parameters, and prints a row of docs/results/teachers.md, all at masked frames: the perplexity
of the codes and the share of the most frequent one in an epoch of training, the accuracy in the last 40 updates; the
share of the most frequent code of the held-out recordings, and the accuracies of the untrained and the trained model on
them. For music2vec the loss and the spread over time of the targets are printed every 100 updates.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from mert_hf.corpora.code_counts import CodeCounts
from mert_hf.corpora.dataset import AudioCropDataset
from mert_hf.pretraining.arguments import parse_arguments
from mert_hf.pretraining.run import build_trainer
from mert_hf.pretraining.trainer import MERTTrainer
from mert_hf.teachers.fitting import fit_teacher
from mert_hf.teachers.settings import KMeansSettings, RVQSettings

RATE, HOP = 24000, 960
WIDTH, CROP = 96, 2 * RATE
STUDENT = {
    "model_type": "mert2",
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "subsampling_channels": [48, WIDTH],
    "subsampling_depths": [1, 1],
    "subsampling_strides": [2, 2],
    "conv_depthwise_kernel_size": 15,
    "unmasked_loss_weight": 0.5,
}
TEACHERS = ("random_projection", "mel_rvq", "fused", "kmeans", "two", "music2vec")


def fit_kind(kind: str, data: str, folder: Path) -> dict:
    """Fits a teacher of this kind, and returns it as `acoustic_teacher` takes it."""
    audio = {
        "sampling_rate": RATE,
        "hop_length": HOP,
        "max_minutes": 15.0,
        "split": "train",
        "show_progress_bar": False,
    }
    if kind == "kmeans":
        features = ("mfcc:64", "log_cqt:64", "chroma:48:3")
        fit_teacher(data, folder, KMeansSettings(features=features, **audio))
    else:
        choice = {"encoder": ("mert-nano:2", "mert-nano:4"), "components": 64} if kind == "fused" else {"kind": kind}
        settings = RVQSettings(codebooks=4, codebook_size=128, steps=500, **choice, **audio)
        fit_teacher(data, folder, settings)
    return {"type": kind, "path": str(folder)}


def make_trainer(arguments: argparse.Namespace) -> MERTTrainer:
    """The trainer with a new student and the chosen teacher."""
    fields: dict = {"model_config": STUDENT}
    if arguments.teacher == "music2vec":
        fields["musical_teacher"] = {
            "type": "music2vec", "num_bins": WIDTH, "sampling_rate": RATE, "hop_length": HOP, "top_layers": 2,
        }  # fmt: skip
        fields["model_config"] = {**STUDENT, "cqt_loss_weight": math.sqrt(WIDTH), "unmasked_loss_weight": 0.0}
        fields["ema"] = {"start_decay": 0.99, "end_decay": 0.999, "decay_steps": arguments.updates // 2}
    else:
        kinds = ("mel_rvq", "kmeans") if arguments.teacher == "two" else (arguments.teacher,)
        entries = [fit_kind(kind, arguments.data, arguments.output / kind) for kind in kinds]
        fields["acoustic_teacher"] = [{**entries[0], "weight": 0.5}, entries[1]] if len(kinds) == 2 else entries[0]
    words = [word for name, value in fields.items() for word in (f"--{name}", json.dumps(value))]
    words += ["--train_data", arguments.data, "--train_split", "train", "--eval_data", arguments.data]
    words += ["--eval_split", "valid", "--crop_length", str(CROP), "--output_dir", str(arguments.output / "training")]
    words += ["--mask_probability", "0.45", "--mask_seconds", "0.16", "--max_steps", str(arguments.updates)]
    words += ["--per_device_train_batch_size", "8", "--learning_rate", "2e-3", "--warmup_steps", "30"]
    words += ["--lr_scheduler_type", "cosine", "--adam_beta2", "0.98", "--max_grad_norm", "5.0", "--seed", "0"]
    words += ["--logging_steps", "20", "--save_strategy", "no", "--use_cpu", "true", "--report_to", "none"]
    return build_trainer(*parse_arguments([*words, "--disable_tqdm", "true"]))


class TargetSpread(TrainerCallback):
    """Prints how far the targets of music2vec vary over time, and the last layer of the average over time and clips."""

    def __init__(self, trainer: MERTTrainer, data: str):
        crops = AudioCropDataset([data], CROP, RATE, HOP, split="valid")
        self.clips = torch.stack([torch.as_tensor(crops[index].waveform) for index in range(8)])
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in (1, 20) or state.global_step % 100 == 0:
            teacher = self.trainer.data_collator.musical_teacher
            with torch.no_grad():
                last = teacher.average(self.clips).last_hidden_state
            targets = teacher(self.clips)
            losses = [entry["cqt_loss"] for entry in state.log_history if "cqt_loss" in entry] or [float("nan")]
            print(
                f"| {state.global_step} | {losses[-1]:.3f} | {targets.std(dim=1).mean():.3f} | "
                f"{last.std(dim=1).mean():.3f} | {last.std(dim=0).mean():.3f} |", flush=True
            )  # fmt: skip


def count_codes(trainer: MERTTrainer, loader: DataLoader) -> list[dict[str, float]]:
    """The summary of `CodeCounts` over the masked frames of a loader's batches, for each codebook."""
    counts = CodeCounts(trainer.model.config.resolved_codebook_sizes)
    for batch in loader:
        mask = batch["mask_time_indices"]
        counts.add(batch["codes"][..., : mask.shape[1]].transpose(0, 1)[:, mask].numpy())
    return counts.summary()


def numbers(values) -> str:
    """One number for each codebook."""
    return " ".join(f"{value:.3g}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--teacher", choices=TEACHERS, required=True)
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trainer = make_trainer(arguments)
    if arguments.teacher == "music2vec":
        print("| update | loss | targets | last layer over time | between clips |")
        trainer.add_callback(TargetSpread(trainer, arguments.data))
        trainer.train()
        return
    heard = count_codes(trainer, trainer.get_train_dataloader())
    held_out = count_codes(trainer, trainer.get_eval_dataloader())
    before, started = trainer.evaluate(), time.process_time()
    trainer.train()
    print(f"{arguments.updates} updates in {time.process_time() - started:.0f} CPU s")
    after = trainer.evaluate()
    names = [f"codebook_{k}_accuracy" for k in range(len(heard))]
    logs = [entry for entry in trainer.state.log_history if names[0] in entry][-2:]
    cells = [numbers(2 ** row["entropy"] for row in heard) + f" of {heard[0]['size']}"]
    cells += [numbers(row["commonest_share"] for row in heard)]
    cells += [numbers(sum(entry[name] for entry in logs) / len(logs) for name in names)]
    cells += [numbers(row["commonest_share"] for row in held_out)]
    cells += [numbers(metrics[f"eval_{name}"] for name in names) for metrics in (before, after)]
    print(f"| {arguments.teacher} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
