"""Options from settings classes, and those that commands without a settings class share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import reduce, wraps
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from ..utils.settings import SHARED
from ..utils.tolerance import Tolerance


def with_options(function: Callable) -> Callable:
    """The function with an option for each field of the settings classes among its parameters.

    A parameter whose annotation is a dataclass becomes its fields, and the function is called with an object made of
    their values. All other parameters are as typer has them.
    """
    kinds: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if is_dataclass(parameter.annotation):
            kinds[name] = parameter.annotation
            parameters += options_of(parameter.annotation)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def run(**values: Any) -> Any:
        if values.get("quiet"):
            hide_progress()
        return function(**{name: _make(kind, values) for name, kind in kinds.items()}, **values)

    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def options_of(kind: type) -> list[inspect.Parameter]:
    """An option for each field of a settings class that has a help text, see `mert_hf.utils.settings.described`."""
    hints = get_type_hints(kind)
    return [_option(field, hints[field.name]) for field in _described(kind)]


def hide_progress() -> None:
    """Hides the progress bars of transformers too."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _described(kind: type) -> list[Field]:
    return [field for field in fields(kind) if "help" in field.metadata]


def _name(field: Field) -> str:
    """The option's name: that of the field, or its first other name, as transformers' HfArgumentParser has them."""
    aliases = field.metadata.get("aliases", ())
    return aliases[0].lstrip("-") if aliases else field.metadata.get("option", field.name)


def _option(field: Field, annotation: Any) -> inspect.Parameter:
    details = dict(field.metadata)
    default = details.get("command_default", field.default)
    default = inspect.Parameter.empty if default is MISSING else default
    annotation = _option_type(annotation)
    if default == ():
        annotation, default = annotation | None, None
    if details.get("inverted"):
        default = not default
    name = _name(field)
    option = typer.Option(
        "--" + name.replace("_", "-"),  # alone: no --no-quiet
        help=details["help"].replace("%%", "%"),  # argparse's escape
        min=details.get("min"),
        metavar=details.get("metavar"),
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, option])


def _option_type(annotation: Any) -> Any:
    """The type of an option's value: text where a field takes text too, a list where it takes only several values."""
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if get_origin(member) not in (tuple, Sequence)]
        if str in members:
            return str | None if type(None) in members else str
        return reduce(or_, members)
    elif get_origin(annotation) in (tuple, Sequence):
        return list[get_args(annotation)[0]]
    return annotation


def _make(kind: type, values: dict[str, Any]) -> Any:
    """A settings object from the values of its options, which are taken out of `values`."""
    given = {}
    for field in _described(kind):
        value = values.pop(_name(field))
        if isinstance(value, list) or field.default == ():
            value = tuple(value or ())
        given[field.name] = not value if field.metadata.get("inverted") else value
    return kind(**given)


def shared_option(word: str, annotation: Any, **details: Any) -> Any:
    """One of the words that mean the same in every command, for the signature of a command."""
    details |= {**SHARED[word], "help": SHARED[word]["help"].replace("%%", "%")}
    return Annotated[annotation, typer.Option("--" + word.replace("_", "-"), **details)]


Paths = Annotated[list[str], typer.Argument(help="Files, folders (searched with their subfolders) and glob patterns.")]
Model = shared_option("model", str)
Layers = shared_option("layers", str)
Device = shared_option("device", str | None)
MaxBadFiles = shared_option("max_bad_files", str, callback=Tolerance.parse)  # refused before any work
Workers = shared_option("workers", int)
DType = shared_option("dtype", str)
Seed = shared_option("seed", int)
Split = shared_option("split", str | None)
Quiet = Annotated[bool, typer.Option("--quiet", help=SHARED["progress"]["help"])]
Recordings = Annotated[list[str], typer.Option("--data", help=SHARED["recordings"]["help"])]
TeacherFolder = Annotated[str, typer.Option("--output", help="Folder of the teacher.")]
NumCodebooks = Annotated[
    int | None, typer.Option("--num-codebooks", help="Number of codebooks of an EnCodec to use; 8 by default.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
