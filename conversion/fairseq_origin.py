"""The record that a converted folder keeps of its fairseq origin, so that an export gives every tensor back.

`fairseq_config.json` holds settings and number formats; `fairseq_constants.safetensors.gz` the tensors that are not
part of our model, such as CQT kernels, which are nearly all zero. fairseq's strict loading needs them.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import safetensors.torch
import torch

from ..utils.files import read_json
from .errors import CheckpointError
from .fairseq_config import FairseqSettings, recorded_sections
from .fairseq_keys import HEADS

SETTINGS_FILE = "fairseq_config.json"
CONSTANTS_FILE = "fairseq_constants.safetensors.gz"


def write_record(
    folder: Path, settings: FairseqSettings, tensors: dict[str, torch.Tensor], dropped: dict[str, str]
) -> None:
    """Writes what an export needs in addition to our model."""
    kept = [name for name in dropped if not name.startswith(HEADS)]
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    record = {
        "cfg": recorded_sections(settings),
        "dtypes": {name: dtype for name, dtype in dtypes.items() if name not in dropped and dtype != "float32"},
        "split_projections": "final_projs.0.weight" in tensors,
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if kept:
        raw = safetensors.torch.save(
            {name: tensors[name].clone(memory_format=torch.contiguous_format) for name in kept}
        )
        with gzip.GzipFile(folder / CONSTANTS_FILE, "wb", compresslevel=1, mtime=0) as file:
            file.write(raw)


def read_record(model_dir: Path) -> dict:
    """The content of `write_record`: "cfg", "dtypes", "split_projections"; empty for a model that was made here.

    Raises:
        CheckpointError: the file was damaged since.
    """
    path = model_dir / SETTINGS_FILE
    return read_json(path, CheckpointError) if path.is_file() else {}


def recorded_normalize(model_dir: Path) -> bool | None:
    """Whether the original was trained on normalized waveforms; None where nothing was recorded.

    Raises:
        CheckpointError: the record was damaged since.
    """
    value = read_record(model_dir)
    for key in ("cfg", "task", "normalize"):
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else bool(value)


def read_constants(model_dir: Path) -> dict[str, torch.Tensor]:
    """The recorded tensors that are not part of our model; empty where none were recorded."""
    path = model_dir / CONSTANTS_FILE
    if not path.is_file():
        return {}
    with gzip.open(path) as file:
        return safetensors.torch.load(file.read())
