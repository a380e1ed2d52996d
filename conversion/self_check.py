"""The numerical check that ends every conversion, and the report it writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import init_empty_weights
from safetensors import safe_open

from .checkpoint_file import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

OUTPUT_TOLERANCE = 1e-5  # of the outputs' scale: the same weights and code, but memory may be laid out differently
SCALE_BOUNDS = (1e-6, 1e6)  # standard deviation of the outputs; beyond them the weights were misread


@dataclass(frozen=True)
class ConversionReport:
    """The outcome of a conversion.

    Args:
        source, output: the paths.
        mapped: tensors of the source that were converted.
        dropped: name of what was left out -> reason.
        added: name of a weight of ours that the source has no tensor for -> reason.
        largest_difference: largest absolute difference between the outputs of the converted and the reloaded model, or
            between the tensors where no model was run. The tensors themselves must be equal.
        output_scale: standard deviation of the reloaded model's output on a fixed input; None where no model was run.
        num_parameters: parameters of the converted model.
    """

    source: str
    output: str
    mapped: int
    dropped: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    largest_difference: float = 0.0
    output_scale: float | None = None
    num_parameters: int = 0

    def __str__(self) -> str:
        """The report as a table for a terminal."""
        rows = [
            ("source", self.source),
            ("output", self.output),
            ("tensors mapped", str(self.mapped)),
            *(("dropped", f"{name}: {reason}") for name, reason in _grouped(self.dropped)),
            *(("added", f"{name}: {reason}") for name, reason in _grouped(self.added)),
            ("largest difference", f"{self.largest_difference:.3g}"),
            ("output scale", "no model was run" if self.output_scale is None else f"{self.output_scale:.4g}"),
            ("parameters", f"{self.num_parameters:,}"),
        ]
        return "\n".join(f"{name:<20}{value}" for name, value in rows)


def save_and_check(
    make_model: Callable[[], PreTrainedModel],
    save: Callable[[PreTrainedModel], object],
    run: Callable[[PreTrainedModel], torch.Tensor],
    folder: Path,
) -> dict[str, float]:
    """Saves a converted model, and proves that what was saved is what was converted.

    The tensors in memory are compared with those in the file, and the outputs of the model in memory, by `run` on an
    input that is always the same, with those of the reloaded one. There are never two models in memory.

    Returns:
        `largest_difference`, `output_scale` and `num_parameters` of the `ConversionReport`.

    Raises:
        CheckpointError: a difference, or an output that is not finite or far from any sensible scale.
    """
    model = make_model().eval()
    model_class, num_parameters = type(model), model.num_parameters()
    with torch.inference_mode():
        expected = run(model)
    scale = _checked_scale(expected)
    save(model)
    require_equal(saved_pairs(model.state_dict(), folder))
    del model
    reloaded = model_class.from_pretrained(folder).eval()
    with torch.inference_mode():
        difference = (run(reloaded).double() - expected.double()).abs().max().item()
    if difference > OUTPUT_TOLERANCE * max(scale, 1.0):
        raise CheckpointError(f"The reloaded model's outputs differ by {difference:.3g}: the conversion is wrong.")
    return {"largest_difference": difference, "output_scale": scale, "num_parameters": num_parameters}


def empty_model(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """A model without memory for its parameters."""
    with init_empty_weights(include_buffers=False):
        return model_class(config)


def run_backbone(model: PreTrainedModel) -> torch.Tensor:
    """Last hidden state of a MERT model on the fixed signal of about a second."""
    config = model.config
    samples = max(config.sampling_rate, config.receptive_field + 8 * config.samples_per_frame)
    return model.base_model(fixed_signal(samples))[0]


def require_equal(pairs: Iterable[tuple[str, torch.Tensor, torch.Tensor]]) -> None:
    """Raises CheckpointError where a converted and a reloaded tensor, with their name in `pairs`, differ."""
    for name, converted, reloaded in pairs:
        if converted.shape != reloaded.shape or converted.dtype != reloaded.dtype:
            raise CheckpointError(f"The saved tensor {name} has another shape or type than the converted one.")
        if not torch.equal(converted, reloaded):
            difference = (converted.double() - reloaded.double()).abs().max().item()
            raise CheckpointError(f"The saved tensor {name} differs from the converted one by {difference:.3g}.")


def saved_pairs(tensors: dict[str, torch.Tensor], folder: Path) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, tensor, tensor in the safetensors files of `folder`), read one at a time; refuses other names."""
    seen: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        seen.update(names)
        for name in (name for name in names if name in tensors):
            with safe_open(path, framework="pt") as file:  # opened anew, or every page that was read stays in memory
                yield name, tensors[name], file.get_tensor(name)
    if seen != set(tensors):
        raise CheckpointError(
            f"The saved file holds other tensors than the converted model: {sorted(seen ^ set(tensors))}."
        )


def fixed_signal(num_samples: int) -> torch.Tensor:
    """The fixed input: three partials with a slow beat, (1, num_samples) float32 in [-1, 1]."""
    time = torch.arange(num_samples, dtype=torch.float64) / max(num_samples, 1)
    partials = sum(torch.sin(2 * math.pi * frequency * time) / 4 for frequency in (220.0, 331.0, 1760.5))
    return (partials * (0.75 + 0.25 * torch.cos(2 * math.pi * 3 * time))).float()[None]


def _checked_scale(outputs: torch.Tensor) -> float:
    if not torch.isfinite(outputs).all():
        raise CheckpointError("The converted model's outputs are not finite: the checkpoint's weights are damaged.")
    scale = outputs.double().std().item()
    if not SCALE_BOUNDS[0] <= scale <= SCALE_BOUNDS[1]:
        raise CheckpointError(
            f"The converted model's outputs have a standard deviation of {scale:.3g}, outside {SCALE_BOUNDS}: the "
            "checkpoint's weights are damaged or untrained."
        )
    return scale


def _grouped(reasons: dict[str, str]) -> list[tuple[str, str]]:
    """One row for each reason: a single name, or how many and the first."""
    rows = []
    for reason in dict.fromkeys(reasons.values()):
        names = [name for name in reasons if reasons[name] == reason]
        rows.append((names[0] if len(names) == 1 else f"{len(names)} ({names[0]}, ...)", reason))
    return rows
