"""JSON files of a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import CheckpointError


def read_json(path: Path) -> dict:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file is missing, or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: this is no folder of a Hub checkpoint.") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return value
