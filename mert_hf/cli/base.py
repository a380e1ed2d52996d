"""Shared by all commands: errors without a traceback, an example at the end of the help."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .options import with_options

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
            if not is_user_error(error) or ctx.find_root().meta.get(DEBUG):
                raise
            typer.echo(f"mert-hf: error: {message_of(error)}", err=True)
            raise typer.Exit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1) from error


def is_user_error(error: BaseException) -> bool:
    """Whether the message of an error is all that a user needs; a traceback is for errors of the program."""
    ours = type(error).__module__.startswith("mert_hf.")
    return ours or isinstance(error, (ValueError, OSError, ImportError, KeyboardInterrupt))


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
    """The words without `--debug`, which is noted in the context.

    Args:
        ctx: the context of the command.
        words: its command line.
        with_value: leave a `--debug VALUE` in place: transformers' TrainingArguments have a field of that name.
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


def command(app: typer.Typer, example: str, name: str | None = None, **settings: Any) -> Callable:
    """Decorator that registers a command whose help ends with an example.

    Args:
        app: the group of the command.
        example: one command line that works, given the files that it names.
        name: name of the command; that of the function if None.
        settings: as for `typer.Typer.command`.
    """
    kind = settings.pop("cls", Command)
    register = app.command(name, cls=kind, epilog=f"Example:\n\n\b\n  {example}", **settings)
    return lambda function: register(with_options(function))


def show_log(quiet: bool) -> None:
    """Prints the package's log to stderr: progress as well, or with `quiet` warnings only."""
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
