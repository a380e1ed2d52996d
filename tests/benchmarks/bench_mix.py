"""What the rules of a mix change: hubs, repeated artists and recordings, albums, and copies of a query.

    python tests/benchmarks/bench_mix.py MUSIC --output WORK [--parts 3] [--model mert2-nano]

Parts of 50 s of recordings, and a copy of each (other formats, bit rates and loudness, cuts or silence at the ends, see
bench_duplicates.py), are indexed together. Files whose names begin alike up to the first `__`, or else whose folder is
the same, are of one artist, and so are tagged. Every original is a query for ten recordings. First table: skewness of
the number of lists in which a recording is, the most frequent recording, shares of results that are of the query's own
recording (its copy), of recordings that are twice in a list, and of the query's artist, and the mean average precision
of other recordings of the artist in the full ranking of originals. Second table: every copy is a query; how often its
original is first, and the time of a search.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import mutagen
import numpy as np
from bench_duplicates import make_set, recording_of
from bench_retrieval import album_of

from mert_hf.audio import find_audio_files
from mert_hf.search import Match, MixRules, MusicIndex
from mert_hf.utils.text import markdown_table

TOP = 10
ORIGINALS = "path LIKE '%.original.%'"
RULES = {
    "cosine only": MixRules(hub_correction=False),
    "corrected for hubs (default)": MixRules(),
    "distinct": MixRules(distinct=True),
    "distinct, 2 of an artist": MixRules(distinct=True, per_artist=2),
}


def piece_of(path: str) -> str:
    """The recording of which the file is a part."""
    return recording_of(path).split("-")[0]


def make(music: str, folder: Path, parts: int) -> None:
    """Writes the set, with the artist in the tags of all formats."""
    folder.mkdir(parents=True)
    make_set(music, folder, parts, 1)
    sources = find_audio_files(music)
    for path in find_audio_files([folder]):
        file = mutagen.File(path, easy=True)
        if file.tags is None:
            file.add_tags()
        file["artist"] = album_of(sources[int(piece_of(path))])
        file.save()


def skewness(counts: np.ndarray) -> float:
    return float(((counts - counts.mean()) ** 3).mean() / counts.std() ** 3)


def average_precision(query: str, artist: str, matches: list[Match]) -> float | None:
    """Of parts of other recordings of the artist, among all parts of other recordings."""
    hits = np.array([match.artist == artist for match in matches if piece_of(match.path) != piece_of(query)])
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()) if hits.any() else None


def describe(index: MusicIndex, queries: dict[str, str], rules: MixRules) -> list[str]:
    counts, own, repeated, artists, precisions = Counter(), 0, 0, 0, []
    ranking = MixRules(hub_correction=rules.hub_correction)
    for query, artist in queries.items():
        matches = [match for match in index.search(query, TOP + 1, rules=rules) if match.path != query][:TOP]
        names = [recording_of(match.path) for match in matches]
        counts.update(match.path for match in matches)
        own += recording_of(query) in names
        repeated += len(names) - len(set(names))
        artists += sum(match.artist == artist for match in matches)
        precisions.append(
            average_precision(query, artist, index.search(query, len(queries), None, False, ORIGINALS, ranking))
        )
    occurrences, shown = np.array([counts[path] for path in index.paths()]), sum(counts.values())
    shares = [f"{100 * value / shown:.1f} %" for value in (own, repeated, artists)]
    precision = np.mean([value for value in precisions if value is not None])
    return [f"{skewness(occurrences):.2f}", str(occurrences.max()), *shares, f"{precision:.3f}"]


def originals_first(index: MusicIndex, copies: list[str]) -> list[list[str]]:
    by_vector, by_rules, told, times = 0, 0, 0, []
    for copy in copies:
        started = time.perf_counter()
        matches = index.search(copy, TOP, where=ORIGINALS)
        times.append(time.perf_counter() - started)
        nearest = index.search(copy, TOP, where=ORIGINALS, rules=MixRules(hub_correction=False))
        by_vector += recording_of(max(nearest, key=lambda match: match.similarity).path) == recording_of(copy)
        by_rules += recording_of(matches[0].path) == recording_of(copy)
        told += any(match.same_recording and recording_of(match.path) != recording_of(copy) for match in matches)
    shares = [f"{100 * value / len(copies):.1f} %" for value in (by_vector, by_rules, told)]
    return [[str(len(copies)), *shares, f"{1e3 * float(np.median(times)):.0f} ms"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", help="Folder or glob of recordings.")
    parser.add_argument("--output", required=True, type=Path, help="Folder for the set and its index; made if missing.")
    parser.add_argument("--parts", type=int, default=3, help="Parts of a recording.")
    parser.add_argument("--model", default="mert2-nano", help="Hub id, folder, or name of a bundled checkpoint.")
    arguments = parser.parse_args()
    if not (arguments.output / "music").exists():
        make(arguments.music, arguments.output / "music", arguments.parts)
    MusicIndex.update([arguments.output / "music"], arguments.output / "index", arguments.model)
    index = MusicIndex(arguments.output / "index")
    columns = index._table.columns(["path", "artist"]).to_pydict()
    artists = dict(zip(columns["path"], columns["artist"], strict=True))
    queries = {path: artist for path, artist in artists.items() if ".original." in path}
    header = ["rules", "skewness", "most", "own recording", "repeated", "same artist", "mAP of artist"]
    print(markdown_table(header, [[name, *describe(index, queries, rules)] for name, rules in RULES.items()]))
    header = ["copies", "original first, by vector", "original first", "another recording taken for it", "search"]
    print(markdown_table(header, originals_first(index, sorted(set(artists) - set(queries)))))


if __name__ == "__main__":
    main()
