"""Makes the bundled checkpoint out of a training run: fp16 weights, teachers, log of training, card.

    python scripts/bundle_checkpoint.py --run RUN --acoustic DIR --musical DIR --hours 47 --results RESULTS/*.json

RUN is the output folder of `mert-hf pretrain`, DIR are the teachers that it learned from, RESULTS are files of
`mert-hf evaluate`, those of this model first. docs/results/mert2-nano.md has the commands that come before it.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import torch
from transformers import AutoModelForPreTraining, HfArgumentParser, PreTrainedModel

import mert_hf  # noqa: F401  registers the models
from mert_hf import MERTFeatureExtractor
from mert_hf.evaluation import load_results
from mert_hf.hub.cards import CardFacts, Measurement
from mert_hf.hub.checkpoint import save_checkpoint
from mert_hf.pretraining.resuming import last_complete_checkpoint
from mert_hf.quickstart.report import loss_figure
from mert_hf.teachers import load_teacher

DATA = (
    "Game soundtracks of 28 Debian packages, of ten of them the training split (GPL, CC-BY-SA, CC-BY, MIT, public "
    "domain), and rendered scores: chorales, fiddle tunes, folk songs and more of music21's corpus, transposed and "
    "re-instrumented at random with drums, and single notes of random instruments, played by the soundfonts TimGM6mb, "
    "FluidR3 GM, sf_GMbank and OPL-3 FM"
)
LICENSE_NOTE = (
    "The weights were made by this project. The recordings and soundfonts they were trained on keep their own licenses "
    "(GPL, CC-BY-SA, CC-BY, MIT, public domain); none of them is in the package. Whether such licenses reach a model's "
    "weights is not settled law."
)
HISTORY = (  # of the checkpoint that the run started from
    "7,030 updates from random weights, 7,167 with the tempogram, 2,549 with codes of whole recordings, 1,871 on more "
    "real music (averaged with the weights after the second of these runs), 3,038 on all of it"
)
LOSS_WEIGHT = 10.0  # of the regression in the recipe: with its own teachers alone the checkpoint goes on as it began
LOGGED = 100  # entries of the log that are kept
LIMITS = (
    "Trained for about five hours on one or two CPU cores: small enough to be part of the package and to work offline. "
    "Use a published MERT for real work.",
    "25 frames a second: too coarse for precise onsets.",
    "Most of its training music is synthetic; voices and acoustic recordings are rare in it.",
)


@dataclass
class BundleArguments:
    """Where the parts come from and go to."""

    run: str = field(metadata={"help": "Output folder of mert-hf pretrain."})
    acoustic: str = field(metadata={"help": "Folder of the teacher of codes."})
    musical: str = field(metadata={"help": "Folder of the teacher of features."})
    hours: float = field(metadata={"help": "Hours of different recordings that it was trained on."})
    results: list[str] = field(metadata={"help": "Result files of mert-hf evaluate, those of this model first."})
    earlier: Optional[str] = field(  # noqa: UP045  HfArgumentParser reads it at run time
        default=None, metadata={"help": "An earlier checkpoint that is averaged in; none by default."}
    )
    share: float = field(default=0.75, metadata={"help": "Share of the run in the average with the earlier one."})
    name: str = field(default="mert2-nano", metadata={"help": "Name of the checkpoint."})
    output: str = field(default="mert_hf/hub/checkpoints", metadata={"help": "Folder of the bundled checkpoints."})
    curve: str = field(default="docs/results/mert2-nano-loss.png", metadata={"help": "Picture of the losses."})


def measurements(paths: list[str]) -> tuple[Measurement, ...]:
    """The primary metric of each of the first model's results; those of the others go into the protocol."""
    results = load_results(paths)
    own = [result for result in results if result["model"] == results[0]["model"]]

    def measure(result: dict) -> Measurement:
        metric = result["metric"]
        value = result["metrics"][metric]
        rivals = [other for other in results if other["title"] == result["title"] and other["model"] != own[0]["model"]]
        values = (f"{other['model']} {other['metrics'][metric]['mean']:.3f}" for other in rivals)
        return Measurement(
            task=result["title"],
            metric=metric,
            value=round(value["mean"], 4),
            spread=round(value["std"] or 0.0, 4),
            runs=len(value["values"]),
            dataset="rendered-and-real-music",
            dataset_name="sets of scripts/render_corpus.py",
            protocol=f"mert-hf evaluate, protocol {result['protocol']['name']}; {', '.join(values)}",
        )

    return tuple(measure(result) for result in own)


@torch.no_grad()
def average(model: PreTrainedModel, earlier: str, share: float) -> PreTrainedModel:
    """The model with a share of its encoder's weights and the rest of the earlier ones; its heads stay as they are.

    The mean of two ends of fine-tuning is often better than either (Wortsman et al. 2022, arXiv 2203.05482).
    """
    before = AutoModelForPreTraining.from_pretrained(earlier).state_dict()
    for name, weight in model.state_dict().items():
        if name.startswith(f"{model.base_model_prefix}.") and weight.is_floating_point():
            weight.lerp_(before[name].to(weight), 1.0 - share)
    return model


def cut_head(model: PreTrainedModel, bins: int) -> PreTrainedModel:
    """The model without the values of further musical teachers, which are not kept; those of the first stay."""
    head = torch.nn.Linear(model.cqt_head.in_features, bins)
    head.load_state_dict({name: values[:bins] for name, values in model.cqt_head.state_dict().items()})
    model.cqt_head = head
    model.config.cqt_bins, model.config.cqt_loss_weight = bins, LOSS_WEIGHT
    return model


def read_log(checkpoint: Path) -> list[dict]:
    """The log of a trainer, thinned out to at most `LOGGED` entries."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    entries = [entry for entry in state["log_history"] if "loss" in entry]
    every = math.ceil(len(entries) / LOGGED)
    return [
        {name: round(value, 5) if isinstance(value, float) else value for name, value in entry.items()}
        for entry in entries[every - 1 :: every]
    ]


def main() -> None:
    """Parses the command line and writes the checkpoint."""
    (arguments,) = HfArgumentParser(BundleArguments).parse_args_into_dataclasses()
    run = Path(arguments.run)
    log = read_log(Path(last_complete_checkpoint(run)))
    peak = max(entry["learning_rate"] for entry in log)
    averaged = f"; {1 - arguments.share:.0%} of the encoder is an earlier checkpoint" if arguments.earlier else ""
    facts = CardFacts(
        model_name=arguments.name,
        data=DATA,
        hours=arguments.hours,
        teachers=(
            "k-means codes of the teacher next to this card",
            "regression of log constant-Q, MFCC, chroma and tempogram",
            "regression of 96 principal components of Basic Pitch (Apache-2.0) in the last run",
        ),
        training={
            "Updates": f"{HISTORY}, and {log[-1]['step']:,} more in two views, of 12 x 6 s (the last 8 x 6 s), "
            f"AdamW, last peak rate {peak:g}, bfloat16{averaged}",
            "Noise mixture": "probability 0.5",
            "Masks": "spans of 320 ms on the mel spectrum, probability 0.45 (last run: 0.42)",
        },
        measurements=measurements(arguments.results),
        license="apache-2.0",
        license_note=LICENSE_NOTE,
        limits=LIMITS,
    )
    model = AutoModelForPreTraining.from_pretrained(run)
    if arguments.earlier is not None:
        model = average(model, arguments.earlier, arguments.share)
    teachers = {"acoustic": load_teacher(arguments.acoustic), "musical": load_teacher(arguments.musical)}
    model = cut_head(model, teachers["musical"].num_bins)
    output = Path(arguments.output) / arguments.name
    folder = save_checkpoint(model.to(torch.float16), MERTFeatureExtractor(do_normalize=False), output, facts, teachers)
    for code in [*folder.glob("*.py"), folder / "LICENSE"]:
        code.unlink(missing_ok=True)  # the package itself holds them
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"dtype": "float32"}  # half precision is for the size of the package; models compute in float32
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "training_log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    loss_figure(log).savefig(arguments.curve, dpi=100)
    print(folder)


if __name__ == "__main__":
    main()
