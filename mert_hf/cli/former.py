"""Former spellings of options, accepted for one release with a warning: one table of old to new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

QUIET = {"--no-progress": ["--quiet"], "--progress": []}

# Command -> former option -> present option (which takes the same value), or the words that replace a former flag.
FORMER_OPTIONS: Mapping[str, Mapping[str, str | list[str]]] = {
    "embed": {"--skip-errors": ["--max-bad-files", "100%"]},
    "label": {"--skip-errors": ["--max-bad-files", "100%"], **QUIET},
    "fit-kmeans": QUIET,
    "finetune": {
        "--data-dir": "--data",
        "--seconds": "--window",
        "--weighted-layer-sum": ["--layers", "weighted"],
        "--no-weighted-layer-sum": ["--layers", "-1"],
    },
    "evaluate": {"--data-dir": "--data", "--max-missing": "--max-bad-files", **QUIET},
    "quickstart": {"--train-data": "--data", "--bf16": ["--dtype", "bfloat16"]},
}
# Command -> option -> former value -> present value.
FORMER_VALUES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "evaluate": {"--layers": {"every": "all,weighted"}},
}
# Commands whose data was given without --data.
FORMER_POSITIONAL_DATA = ("finetune", "fit-kmeans", "label")


def present_spelling(command: str, words: Sequence[str], warn: Callable[[str], None]) -> list[str]:
    """The words of a command with each former spelling replaced.

    Args:
        command: name of the command.
        words: what follows it on the command line.
        warn: called with a sentence for each replacement.
    """
    replaced: list[str] = []
    option = ""
    for word in words:
        name, equals, value = word.partition("=")
        present = FORMER_OPTIONS.get(command, {}).get(name)
        values = FORMER_VALUES.get(command, {}).get(option if not equals else name, {})
        if present is not None:
            new = [present + equals + value] if isinstance(present, str) else list(present)
        elif (value if equals else word) in values:
            new = [name + equals + values[value]] if equals else [values[word]]
        else:
            new = [word]
        if new != [word]:
            warn(f"{word} is the former spelling of {' '.join(new) or 'the default'}; it will be removed.")
        replaced += new
        option = word
    return replaced
