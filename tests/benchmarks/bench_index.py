"""Vector stores for `mert_hf.search` next to each other: build time, query time, recall, memory, size on disk.

    python tests/benchmarks/bench_index.py --rows 10000 100000 1000000

Vectors are unit vectors of 128 values in float16 in groups of about 20 neighbors (an album), queries are rows with
noise (another excerpt). Each store is built in one process and queried in another, one query at a time, for the ten
nearest rows and their paths. Recall is the share of the exact ten that is found. The output is a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mert_hf.search.store import PROBES, REFINED

SIZE, NEIGHBORS, QUERIES, TOP = 128, 20, 100, 10


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make_rows(count: int) -> np.ndarray:
    """(count, 128) float16."""
    draws = np.random.default_rng(0)
    centers = draws.standard_normal((max(count // NEIGHBORS, 1), SIZE), dtype=np.float32)
    rows = np.empty((count, SIZE), np.float16)
    for start in range(0, count, 100_000):
        part = slice(start, min(start + 100_000, count))
        owners = draws.integers(0, len(centers), part.stop - part.start)
        rows[part] = unit(centers[owners] + draws.standard_normal((len(owners), SIZE), dtype=np.float32))
    return rows


def make_queries(rows: np.ndarray) -> np.ndarray:
    """(100, 128) float32."""
    draws = np.random.default_rng(1)
    chosen = rows[draws.integers(0, len(rows), QUERIES)].astype(np.float32)
    return unit(chosen + 0.5 * unit(draws.standard_normal((QUERIES, SIZE))).astype(np.float32))


def paths(count: int) -> pa.Array:
    return pa.array([f"music/{index:08d}.flac" for index in range(count)])


def write_paths(folder: Path, count: int) -> None:
    """Columns that a store without columns needs next to its vectors."""
    pq.write_table(pa.table({"path": paths(count)}), folder / "rows.parquet")


class NumPy:
    """Exact, in memory: the reference."""

    def build(self, folder: Path, rows: np.ndarray) -> None:
        np.save(folder / "vectors.npy", rows)
        write_paths(folder, len(rows))

    def open(self, folder: Path) -> None:
        self.vectors = np.load(folder / "vectors.npy").astype(np.float32)
        self.paths = pq.read_table(folder / "rows.parquet")["path"]

    def nearest(self, query: np.ndarray) -> list[str]:
        similarity = self.vectors @ query
        best = np.argpartition(-similarity, TOP)[:TOP]
        return [self.paths[int(index)].as_py() for index in best]


class LanceDB:
    """LanceDB; `index_type` None searches all rows, else `probes` of the index's lists.

    An index of packed vectors names `refine` times as many rows as are wanted; their vectors decide.
    """

    def __init__(self, index_type: str | None = None, probes: int = 20, refine: int | None = None):
        self.index_type, self.probes, self.refine = index_type, probes, refine

    def build(self, folder: Path, rows: np.ndarray) -> None:
        import lancedb.index

        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), SIZE)
        data = pa.table({"path": paths(len(rows)), "vector": vectors})
        table = lancedb.connect(folder).create_table("rows", data)
        if self.index_type:
            config = getattr(lancedb.index, self.index_type)(distance_type="cosine")
            table.create_index("vector", config=config)

    def open(self, folder: Path) -> None:
        import lancedb

        self.table = lancedb.connect(folder).open_table("rows")

    def nearest(self, query: np.ndarray) -> list[str]:
        search = self.table.search(query).distance_type("cosine").select(["path", "_distance"]).limit(TOP)
        if self.index_type:
            search = search.nprobes(self.probes)
            search = search.refine_factor(self.refine) if self.refine else search
        return search.to_arrow()["path"].to_pylist()


class USearch:
    """USearch's graph in a file, read through memory mapping."""

    def build(self, folder: Path, rows: np.ndarray) -> None:
        from usearch.index import Index

        index = Index(ndim=SIZE, metric="cos", dtype="f16")
        index.add(np.arange(len(rows)), rows)
        index.save(str(folder / "graph.usearch"))
        write_paths(folder, len(rows))

    def open(self, folder: Path) -> None:
        from usearch.index import Index

        self.index = Index.restore(str(folder / "graph.usearch"), view=True)
        self.paths = pq.read_table(folder / "rows.parquet")["path"]

    def nearest(self, query: np.ndarray) -> list[str]:
        return [self.paths[int(key)].as_py() for key in self.index.search(query.astype(np.float16), TOP).keys]


class Faiss:
    """FAISS: `kind` is a description of its index factory."""

    def __init__(self, kind: str):
        self.kind = kind

    def build(self, folder: Path, rows: np.ndarray) -> None:
        import faiss

        lists = int(4 * len(rows) ** 0.5)
        index = faiss.index_factory(SIZE, self.kind.format(lists=lists), faiss.METRIC_INNER_PRODUCT)
        chosen = np.random.default_rng(2).permutation(len(rows))[: 64 * lists]
        index.train(rows[np.sort(chosen)].astype(np.float32))
        for start in range(0, len(rows), 100_000):
            index.add(rows[start : start + 100_000].astype(np.float32))
        faiss.write_index(index, str(folder / "vectors.faiss"))
        write_paths(folder, len(rows))

    def open(self, folder: Path) -> None:
        import faiss

        self.index = faiss.read_index(str(folder / "vectors.faiss"))
        if hasattr(self.index, "nprobe"):
            self.index.nprobe = 32
        self.paths = pq.read_table(folder / "rows.parquet")["path"]

    def nearest(self, query: np.ndarray) -> list[str]:
        return [self.paths[int(key)].as_py() for key in self.index.search(query[None], TOP)[1][0]]


STORES = {
    "NumPy, exact": NumPy(),
    "LanceDB, exact": LanceDB(),
    "LanceDB, IVF_FLAT": LanceDB("IvfFlat", PROBES),
    "LanceDB, IVF_SQ": LanceDB("IvfSq", PROBES, REFINED),
    "LanceDB, IVF_RQ": LanceDB("IvfRq", PROBES, 20),
    "LanceDB, IVF_PQ": LanceDB("IvfPq", 20, 5),
    "LanceDB, IVF_HNSW_SQ": LanceDB("HnswSq", 20, 5),
    "USearch, HNSW": USearch(),
    "FAISS, HNSW": Faiss("HNSW32_SQfp16"),
    "FAISS, IVF": Faiss("IVF{lists},SQfp16"),
}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def build(name: str, count: int, folder: Path) -> dict:
    rows = make_rows(count)
    started = time.perf_counter()
    STORES[name].build(folder, rows)
    return {"build_s": time.perf_counter() - started, "build_mb": peak_megabytes()}


def query(name: str, count: int, folder: Path) -> dict:
    """Times of single queries; the exact answer is computed after memory has been measured."""
    queries = np.load(folder.with_suffix(".queries.npy"))
    exact = json.loads(folder.with_suffix(".exact.json").read_text())
    store, times, found = STORES[name], [], []
    started = time.perf_counter()
    store.open(folder)
    store.nearest(queries[0])
    first = time.perf_counter() - started
    for vector in queries:
        started = time.perf_counter()
        found.append(store.nearest(vector))
        times.append(time.perf_counter() - started)
    recall = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, exact, strict=True)])
    return {"open_s": first, "query_ms": 1e3 * float(np.median(times)), "recall": recall, "query_mb": peak_megabytes()}


def write_reference(count: int, folder: Path) -> None:
    rows = make_rows(count)
    queries = make_queries(rows)
    similarity = np.concatenate(
        [rows[i : i + 100_000].astype(np.float32) @ queries.T for i in range(0, count, 100_000)]
    )
    best = np.argpartition(-similarity, TOP, axis=0)[:TOP].T
    np.save(folder.with_suffix(".queries.npy"), queries)
    names = [[f"music/{index:08d}.flac" for index in row] for row in best.tolist()]
    folder.with_suffix(".exact.json").write_text(json.dumps(names))


def in_process(step: str, name: str, count: int, folder: Path) -> dict:
    command = [
        sys.executable,
        __file__,
        "--step",
        step,
        "--stores",
        name,
        "--rows",
        str(count),
        "--folder",
        str(folder),
    ]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def compare(stores: list[str], counts: list[int]) -> None:
    columns = [
        "vectors",
        "store",
        "build, s",
        "open and first query, s",
        "query, ms",
        "recall@10",
        "memory, MB",
        "disk, MB",
    ]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for count in counts:
        with tempfile.TemporaryDirectory() as parent:
            for number, name in enumerate(stores):
                folder = Path(parent) / f"store{number}"
                folder.mkdir()
                in_process("reference", name, count, folder)
                row = in_process("build", name, count, folder) | in_process("query", name, count, folder)
                disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
                print(
                    f"| {count} | {name} | {row['build_s']:.1f} | {row['open_s']:.2f} | {row['query_ms']:.1f} | "
                    f"{row['recall']:.3f} | {row['query_mb']:.0f} | {disk:.0f} |",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="Sizes of the store.")
    parser.add_argument("--stores", nargs="+", default=list(STORES), choices=list(STORES), help="Stores to measure.")
    parser.add_argument("--step", choices=["reference", "build", "query"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is None:
        compare(arguments.stores, arguments.rows)
        return
    name, count = arguments.stores[0], arguments.rows[0]
    steps = {"reference": lambda *place: write_reference(*place[1:]) or {}, "build": build, "query": query}
    print(json.dumps(steps[arguments.step](name, count, arguments.folder)))


if __name__ == "__main__":
    main()
