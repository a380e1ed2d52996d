"""`mert-hf serve` under load: 8 clients, 2,000 requests, the time of an answer for each endpoint.

    python tests/benchmarks/bench_serve.py INDEX [--clients 8] [--requests 2000]

An index that is missing is made of 200 melodies of 3 to 13 s. Each client keeps a connection and asks for random songs,
all endpoints in turn. Uploads, of which one is embedded at a time, are not among them. Times are those that a client
waits; the time of a processor is that of the server for one request. An incomplete answer is counted as an error.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
import soundfile
from served import serve
from sounds import melody

from mert_hf.search import MusicIndex
from mert_hf.utils.text import markdown_table

MELODIES = 200
SONGS, WAY = 10, 5  # in an answer
ENDPOINTS: dict[str, Callable[[str, str], dict]] = {
    "/similar": lambda one, other: {"id": one, "n": SONGS},
    "/rest/getSonicSimilarTracks": lambda one, other: {"id": one, "count": SONGS},
    "/api/similar_tracks": lambda one, other: {"item_id": one, "n": SONGS},
    "/path": lambda one, other: {"from": one, "to": other, "n": WAY},
    "/rest/findSonicPath": lambda one, other: {"startSongId": one, "endSongId": other, "count": WAY},
}


def make_index(folder: Path) -> None:
    """Melodies of different lengths and their index."""
    music = folder.with_name(f"{folder.name}-music")
    music.mkdir()
    for number in range(MELODIES):
        soundfile.write(music / f"{number:03d}.flac", melody(number, 3.0 + 0.05 * number), 24000)
    MusicIndex.update([music], folder, device="cpu")


def songs_in(answer: dict | list) -> list:
    """The songs of an answer of any of the interfaces."""
    if isinstance(answer, list):
        return answer
    return answer.get("path") or answer["subsonic-response"]["sonicMatch"]


def client(port: int, paths: list[str], requests: int, seed: int, times: dict[str, list[float]], errors: list) -> None:
    """Asks one request after the other and notes their times in seconds."""
    draws, connection = random.Random(seed), HTTPConnection("127.0.0.1", port, timeout=300)
    for turn in range(requests):
        place = list(ENDPOINTS)[turn % len(ENDPOINTS)]
        parameters = ENDPOINTS[place](*draws.sample(paths, 2))
        started = time.perf_counter()
        try:
            connection.request("GET", f"{place}?{urlencode(parameters)}")
            reply = connection.getresponse()
            found = songs_in(json.loads(reply.read()))
            assert reply.status == 200 and len(found) == (WAY if "ath" in place else SONGS), parameters
        except Exception as error:  # counted, as a client would see it
            errors.append(error)
            connection.close()
        times[place].append(time.perf_counter() - started)
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="Folder of an index; made if it is missing.")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=2000)
    arguments = parser.parse_args()
    if not arguments.index.exists():
        make_index(arguments.index)
    paths, times, errors = MusicIndex(arguments.index).paths(), defaultdict(list), []
    share = arguments.requests // arguments.clients
    with tempfile.TemporaryDirectory() as folder, serve(arguments.index, Path(folder, "log")) as (process, port):
        program = psutil.Process(process.pid)
        started, before = time.perf_counter(), sum(program.cpu_times()[:2])
        clients = [
            threading.Thread(target=client, args=(port, paths, share, seed, times, errors))
            for seed in range(arguments.clients)
        ]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        seconds, busy = time.perf_counter() - started, sum(program.cpu_times()[:2]) - before
    times["all"] = [value for values in list(times.values()) for value in values]
    rows = []
    for name, values in times.items():
        median, most = 1e3 * np.quantile(values, (0.5, 0.95))
        rows.append([name, len(values), f"{median:.0f} ms", f"{most:.0f} ms"])
    print(markdown_table(["endpoint", "requests", "median", "95 % within"], rows))
    count = len(times["all"])
    print(f"{len(paths)} recordings, {count / seconds:.1f} requests a second")
    print(f"{1e3 * busy / count:.0f} ms of a processor for a request")
    print(f"{len(errors)} errors")
    for error in errors[:3]:
        print(repr(error))


if __name__ == "__main__":
    main()
