"""What the rules of a mix change: hubs, repeated artists and recordings, albums, and copies of a query.

    python tests/benchmarks/bench_mix.py MUSIC --output WORK [--parts 3] [--queries 300] [--model mert2-nano]

Parts of 50 s of recordings, and a copy of each (other formats, bit rates and loudness, cuts or silence at the ends, see
bench_duplicates.py), are indexed together. Files whose names begin alike up to the first `__`, or else whose folder is
the same, are of one artist, and so are tagged.

First table, over all originals: skewness of the number of lists of ten in which an original is, the most frequent one,
the share of originals in no list, and the mean average precision of parts of other recordings of the artist. Second
table, lists of ten among all files: shares of results that are of the query's own recording, of a recording that is in
the list already, and of the query's artist. Third table: every copy is a query; how often its original is first, and
the time of a search.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import mutagen
import numpy as np
from bench_duplicates import make_set, recording_of
from bench_retrieval import album_of

from mert_hf.audio import find_audio_files
from mert_hf.search import MixRules, MusicIndex
from mert_hf.search.mixing import correct_hubs
from mert_hf.search.store import unit
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


def hubs(vectors: np.ndarray, pieces: np.ndarray, artists: np.ndarray, neighbors: int | None) -> list[str]:
    """Measures of the rankings of originals, with vectors (rows, hidden) of length 1."""
    counts, precisions = np.zeros(len(vectors)), []
    for row, vector in enumerate(vectors):
        similarity = vectors @ vector
        scores = correct_hubs(similarity, vectors, vectors, neighbors) if neighbors else similarity
        order = np.argsort(-scores, kind="stable")
        counts[order[order != row][:TOP]] += 1
        others = order[pieces[order] != pieces[row]]
        hits = artists[others] == artists[row]
        if hits.any():
            precisions.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    skewness = float(((counts - counts.mean()) ** 3).mean() / counts.std() ** 3)
    return [f"{skewness:.2f}", f"{counts.max():.0f}", percent((counts == 0).mean()), f"{np.mean(precisions):.3f}"]


def describe(index: MusicIndex, queries: dict[str, str], rules: MixRules) -> list[str]:
    """Shares of results of searches."""
    own, repeated, same, shown = 0, 0, 0, 0
    for query, artist in queries.items():
        matches = [match for match in index.search(query, TOP + 1, rules=rules) if match.path != query][:TOP]
        names = [recording_of(match.path) for match in matches]
        own += recording_of(query) in names
        repeated += len(names) - len(set(names))
        same += sum(match.artist == artist for match in matches)
        shown += len(matches)
    return [percent(value / shown) for value in (own, repeated, same)]


def originals_first(index: MusicIndex, copies: list[str], nearest: dict[str, str]) -> list[str]:
    """Shares of copies whose original is first among originals, by the vectors and by a search."""
    by_vector, by_search, wrong, times = 0, 0, 0, []
    for copy in copies:
        started = time.perf_counter()
        matches = index.search(copy, TOP, where=ORIGINALS)
        times.append(time.perf_counter() - started)
        by_vector += recording_of(nearest[copy]) == recording_of(copy)
        by_search += recording_of(matches[0].path) == recording_of(copy)
        wrong += any(match.same_recording and recording_of(match.path) != recording_of(copy) for match in matches)
    shares = [percent(value / len(copies)) for value in (by_vector, by_search, wrong)]
    return [str(len(copies)), *shares, f"{1e3 * float(np.median(times)):.0f} ms"]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", help="Folder or glob of recordings.")
    parser.add_argument("--output", required=True, type=Path, help="Folder for the set and its index; made if missing.")
    parser.add_argument("--parts", type=int, default=3, help="Parts of a recording.")
    parser.add_argument("--model", default="mert2-nano", help="Hub id, folder, or name of a bundled checkpoint.")
    parser.add_argument("--queries", type=int, default=300, help="Originals, and copies, that are searched for.")
    arguments = parser.parse_args()
    if not (arguments.output / "music").exists():
        make(arguments.music, arguments.output / "music", arguments.parts)
    MusicIndex.update([arguments.output / "music"], arguments.output / "index", arguments.model)
    index = MusicIndex(arguments.output / "index")
    paths, vectors = np.array(index.paths()), unit(index.vectors())
    of_path = dict(zip(paths, index._table.columns(["artist"])["artist"].to_pylist(), strict=True))
    originals = np.array([".original." in path for path in paths])
    pieces = np.array([piece_of(path) for path in paths[originals]])
    artists = np.array([of_path[path] for path in paths[originals]])
    rows = [
        [neighbors or "cosine", *hubs(vectors[originals], pieces, artists, neighbors)]
        for neighbors in (None, 5, 10, 20, 50)
    ]
    print(markdown_table(["neighbors", "skewness", "most lists", "in no list", "mAP of artist"], rows), flush=True)
    chosen = {path: of_path[path] for path in evenly(paths[originals], arguments.queries)}
    rows = [[name, *describe(index, chosen, rules)] for name, rules in RULES.items()]
    print(markdown_table(["rules", "own recording", "repeated", "same artist"], rows), flush=True)
    best = (vectors[~originals] @ vectors[originals].T).argmax(axis=1)
    nearest = dict(zip(paths[~originals], paths[originals][best], strict=True))
    header = ["copies", "original first, by vector", "original first", "another taken for it", "search"]
    print(markdown_table(header, [originals_first(index, evenly(paths[~originals], arguments.queries), nearest)]))


def evenly(paths: np.ndarray, count: int) -> list[str]:
    """At most `count` of the paths, at equal distances."""
    return sorted(paths)[:: max(-(-len(paths) // count), 1)]


if __name__ == "__main__":
    main()
