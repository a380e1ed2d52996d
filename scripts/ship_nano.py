"""Makes the checkpoint that the package carries out of a training run: fp16 weights, teachers, log of training, card.

    python examples/ship_nano.py --model outputs/nano/model --logs outputs/nano/training/checkpoint-16500 \\
        --acoustic outputs/nano/teachers/acoustic --musical outputs/nano/teachers/musical --probes results/*.json

docs/results/mert-nano.md has the commands that come before it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import HfArgumentParser

from mert_hf import MERTFeatureExtractor, MERTForPreTraining
from mert_hf.evaluation import load_results
from mert_hf.hub.cards import CardFacts, Measurement
from mert_hf.hub.checkpoint import save_checkpoint
from mert_hf.quickstart.report import draw_losses
from mert_hf.teachers import load_teacher

DATA = (
    "Game soundtracks (4.7 h, the training split of ten Debian packages; GPL, CC-BY-SA, MIT) and 4 h of rendered "
    "scores (Bach chorales and fiddle tunes of music21, General MIDI instruments, pieces of the training split)"
)
LICENCE_NOTE = (
    "The weights were made by this project. The music they were trained on keeps its own licences, among them GPL and "
    "CC-BY-SA; no recording is in the package. Whether such licences reach a model's weights is not settled law."
)
LOGGED = 100  # entries of a stage's log that are kept
LIMITS = (
    "Trained for about an hour on CPU cores: small enough to come with the package and to work offline. Use a "
    "published MERT for real work.",
    "On rendered scores MFCC tells instrument families apart far better, and chroma and the same net untrained are "
    "no worse at keys (docs/results/mert-nano.md).",
    "25 frames a second: too coarse for precise onsets.",
)


@dataclass
class ShipArguments:
    """Where the parts come from and go to."""

    model: str = field(metadata={"help": "Folder of the trained MERTForPreTraining."})
    logs: list[str] = field(metadata={"help": "Folders with the trainer_state.json of each stage of the training."})
    acoustic: str = field(metadata={"help": "Folder of the k-means teacher."})
    musical: str = field(metadata={"help": "Folder of the constant-Q teacher."})
    probes: list[str] = field(
        metadata={"help": "Result files of mert-hf evaluate: first those of this network, then those of others."}
    )
    output: str = field(default="mert_hf/hub/checkpoints/mert-nano", metadata={"help": "Folder of the checkpoint."})
    curve: str = field(default="docs/results/mert-nano-loss.png", metadata={"help": "Picture of the losses."})


def measurements(paths: list[str]) -> tuple[Measurement, ...]:
    """The accuracies of the first file's model; those of the other models go into the protocol."""
    results = load_results(paths)
    own = [result for result in results if result["model"] == results[0]["model"]]

    def measure(result: dict) -> Measurement:
        accuracy = result["metrics"]["accuracy"]
        rivals = [other for other in results if other["title"] == result["title"] and other["model"] != own[0]["model"]]
        values = (f"{other['model']} {other['metrics']['accuracy']['mean']:.3f}" for other in rivals)
        return Measurement(
            task=f"rendered scores, {result['title']}",
            metric="accuracy",
            value=round(accuracy["mean"], 4),
            spread=round(accuracy["std"], 4),
            runs=len(accuracy["values"]),
            dataset="rendered-scores",
            dataset_name="music21 scores and single notes, rendered with General MIDI instruments",
            protocol=f"mert-hf evaluate, protocol {result['protocol']['name']}; {', '.join(values)}",
        )

    return tuple(measure(result) for result in own)


def read_log(folder: str) -> list[dict]:
    """The log of a trainer, thinned out to about `LOGGED` entries."""
    state = json.loads((Path(folder) / "trainer_state.json").read_text(encoding="utf-8"))
    entries = [entry for entry in state["log_history"] if "loss" in entry]
    every = max(1, len(entries) // LOGGED)
    return [
        {name: round(value, 5) if isinstance(value, float) else value for name, value in entry.items()}
        for entry in entries[every - 1 :: every]
    ]


def in_sequence(stages: list[list[dict]]) -> list[dict]:
    """The entries of all stages, each stage's updates counted on from those of the stage before."""
    entries: list[dict] = []
    for stage in stages:
        before = entries[-1]["step"] if entries else 0
        entries += [entry | {"step": before + entry["step"]} for entry in stage]
    return entries


def main() -> None:
    (arguments,) = HfArgumentParser(ShipArguments).parse_args_into_dataclasses()
    stages = [read_log(folder) for folder in arguments.logs]
    peaks = [max(entry["learning_rate"] for entry in stage) for stage in stages]
    facts = CardFacts(
        model_name="mert-nano",
        data=DATA,
        hours=8.7,
        teachers=("k-means codes of the teacher beside this card", "log constant-Q spectrum, 84 bins, standardised"),
        training={
            f"Stage {index + 1}": f"{stage[-1]['step']:,} updates of 12 x 4 s, AdamW, peak rate {peak:g}, bfloat16"
            for index, (stage, peak) in enumerate(zip(stages, peaks, strict=True))
        }
        | {
            "Noise mixture": "probability 0.5",
            "Masks": "spans of 4 frames, probability 0.4",
        },
        measurements=measurements(arguments.probes),
        licence="apache-2.0",
        licence_note=LICENCE_NOTE,
        limits=LIMITS,
    )
    model = MERTForPreTraining.from_pretrained(arguments.model).to(torch.float16)
    teachers = {"acoustic": load_teacher(arguments.acoustic), "musical": load_teacher(arguments.musical)}
    folder = save_checkpoint(model, MERTFeatureExtractor(do_normalize=False), arguments.output, facts, teachers)
    for code in folder.glob("*.py"):
        code.unlink()  # the package itself holds it
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"dtype": "float32"}  # half precision is for the size of the package; nets compute in float32
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    log = json.dumps(in_sequence(stages), indent=1)
    (folder / "training_log.json").write_text(log + "\n", encoding="utf-8")
    draw_losses(in_sequence(stages), Path(arguments.curve))
    print(folder)


if __name__ == "__main__":
    main()
