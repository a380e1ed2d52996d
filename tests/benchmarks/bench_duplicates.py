"""Precision and recall of `mert-hf duplicates` on copies of real recordings, next to Chromaprint.

    python tests/benchmarks/bench_duplicates.py MUSIC --output WORK [--parts 6] [--copies 1]

MUSIC is a folder or a glob. Consecutive parts of 50 s of its recordings, the same album and loops included, are the
recordings of the set. Of each, copies are made: MP3 at 64 to 320 kbit/s, Opus, Ogg Vorbis, or FLAC at 16 to 48 kHz;
gain of -12 to +6 dB (clipped at full scale); and either up to 10 s cut off at the start and at the end, or up to 5 s of
silence added there. All are indexed together. A copy is found if it is in a group with its original. A group with parts
of two recordings is false. The threshold is also chosen on half of the recordings and tried on the other half.
Chromaprint (`fpcalc`) is compared on the same candidates by the same alignment.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import soxr

from mert_hf.audio import AudioReadError, find_audio_files, read_audio
from mert_hf.search import MusicIndex, duplicates, fingerprint
from mert_hf.utils.text import markdown_table

RATE, SECONDS = 24000, 50.0
MP3_RATES = (64, 96, 128, 192, 256, 320)
THRESHOLDS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
GRID = np.arange(14, 27) / 100


def write(path: Path, samples: np.ndarray, rate: int, subtype: str, level: float | None = None) -> None:
    """Writes in blocks, since libsndfile crashes on a long Vorbis or Opus block."""
    format = {"MPEG_LAYER_III": "MP3", "OPUS": "OGG", "VORBIS": "OGG"}.get(subtype, "FLAC")
    options = {} if level is None else {"compression_level": level}
    if subtype == "MPEG_LAYER_III":
        options["bitrate_mode"] = "CONSTANT"
    with soundfile.SoundFile(path, "w", rate, 1, subtype, format=format, **options) as file:
        for start in range(0, len(samples), 4096):
            file.write(samples[start : start + 4096])


def change(samples: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Gain, and a cut or silence at both ends."""
    samples = samples * 10 ** (draws.uniform(-12, 6) / 20)
    if draws.random() < 0.7:
        begin, end = (round(seconds * RATE) for seconds in draws.uniform(0, 10, 2))
        samples = samples[begin : len(samples) - end]
    else:
        samples = np.pad(samples, [round(seconds * RATE) for seconds in draws.uniform(0, 5, 2)])
    return np.clip(samples, -1, 1).astype(np.float32)


def write_copy(path: Path, samples: np.ndarray, draws: np.random.Generator) -> None:
    """A copy in a random format; its name says which."""
    kind = draws.choice(["mp3", "mp3", "mp3", "opus", "ogg", "flac"])
    samples = change(samples, draws)
    if kind == "mp3":
        kilobits = int(draws.choice(MP3_RATES))
        samples = soxr.resample(samples, RATE, 44100)
        write(
            path.with_name(f"{path.name}.mp3-{kilobits}.mp3"), samples, 44100, "MPEG_LAYER_III", (320 - kilobits) / 288
        )
    elif kind == "opus":
        write(
            path.with_name(f"{path.name}.opus"),
            soxr.resample(samples, RATE, 48000),
            48000,
            "OPUS",
            draws.uniform(0.3, 0.9),
        )
    elif kind == "ogg":
        write(
            path.with_name(f"{path.name}.ogg"),
            soxr.resample(samples, RATE, 44100),
            44100,
            "VORBIS",
            draws.uniform(0.1, 1),
        )
    else:
        rate = int(draws.choice([16000, 22050, 44100, 48000]))
        write(path.with_name(f"{path.name}.rate-{rate}.flac"), soxr.resample(samples, RATE, rate), rate, "PCM_16")


def make_set(music: str, folder: Path, parts: int | None, copies: int) -> None:
    """Writes `NUMBER-PART.original.flac` and `NUMBER-PART.copyK....` for the first parts of each recording."""
    for number, path in enumerate(find_audio_files(music)):
        try:
            samples = read_audio(path, RATE)
        except AudioReadError as error:
            print(error)
            continue
        size = round(SECONDS * RATE)
        for part in range(len(samples) // size)[:parts]:
            piece = samples[part * size : (part + 1) * size]
            if np.square(piece).mean() < 1e-5:
                continue
            draws = np.random.default_rng((number, part))
            write(folder / f"{number:03d}-{part:02d}.original.flac", piece, RATE, "PCM_16")
            for copy in range(copies):
                write_copy(folder / f"{number:03d}-{part:02d}.copy{copy}", piece, draws)


def recording_of(path: str) -> str:
    return Path(path).name.split(".")[0]


def score(groups: list[list[str]], paths: list[str]) -> tuple[float, int]:
    """Share of the copies that are grouped with their original, and the number of groups with two recordings."""
    of_path = {path: index for index, group in enumerate(groups) for path in group}
    originals = {recording_of(path): path for path in paths if ".original." in path}
    copies = [path for path in paths if ".original." not in path]
    found = [path in of_path and of_path[path] == of_path.get(originals[recording_of(path)], -1) for path in copies]
    return float(np.mean(found)), sum(len({recording_of(path) for path in group}) > 1 for group in groups)


def chromaprint(path: str) -> np.ndarray:
    """(frames,) uint32, about 8.08 per second."""
    command = ["fpcalc", "-raw", "-json", "-length", "0", path]
    output = subprocess.run(command, capture_output=True, text=True).stdout  # status 3 only warns of the file's end
    return np.array(json.loads(output)["fingerprint"], np.int64).astype(np.uint32)


def group(paths: list[str], agreements: dict, threshold: float) -> list[list[str]]:
    owners = np.arange(len(paths))
    for (one, other), found in agreements.items():
        if duplicates.is_same(found, threshold):
            owners[duplicates._root(owners, one)] = duplicates._root(owners, other)
    return duplicates._groups(owners, paths)


def compare(pairs: list[tuple[int, int]], codes: dict[int, np.ndarray]) -> dict:
    return {pair: fingerprint.agreement(codes[pair[0]], codes[pair[1]], 2 * duplicates.MAX_CUT) for pair in pairs}


def describe(paths: list[str], ours: dict, same: set) -> None:
    """Prints how far copies and other recordings are apart."""
    for threshold in THRESHOLDS:
        print(threshold, score(group(paths, ours, threshold), paths), flush=True)
    rates = {
        kind: [found.bit_error_rate for pair, found in ours.items() if (pair in same) == kind] for kind in (True, False)
    }
    worst = {
        kind: [found.worst_segment for pair, found in ours.items() if (pair in same) == kind] for kind in (True, False)
    }
    print("bit error rate of copies, 50 %, 95 %, 99 %:", np.percentile(rates[True], [50, 95, 99]).round(3))
    print("worst segment of copies, 50 %, 95 %, 99 %:", np.percentile(worst[True], [50, 95, 99]).round(3))
    print("bit error rate of others, 0 %, 0.1 %, 1 %, 50 %:", np.percentile(rates[False], [0, 0.1, 1, 50]).round(3))
    print("worst segment of others, 0 %, 0.1 %, 1 %:", np.percentile(worst[False], [0, 0.1, 1]).round(3))
    false = [g for g in group(paths, ours, duplicates.BIT_ERROR_RATE) if len({recording_of(path) for path in g}) > 1]
    for files in false[:10]:
        print("false group:", sorted({recording_of(path) for path in files}))


def half_of(paths: list[str], agreements: dict, half: int) -> tuple[list[str], dict]:
    """The files and pairs of every second recording of the corpus, with all of its parts."""
    kept = [row for row, path in enumerate(paths) if int(recording_of(path).split("-")[0]) % 2 == half]
    places = {row: place for place, row in enumerate(kept)}
    pairs = {pair: found for pair, found in agreements.items() if places.keys() >= set(pair)}
    return [paths[row] for row in kept], {(places[a], places[b]): found for (a, b), found in pairs.items()}


def across_halves(paths: list[str], agreements: dict) -> None:
    """Prints what the threshold with the fewest false groups and the highest recall of one half gives in the other."""
    halves = [half_of(paths, agreements, half) for half in (0, 1)]
    for (chosen_on, pairs), (tried_on, others) in (halves, halves[::-1]):
        scores = {threshold: score(group(chosen_on, pairs, threshold), chosen_on) for threshold in GRID}
        best = max(GRID, key=lambda threshold, scores=scores: (-scores[threshold][1], scores[threshold][0]))
        recall, false = score(group(tried_on, others, best), tried_on)
        print(f"chosen on {len(chosen_on)} files: threshold {best}, recall {scores[best][0]:.3f}")
        print(f"on the other {len(tried_on)} files: recall {recall:.3f}, {false} false groups")


def report(index: MusicIndex, cache: Path) -> None:
    rows = index._table.columns(["path", "fingerprint"]).to_pydict()
    paths = rows["path"]
    blocks = duplicates.candidates(index._table, 2 * duplicates.MAX_CUT)
    pairs = sorted({tuple(pair) for block in blocks for pair in block.tolist()})
    same = {
        tuple(sorted((one, other))) for one, other in pairs if recording_of(paths[one]) == recording_of(paths[other])
    }
    print(f"{len(paths)} files, {len(pairs)} candidate pairs, {len(same)} of them of one recording")
    needed = sorted({row for pair in pairs for row in pair})
    ours = compare(pairs, {row: np.frombuffer(rows["fingerprint"][row], "<u4") for row in needed})
    table = [("mert_hf", threshold, *score(group(paths, ours, threshold), paths)) for threshold in THRESHOLDS]
    describe(paths, ours, same)
    across_halves(paths, ours)
    if shutil.which("fpcalc"):
        theirs = compare(pairs, {row: chromaprint(paths[row]) for row in needed})
        table += [
            ("Chromaprint", threshold, *score(group(paths, theirs, threshold), paths)) for threshold in THRESHOLDS
        ]
    lines = [(name, threshold, f"{recall:.4f}", false) for name, threshold, recall, false in table]
    print(markdown_table(["fingerprint", "threshold", "recall of copies", "false groups"], lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", help="Folder of recordings, or a glob.")
    parser.add_argument("--output", type=Path, required=True, help="Folder for the set and its index; used again.")
    parser.add_argument("--parts", type=int, help="Parts of each recording at most; all by default.")
    parser.add_argument("--copies", type=int, default=2, help="Copies of each part.")
    arguments = parser.parse_args()
    folder = arguments.output / "set"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        make_set(arguments.music, folder, arguments.parts, arguments.copies)
    summary = MusicIndex.update([folder], arguments.output / "index", device="cpu")
    print(summary.text(arguments.output / "index"))
    report(MusicIndex(arguments.output / "index"), arguments.output)


if __name__ == "__main__":
    main()
