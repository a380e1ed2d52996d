"""Compares the twin in a source tree of transformers with mert_hf's own classes, on the authors' reference numbers.

    PYTHONPATH=TREE/src:. python scripts/transformers_checks/compare_numbers.py

Prints the largest difference of each comparison as JSON. `scripts/check_transformers_model.py` runs it.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch
import transformers

import mert_hf
from mert_hf.conversion import convert_fairseq_checkpoint
from mert_hf.hub import save_checkpoint

REFERENCE = Path(__file__).resolve().parents[2] / "tests/fixtures/reference"
FAIRSEQ = ("fairseq_base", "fairseq_large")
GENERATIONS = {"MERT": "Mert", "MERT2": "Mert2"}
LABELS = {  # problem type, number of labels, labels of two clips; those of frames are random
    "single_label_classification": (3, torch.tensor([2, 0])),
    "multi_label_classification": (3, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])),
    "regression": (1, torch.tensor([0.3, -0.7])),
}


def load_expected(name: str) -> dict[str, torch.Tensor]:
    """Inputs and results of a folder of reference numbers."""
    return safetensors.torch.load(lzma.decompress((REFERENCE / name / "expected.safetensors.xz").read_bytes()))


def largest(ours, theirs) -> float:
    """Largest absolute difference of two series of tensors."""
    return max((a.float() - b.float()).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def convert(folders: list[Path]) -> None:
    """Runs the tree's conversion in one process without mert_hf, whose import registers its own classes."""
    program = """
import sys
from transformers.models.mert.convert_mert_to_hf import convert_mert_checkpoint
for folder in sys.argv[1:]:
    convert_mert_checkpoint(folder, folder + "-converted")
"""
    subprocess.run([sys.executable, "-c", program, *folders], check=True, capture_output=True)


def converted(folder: Path) -> Path:
    """Where `convert` writes a checkpoint."""
    return folder.with_name(f"{folder.name}-converted")


@torch.no_grad()
def compare_encoders(name: str, generation: str, **fields) -> float:
    """Hidden states of a reference checkpoint, with and without padding, for both kinds of attention."""
    expected, differences = load_expected(name), []
    for attention in ("eager", "sdpa"):
        fields["attn_implementation"] = attention
        ours = getattr(mert_hf, f"{generation}Model").from_pretrained(REFERENCE / name, **fields).eval()
        twin = (
            getattr(transformers, f"{GENERATIONS[generation]}Model").from_pretrained(REFERENCE / name, **fields).eval()
        )
        for mask in (None, expected["attention_mask"].long()):
            results = [model(expected["input_values"], mask, output_hidden_states=True) for model in (ours, twin)]
            valid = results[0].feature_attention_mask
            assert torch.equal(valid, results[1].feature_attention_mask.bool())
            states = ours.layer_states(results[0]), results[1].hidden_states
            differences.append(largest(*([state[valid] for state in series] for series in states)))
    return max(differences)


@torch.no_grad()
def compare_fairseq(name: str, source: Path) -> float:
    """Hidden states of a training checkpoint of fairseq, with masked frames and without."""
    expected = load_expected(name)
    ours = mert_hf.MERTModel.from_pretrained(source).eval()
    twin = transformers.MertModel.from_pretrained(converted(source)).eval()
    differences = []
    for mask in (None, expected["mask_time_indices"].bool()):
        fields = {"mask_time_indices": mask, "output_hidden_states": True}
        results = [model(expected["input_values"], **fields) for model in (ours, twin)]
        differences.append(largest(*(result.hidden_states for result in results)))
    return max(differences)


def save_head(name: str, generation: str, head: str, problem: str, source: Path) -> None:
    """Saves one of our heads on a reference checkpoint, with random weights of its own."""
    fields = {"num_labels": LABELS[problem][0], "problem_type": problem, "use_weighted_layer_sum": problem[0] == "m"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = getattr(mert_hf, f"{generation}For{head}").from_pretrained(REFERENCE / name, **fields)
    save_checkpoint(ours, mert_hf.MERTFeatureExtractor(), source)


@torch.no_grad()
def compare_head(name: str, generation: str, head: str, problem: str, source: Path) -> float:
    """Logits and loss of a head, after conversion."""
    expected, (num_labels, labels) = load_expected(name), LABELS[problem]
    inputs = {"input_values": expected["input_values"][:2], "attention_mask": expected["attention_mask"][:2].long()}
    ours = getattr(mert_hf, f"{generation}For{head}").from_pretrained(source).eval()
    twin = getattr(transformers, f"{GENERATIONS[generation]}For{head}").from_pretrained(converted(source)).eval()
    if head == "AudioFrameClassification":
        shape, draw = ours(**inputs).logits.shape, torch.Generator().manual_seed(0)
        single = problem == "single_label_classification"
        labels = torch.randint(num_labels if single else 2, shape[:2] if single else shape, generator=draw)
    results = [model(**inputs, labels=labels) for model in (ours, twin)]
    return largest(*((result.logits, result.loss) for result in results))


def compare_inputs() -> float:
    """The results of both feature extractors for two clips."""
    clips = [torch.sin(torch.arange(size) / 7).numpy() for size in (24_000, 10_000)]
    extractors = (
        mert_hf.MERTFeatureExtractor(),
        transformers.Wav2Vec2FeatureExtractor(sampling_rate=24_000, return_attention_mask=True),
    )
    options = {"sampling_rate": 24_000, "padding": True, "return_tensors": "pt"}
    return largest(*(extractor(clips, **options).values() for extractor in extractors))


def main() -> None:
    results = {"feature extractor": compare_inputs()}
    for name in ("hub_base", "hub_large"):
        for flag in (True, False):
            results[f"{name}, mask_group_norm={flag}"] = compare_encoders(name, "MERT", mask_group_norm=flag)
    results["mert2"] = compare_encoders("mert2", "MERT2")
    heads = {
        f"{generation}For{head}, {problem}": (name, generation, head, problem)
        for name, generation in (("hub_base", "MERT"), ("mert2", "MERT2"))
        for head in ("SequenceClassification", "AudioFrameClassification")
        for problem in LABELS
        if (head, problem) != ("AudioFrameClassification", "regression")
    }
    with tempfile.TemporaryDirectory() as temporary:
        sources = {key: Path(temporary) / str(number) for number, key in enumerate([*FAIRSEQ, *heads])}
        for name in FAIRSEQ:
            convert_fairseq_checkpoint(REFERENCE / name / "checkpoint.pt", sources[name])
        for key, head in heads.items():
            save_head(*head, sources[key])
        convert(list(sources.values()))
        results |= {name: compare_fairseq(name, sources[name]) for name in FAIRSEQ}
        results |= {key: compare_head(*head, sources[key]) for key, head in heads.items()}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
