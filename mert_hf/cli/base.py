"""Shared by all commands: errors without a traceback, examples in the help, options from settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import reduce, wraps
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from ..utils.settings import SHARED
from ..utils.tolerance import Tolerance

DEBUG = "--debug"
INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


class Command(TyperCommand):
    """A command that accepts `--debug` in any place, and names its arguments in capitals."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for parameter in self.params:
            if parameter.param_type_name == "argument" and parameter.metavar is None:
                parameter.metavar = parameter.name.upper()

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        return super().parse_args(ctx, take_debug(ctx, args, ctx.ignore_unknown_options))


class ErrorReportingGroup(TyperGroup):
    """Reports what a command refuses in one line on stderr with exit status 1; `--debug` shows the traceback."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        command = next((index for index, word in enumerate(args) if not word.startswith("-")), len(args))
        return super().parse_args(ctx, take_debug(ctx, args[:command]) + args[command:])

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            ours = type(error).__module__.startswith("mert_hf.")  # a traceback is for errors of the program
            for_users = ours or isinstance(error, (ValueError, OSError, ImportError, KeyboardInterrupt))
            if not for_users or ctx.find_root().meta.get(DEBUG):
                raise
            typer.echo(f"mert-hf: error: {message_of(error)}", err=True)
            raise typer.Exit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1) from error


def message_of(error: BaseException) -> str:
    """The message of an error; those of the operating system become sentences."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError) and error.filename is not None and str(error).startswith("[Errno"):
        return f"{error.filename}: {error.strerror}. Check the path and its permissions."
    if hasattr(error, "remedy"):  # of AudioReadError, whose text is also an entry of lists
        return f"{error}."
    return str(error)


def take_debug(ctx, words: list[str], with_value: bool = False) -> list[str]:
    """The words of a command line without `--debug`, which is noted in the context.

    With `with_value`, a `--debug VALUE` stays in place: transformers' TrainingArguments have a field of that name.
    """
    kept = []
    for index, word in enumerate(words):
        value = words[index + 1] if index + 1 < len(words) else "-"
        if word == DEBUG and not (with_value and not value.startswith("-")):
            ctx.find_root().meta[DEBUG] = True
        else:
            kept.append(word)
    return kept


def new_app(**settings: Any) -> typer.Typer:
    """A group of commands; help is printed as plain text."""
    return typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, **settings)


app = new_app(
    cls=ErrorReportingGroup,
    name="mert-hf",
    help="MERT music models: embed, index and search, pre-train, fine-tune, evaluate, convert and push. "
    "`mert-hf COMMAND --help` explains a command; `--debug` shows the traceback of an error.",
    context_settings={"max_content_width": 100},
    no_args_is_help=True,
)


def command(example: str, name: str | None = None, group: typer.Typer = app, **settings: Any) -> Callable:
    """Decorator that registers a command whose help ends with an example: one command line that works.

    The name is that of the function if None; settings are as for `typer.Typer.command`.
    """
    kind = settings.pop("cls", Command)
    register = group.command(name, cls=kind, epilog=f"Example:\n\n\b\n  {example}", **settings)
    return lambda function: register(with_options(function))


def with_options(function: Callable) -> Callable:
    """The function with an option for each field of the settings classes among its parameters.

    A parameter whose annotation is a dataclass becomes its fields with a help text, and the function is called with an
    object made of their values. All other parameters are as typer has them.
    """
    kinds: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if is_dataclass(kind := parameter.annotation):
            kinds[name], hints = kind, get_type_hints(kind)
            parameters += [_option(field, hints[field.name]) for field in _described(kind)]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def run(**values: Any) -> Any:
        if values.get("quiet"):
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()
        return function(**{name: _make(kind, values) for name, kind in kinds.items()}, **values)

    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _described(kind: type) -> list[Field]:
    """The fields that have a help text, see `mert_hf.utils.settings.described`."""
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
Split = shared_option("split", str | None)
Quiet = Annotated[bool, typer.Option("--quiet", help=SHARED["progress"]["help"])]
Recordings = Annotated[list[str], typer.Option("--data", help=SHARED["recordings"]["help"])]
TeacherFolder = Annotated[str, typer.Option("--output", help="Folder of the teacher.")]
NumCodebooks = Annotated[
    int | None, typer.Option("--num-codebooks", help="Number of codebooks of an EnCodec to use; 8 by default.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
