"""A student distilled for minutes from a layer of mert2-nano, with masks and without: errors on held-out music.

    python tests/benchmarks/bench_distillation.py MUSIC --output OUT --minutes 5

Every tenth recording of MUSIC is held out. Mean squared errors of the projected features: predicting their mean costs
about 1. "Heard" is at clips as they are, "hidden" at the frames of masked spans of 0.32 s.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForPreTraining

from mert_hf.audio import audio_info, find_audio_files, read_audio
from mert_hf.pretraining.distillation import RUN_FOLDER, distill
from mert_hf.pretraining.settings import DistillationSettings
from mert_hf.pretraining.student_input import SpanMasking
from mert_hf.teachers import load_teacher

STUDENT = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "subsampling_channels": [64, 96]}
CLIP_SECONDS = 6.0


def clips_of(files: list[Path], per_file: int = 4) -> torch.Tensor:
    """Clips at evenly spaced places of recordings, (clips, samples) at 24 kHz."""
    clips = []
    for file in files:
        room = audio_info(file).duration - CLIP_SECONDS
        for index in range(per_file if room > 0 else 0):
            offset = room * (index + 0.5) / per_file
            clips.append(torch.from_numpy(read_audio(file, 24000, offset=offset, duration=CLIP_SECONDS + 0.1)))
    return torch.stack([clip[: round(24000 * CLIP_SECONDS)] for clip in clips])


@torch.no_grad()
def errors(run: Path, clips: torch.Tensor) -> dict[str, float]:
    """Errors of a student, and those of predicting the mean of the held-out targets."""
    model, teacher = AutoModelForPreTraining.from_pretrained(run).eval(), load_teacher(run / "teachers" / "0")
    frames = model.config.num_frames(clips.shape[1])
    targets = torch.cat([teacher(batch)[:, :frames] for batch in clips.split(8)])
    mask = SpanMasking(0.42, 8)(torch.full((len(clips),), frames), torch.Generator().manual_seed(0))
    torch.manual_seed(0)  # of the noise in masked frames
    heard, hidden = (
        torch.cat(
            [
                model.cqt_head(model.mert(part, mask_time_indices=spans if masked else None).last_hidden_state)
                for part, spans in zip(clips.split(8), mask.split(8), strict=True)
            ]
        )
        for masked in (False, True)
    )
    return {
        "mean": (targets - targets.mean(dim=(0, 1))).square().mean().item(),
        "heard": (heard - targets).square().mean().item(),
        "hidden": (hidden - targets)[mask].square().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("music", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--teacher", default="mert2-nano:3")
    arguments = parser.parse_args()
    files = find_audio_files(arguments.music)
    held_out, heard = files[::10], [file for index, file in enumerate(files) if index % 10]
    clips = clips_of([Path(file) for file in held_out])
    fields = ["--model_config", str(STUDENT).replace("'", '"'), "--dataloader_num_workers", "0", "--use_cpu", "true"]
    print(f"{len(heard)} recordings, {len(clips)} clips of {len(held_out)} held-out ones")
    for name, minutes, options in (
        ("untrained", 0.01, ["--learning_rate", "0"]),
        ("with masks", arguments.minutes, []),
        ("without masks", arguments.minutes, ["--mask_clips", "0"]),
    ):
        output = arguments.output / name.replace(" ", "-")
        settings = DistillationSettings(
            data=tuple(map(str, heard)),
            output=str(output),
            max_minutes=minutes,
            fit_minutes=10.0,
            max_bad_files="5%",
            progress=False,
        )
        distill([arguments.teacher], "random:mert2-nano", settings, [*fields, *options])
        found = errors(output / RUN_FOLDER, clips)
        steps = (output / RUN_FOLDER / "trainer_state.json").read_text().split('"global_step": ')[1].split(",")[0]
        print(name, f"{steps} updates", *(f"{key} {value:.3f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
