"""Settings of runs: YAML files and command lines into dataclasses, by one parser."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

from .text import one_line


@contextmanager
def explained_bf16_refusal(arguments: TrainingArguments) -> Iterator[None]:
    """Explains the error of transformers where bf16 is set and no GPU computes in bfloat16."""
    try:
        yield
    except ValueError as error:
        asked = arguments.bf16 or arguments.bf16_full_eval
        if not asked or arguments.use_cpu or is_torch_bf16_gpu_available():
            raise
        found = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        other = "--bf16 false --fp16 true" if torch.cuda.is_available() else "--bf16 false (float32 on the CPU)"
        raise ValueError(
            f"bf16 is set, here or in the settings file, and needs a GPU that computes in bfloat16; torch finds "
            f"{found}. Give {other}, or --use_cpu true for bfloat16 on the CPU, which is slow on most CPUs."
        ) from error


def parse_settings(name: str, value: dict | list | str | None, lists: bool = False) -> Any:
    """A mapping or None as it is, or YAML or JSON text of one; with `lists` a list of mappings too; else ValueError."""
    if isinstance(value, str):
        value = read_text(name, value)
    if lists and isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return value
    if value is not None and not isinstance(value, dict):
        kinds = "a mapping or a list of mappings" if lists else "a mapping"
        raise ValueError(f"{name} must be {kinds} in YAML or JSON, got {value!r}.")
    return value


def read_text(name: str, text: str) -> Any:
    """The value of JSON text, else of YAML text, whose numbers need a point before an exponent; else ValueError."""
    with suppress(json.JSONDecodeError):
        return json.loads(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} must be a mapping in YAML or JSON, got {text!r}: {one_line(error)}.") from error


class SettingsParser(HfArgumentParser):
    """HfArgumentParser whose errors are ValueErrors instead of an exit with a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message[:1].upper()}{message[1:]}.")


def parse_dataclasses(kinds: Iterable[type], arguments: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Parses a command line into dataclasses: optionally a YAML file first, then `--name value`, which override it.

    A mapping is merged with that of the file as a file's is with that of its base, see `read_settings`. Raises
    ValueError where an argument is unknown, and as `read_settings` does.

    Args:
        kinds: dataclasses of arguments, as HfArgumentParser takes them.
        arguments: such as ["mert-nano.yaml", "--train_data", "music", "--max_steps", "9"]; sys.argv[1:] if None.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and not arguments[0].startswith("-"):
        settings = read_settings(arguments[0])
        arguments = as_options(settings) + _with_mappings_of(settings, arguments[1:])
    parser = SettingsParser(tuple(kinds))
    *parsed, unknown = parser.parse_args_into_dataclasses(
        arguments, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        near = get_close_matches(unknown[0], known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "--help lists all settings."
        raise ValueError(f"There is no setting {unknown[0]}. {hint}")
    return tuple(parsed)


def read_settings(path: str | Path) -> dict[str, Any]:
    """The mapping of a YAML file, read safely.

    A file may start from another one: `base` is its path, relative to the file. Values replace those of the base, and
    mappings such as `model_config` are merged with them, unless they have another `type` or `model_type`. Raises
    ValueError where the file is missing, is not YAML, or does not hold a mapping.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no settings file {path}; the first argument is a YAML file or an option (--name).")
    try:
        with open(path, encoding="utf-8") as file:
            settings = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {one_line(error)}. Correct it.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold `name: value` lines, got {type(settings).__name__}.")
    if (base := settings.pop("base", None)) is None:
        return settings
    merged = read_settings(Path(path).parent / str(base))
    return merged | {name: merged_value(merged.get(name), value) for name, value in settings.items()}


def merged_value(base: Any, value: Any) -> Any:
    """The value; of two mappings their union, unless the second one names another `type` or `model_type`."""
    if not isinstance(value, dict) or not isinstance(base, dict):
        return value
    same = all(value.get(name, base.get(name)) == base.get(name) for name in ("type", "model_type"))
    return {**base, **value} if same else value


def _with_mappings_of(settings: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
    """The options of a command line, with their mappings merged with those of a file."""
    result: list[str] = []
    for argument in arguments:
        option, equals, text = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        name = (option or (result[-1] if result else "")).removeprefix("--").replace("-", "_")
        if isinstance(settings.get(name), dict) and (equals or not option):
            with suppress(ValueError):  # the parser of the field explains it
                value = merged_value(settings[name], read_text(name, text))
                argument = f"{option}{equals}{json.dumps(value)}"
        result.append(argument)
    return result


def as_options(settings: Mapping[str, Any]) -> list[str]:
    """Settings as command-line options, so that one parser checks both (and `5e-4`, text to YAML, is a number)."""
    options: list[str] = []
    for name, value in settings.items():
        if value is None or value == []:
            continue
        holds_mappings = isinstance(value, dict) or (isinstance(value, list) and isinstance(value[0], dict))
        values = [json.dumps(value)] if holds_mappings else value if isinstance(value, list) else [value]
        options += [f"--{name}", *(str(entry) for entry in values)]
    return options
