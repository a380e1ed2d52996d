"""Features of encoders on rendered scores: key, instrument family and pitch, by `mert_hf.evaluation`.

python examples/render_scores.py --output scores --num_scores 400 --pretraining 8 --probes 640 --notes 960
python examples/probe_scores.py --scores scores --output results
mert-hf report results/*.json --output report
"""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from mert_hf.evaluation import EvaluationSettings, evaluate
from mert_hf.evaluation.reports.report import summary_lines
from mert_hf.quickstart.excerpts import NOTES, PROBES

TASKS = {"key": (PROBES, "key"), "family": (PROBES, "classification"), "pitch": (NOTES, "classification")}


@dataclass
class ProbeArguments:
    """Which encoders are evaluated on which sets."""

    scores: str = field(metadata={"help": "Folder of render_scores.py."})
    output: str = field(metadata={"help": "Folder of the results, one file for each task and model."})
    models: list[str] = field(
        default_factory=lambda: ["mert2-nano", "random:mert2-nano", "mfcc", "chroma", "mel", "handmade"],
        metadata={"help": "As mert-hf evaluate --model takes them."},
    )
    protocol: str = field(default="strict", metadata={"help": "strict, marble-v1 or marble-v2."})
    max_epochs: int = field(default=100, metadata={"help": "Maximum number of passes over the training recordings."})


def main() -> None:
    (arguments,) = HfArgumentParser(ProbeArguments).parse_args_into_dataclasses()
    settings = EvaluationSettings(
        learning_rates=(1e-3, 5e-3), protocol=arguments.protocol, max_epochs=arguments.max_epochs
    )
    for target, (folder, kind) in TASKS.items():
        for model in arguments.models:
            output = Path(arguments.output) / f"{target}-{model.replace(':', '-').replace('/', '-')}.json"
            data = Path(arguments.scores) / folder
            results = evaluate("audiofolder", data, model, output, settings, target=target, kind=kind)
            print("\n".join(summary_lines(results)))


if __name__ == "__main__":
    main()
