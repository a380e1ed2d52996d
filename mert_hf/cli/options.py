"""Options that several commands share: the same word means the same everywhere. Lengths are in seconds."""

from __future__ import annotations

from typing import Annotated

import typer


def hide_progress(quiet: bool) -> bool:
    """Hides the progress bars of transformers too."""
    if quiet:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    return quiet


Recordings = Annotated[
    list[str], typer.Option("--data", help="File or folder of recordings, with or without metadata.csv; repeatable.")
]
LabelledData = Annotated[
    str,
    typer.Option(
        "--data",
        help="Folder with metadata.csv (file_name, targets, optionally split, group), archive of a task, or data set "
        "of the datasets library: a folder, or owner/name[:config].",
    ),
]
Paths = Annotated[list[str], typer.Argument(help="Files, folders (searched with their subfolders) and glob patterns.")]
Model = Annotated[str, typer.Option("--model", help="Hub id, folder, or name of a bundled checkpoint.")]
Layers = Annotated[
    str, typer.Option("--layers", help="all (each layer), or layers such as 7 or 5,7,9. 0 is the input, -1 the last.")
]
Target = Annotated[str, typer.Option("--target", help="Target column; several separated by commas.")]
Kind = Annotated[
    str,
    typer.Option(
        "--kind", help="Kind of the target: classification, multilabel, regression, key, beats, chords or structure."
    ),
]
Split = Annotated[
    str | None, typer.Option("--split", help="Use only the rows of metadata.csv with this split; all by default.")
]
Window = Annotated[float, typer.Option("--window", help="Seconds of audio that the model sees at a time.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Clips that the model computes at a time.")]
Workers = Annotated[int, typer.Option("--workers", help="Number of recordings that are read in parallel.")]
Device = Annotated[
    str | None, typer.Option("--device", help="Device such as cpu, cuda or cuda:1; a GPU if there is one by default.")
]
DType = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="Precision: auto, float32, bfloat16 or float16. auto is bfloat16 where the device computes in it natively "
        "and correctly, else float32.",
    ),
]
TrainingDevice = Annotated[str | None, typer.Option("--device", help="cpu or cuda; a GPU if there is one by default.")]
TrainingDType = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="Precision: auto (bfloat16 on a GPU that computes in it, else float32), float32, bfloat16 or float16.",
    ),
]
StudentRate = Annotated[int, typer.Option("--sampling-rate", help="Sampling rate of the model to pre-train in Hz.")]
StudentHop = Annotated[int, typer.Option("--hop-length", help="Samples between two frames of the model.")]
MaxMinutes = Annotated[float, typer.Option("--max-minutes", help="Maximum number of minutes of audio to use.")]
TeacherFolder = Annotated[str, typer.Option("--output", help="Folder of the teacher.")]
NumCodebooks = Annotated[
    int | None, typer.Option("--num-codebooks", help="Number of codebooks of an EnCodec to use; 8 by default.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all random choices.")]
MaxBadFiles = Annotated[
    str,
    typer.Option(
        "--max-bad-files",
        metavar="N|P%",
        help="Unreadable recordings tolerated before the run fails: a number such as 3, or a share such as 1%.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", callback=hide_progress, help="Print results, warnings and errors only, no progress."),
]
