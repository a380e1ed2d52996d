"""JSON objects in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .text import one_line


def read_json(path: Path, error_class: type[ValueError] = ValueError) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file, in UTF-8.
        error_class: the class of the errors.

    Raises:
        ValueError: of `error_class`, if the file is missing, is not valid JSON or does not hold an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error_class(f"{path} is missing. Check the name of the folder.") from None
    except (ValueError, RecursionError) as error:
        raise error_class(f"{path} is not valid JSON ({one_line(error)}). Write or download it again.") from error
    if not isinstance(value, dict):
        raise error_class(f"{path} must hold a JSON object, but holds a {type(value).__name__}.")
    return value
