"""`mert-hf doctor`: what is installed, what would go wrong, and the command that mends it.

Each check returns findings; nothing is changed, downloaded or run out of a checkpoint.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OK, WARNING, PROBLEM = "ok", "warning", "problem"
# Optional packages that are imported by transformers or by us wherever they are installed, and that often do not load.
FRAGILE_PACKAGES = {
    "torchaudio": "pip uninstall torchaudio: mert_hf does not need it; or install the build for this torch",
    "torchcodec": "pip uninstall torchcodec, or install FFmpeg and the build for this torch",
    "torchvision": "pip uninstall torchvision: mert_hf does not need it; or install the build for this torch",
}
IMPORT_SECONDS = 120
NEWEST_TRANSFORMERS = 5  # major version up to which the tests run
WHOLE_SECONDS = 60.0  # recordings up to this length are decoded whole, longer ones at both ends
END_SECONDS = 5.0
LISTED = 5  # names told of each kind of fault


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        level: "ok", "warning" (works, but not as one might expect) or "problem" (would fail).
        what: what was found, in a sentence.
        remedy: what to do about it; empty where nothing is to be done.
    """

    level: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"[{self.level}] {self.what}"
        return f"{text}\n    -> {self.remedy}" if self.remedy else text


def diagnose(model: str | os.PathLike | None = None, data: str | os.PathLike | None = None) -> list[Finding]:
    """Checks the installation, and a model and a data folder if given.

    Args:
        model: a checkpoint folder, a Hub id that was downloaded before, or a fairseq checkpoint.
        data: a folder of recordings, with or without `metadata.csv`.

    Returns:
        The findings, in the order of the checks.
    """
    findings = [*check_packages(), *check_fragile_packages(), *check_devices()]
    rate = None
    if model is not None:
        from .doctor_model import check_model

        model_findings, rate = check_model(model)
        findings += model_findings
    if data is not None:
        findings += check_data(data, rate)
    return findings


def check_packages() -> Iterator[Finding]:
    """Python and every package that mert_hf requires: installed, and in a version that it can work with."""
    from packaging.requirements import Requirement

    yield Finding(OK, f"Python {sys.version.split()[0]} on {sys.platform}")
    try:
        requirements = metadata.requires("mert_hf") or []
    except metadata.PackageNotFoundError:
        yield Finding(WARNING, "mert_hf runs from a checkout: its requirements are not known", "pip install -e .")
        return
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding(PROBLEM, f"{requirement.name} is not installed", f'pip install "{_spelled(requirement)}"')
            continue
        if requirement.specifier.contains(version, prereleases=True):
            yield from _installed(requirement.name, version)
        else:
            told = f"{requirement.name} {version} does not satisfy {requirement.specifier}"
            yield Finding(PROBLEM, told, f'pip install --upgrade "{_spelled(requirement)}"')


def check_fragile_packages() -> Iterator[Finding]:
    """Optional packages that are installed but cannot be imported; tried in a process of their own."""
    for name, remedy in FRAGILE_PACKAGES.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(OK, f"{name} is not installed and not needed")
            continue
        error = _import_error(name)
        if error is None:
            yield Finding(OK, f"{name} {version} loads")
        else:
            yield Finding(PROBLEM, f"{name} {version} is installed but cannot load: {error}", remedy)


def check_devices() -> Iterator[Finding]:
    """Accelerators that torch sees, or why it sees none."""
    import torch

    yield Finding(OK, f"CPU: torch uses {torch.get_num_threads()} of {os.cpu_count()} cores")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float16 only, use attention_relax > 0"
            memory = properties.total_memory / 2**30
            yield Finding(OK, f"cuda:{index}: {properties.name}, {memory:.0f} GiB, {precision}")
    elif torch.version.cuda or torch.version.hip:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        remedy = "look at `nvidia-smi` or `rocm-smi`: the driver may be missing or too old for this build"
        yield Finding(WARNING, f"torch is built for {build} but finds no GPU: everything runs on the CPU", remedy)
    if torch.backends.mps.is_available():
        yield Finding(OK, "mps: Apple GPU")


def check_data(folder: str | os.PathLike, model_rate: int | None = None) -> list[Finding]:
    """Checks the recordings of a folder and, if there is one, its `metadata.csv`.

    Args:
        folder: searched with its subfolders.
        model_rate: the model's sampling rate in Hz; None leaves the comparison out.
    """
    from .audio import find_audio_files
    from .audio.metadata import METADATA_FILE

    folder = Path(folder)
    if not folder.is_dir():
        return [Finding(PROBLEM, f"{folder} is no folder", "give the folder that holds the recordings")]
    try:
        files = find_audio_files(folder)
    except ValueError as error:
        return [Finding(PROBLEM, str(error), "give the folder that holds the recordings")]
    findings = [*_check_recordings(files, model_rate)]
    return findings + (_check_metadata(folder, files) if (folder / METADATA_FILE).is_file() else [])


def _check_recordings(files: list[Path], model_rate: int | None) -> Iterator[Finding]:
    from .audio import AudioReadError

    rates: Counter[int] = Counter()
    silent, short, seconds = [], [], 0.0
    for path in files:
        try:
            info, peak = _listen(path)
        except AudioReadError as error:
            yield Finding(PROBLEM, f"{error.path}: {error.problem}", error.remedy)
            continue
        rates[info.sampling_rate] += 1
        seconds += info.duration
        silent += [path] if peak == 0 else []
        short += [path] if info.duration < 1 else []
    told = ", ".join(f"{count} at {rate} Hz" for rate, count in sorted(rates.items()))
    read = f"{sum(rates.values())} of {len(files)} recordings can be read, {seconds / 3600:.2f} hours: {told or 'none'}"
    yield Finding(OK, f"{read} (recordings over {WHOLE_SECONDS:g} s were decoded at both ends only)")
    yield from _tell(silent, "silent", "leave them out: they teach nothing, and normalisation blows up their noise")
    yield from _tell(short, "shorter than 1 s", "leave them out, or pad them: the evaluation drops them")
    low = sum(count for rate, count in rates.items() if model_rate and rate < model_rate)
    if low:
        remedy = "nothing mends it; look for better copies, or expect worse results on them"
        yield Finding(
            WARNING, f"{low} recordings are below the model's {model_rate} Hz: they lack its high range", remedy
        )


def _listen(path: Path):
    """(header, peak of the parts that were decoded). Raises AudioReadError where the recording cannot be decoded."""
    import numpy as np

    from .audio import audio_info, stream_audio

    info = audio_info(path)
    whole = info.duration <= WHOLE_SECONDS
    parts = [(0.0, None)] if whole else [(0.0, END_SECONDS), (info.duration - END_SECONDS, None)]
    peak = 0.0
    for offset, duration in parts:
        for block in stream_audio(path, info.sampling_rate, offset, duration):
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
    return info, peak


def _check_metadata(folder: Path, files: list[Path]) -> list[Finding]:
    from .audio.metadata import METADATA_FILE, read_metadata

    try:
        entries = read_metadata(folder)
    except (ValueError, OSError) as error:
        return [Finding(PROBLEM, str(error), f"correct {folder / METADATA_FILE}")]
    columns = list(entries[0][1])
    findings = [Finding(OK, f"{METADATA_FILE} lists {len(entries)} recordings with the columns {', '.join(columns)}")]
    listed = {path.resolve() for path, _ in entries}
    unlisted = [path for path in files if path.resolve() not in listed]
    remedy = f"add them to {METADATA_FILE}, or leave them: tasks with labels do not see them"
    findings += _tell(unlisted, f"not in {METADATA_FILE}", remedy)
    for column in columns:
        empty = [path for path, row in entries if not row[column]]
        findings += _tell(empty, f"without a value in the column {column!r}", "fill the column, or remove the rows")
    if "split" in columns:
        counts = Counter(row["split"] for _, row in entries)
        findings.append(Finding(OK, f"splits: {', '.join(f'{name} {count}' for name, count in counts.items())}"))
    return findings


def _tell(paths: list[Path], fault: str, remedy: str) -> Iterator[Finding]:
    if paths:
        names = ", ".join(str(path) for path in paths[:LISTED]) + (", ..." if len(paths) > LISTED else "")
        yield Finding(WARNING, f"{len(paths)} recordings are {fault}: {names}", remedy)


def _installed(name: str, version: str) -> Iterator[Finding]:
    yield Finding(OK, f"{name} {version}")
    if name == "transformers" and int(version.split(".")[0]) > NEWEST_TRANSFORMERS:
        remedy = f'if something fails: pip install "transformers<{NEWEST_TRANSFORMERS + 1}"'
        yield Finding(WARNING, f"transformers {version} is newer than the versions that mert_hf is tested with", remedy)


def _spelled(requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _import_error(name: str) -> str | None:
    """The last line of what the import of a package says in a new process; None where it succeeds."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], capture_output=True, text=True, timeout=IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"its import takes more than {IMPORT_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"its import ends the process with status {done.returncode}"


def has_problem(findings: Iterable[Finding]) -> bool:
    """Whether anything would fail: the exit status of `mert-hf doctor`."""
    return any(finding.level == PROBLEM for finding in findings)
