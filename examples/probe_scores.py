"""What encoders know of rendered scores: key, instrument family and pitch, three seeds, one probe for all.

    python examples/render_scores.py --output outputs/scores
    python examples/probe_scores.py --scores outputs/scores --models mert-nano random:mert-nano mfcc chroma

Prints a Markdown table of test accuracies, mean and sample deviation over the seeds of probe and untrained net; writes
the accuracies as JSON with --output.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Optional

from transformers import HfArgumentParser

from mert_hf.quickstart.report import probe_table, verdict
from mert_hf.quickstart.score_probes import ProbeTask, encoders_of_seed, probe_encoders
from mert_hf.quickstart.score_sets import NOTES, PROBES


@dataclass
class ProbeArguments:
    """Which encoders are probed on which sets."""

    scores: str = field(metadata={"help": "Folder of render_scores.py."})
    models: list[str] = field(
        default_factory=lambda: ["mert-nano", "random:mert-nano", "mfcc", "chroma"],
        metadata={
            "help": "Checkpoints, Hub ids, baselines; with random: before it a net untrained, drawn from each seed."
        },
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Of probes and untrained nets."})
    output: Optional[str] = field(default=None, metadata={"help": "JSON file of all accuracies."})  # noqa: UP045


def main() -> None:
    (arguments,) = HfArgumentParser(ProbeArguments).parse_args_into_dataclasses()
    scores = Path(arguments.scores)
    tasks = [
        ProbeTask("key", scores / PROBES, "key"),
        ProbeTask("instrument family", scores / PROBES, "family"),
        ProbeTask("pitch", scores / NOTES, "pitch"),
    ]
    results = probe_encoders({model: encoders_of_seed(model) for model in arguments.models}, tasks, arguments.seeds)
    if arguments.output:
        rows = {name: {task: asdict(result) for task, result in row.items()} for name, row in results.items()}
        Path(arguments.output).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(probe_table(results))
    first, *others = results
    print("\n".join(verdict(results, first, others)))


if __name__ == "__main__":
    main()
