"""Embedding on a local Ray cluster of two nodes: the rows of `embed_dataset`, also when a worker is killed."""

from __future__ import annotations

import shutil
import threading
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import soundfile
from sounds import melody

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")

from mert_hf.embedding.dataset import embed_dataset  # noqa: E402
from mert_hf.embedding.ray import Decoder, ShardEmbedder, embed_with_ray, find_recordings  # noqa: E402
from mert_hf.embedding.shards import read_summary  # noqa: E402

QUIET = {"show_progress_bar": False}


@pytest.fixture
def cluster():
    """Two nodes in this machine, of two CPUs and 500 MB of shared memory each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 5 * 10**8})
    made.add_node(num_cpus=2, object_store_memory=5 * 10**8)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def music(tmp_path):
    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(40):
        soundfile.write(folder / f"{number:02d}.flac", melody(number, 2.0 + number % 5), 24000)
    (folder / "07.flac").write_text("not music")
    soundfile.write(folder / "08.flac", np.zeros(100), 24000)  # too short for a frame
    return folder


def rows(folder) -> dict[str, list]:
    return pq.read_table(sorted(folder.glob("train-*.parquet"))).to_pydict()


def kill_an_embedder(folder, killed: list[int]) -> None:
    """Kills an actor that keeps the model, once a shard has been written."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not killed:
        if list(folder.glob("train-*.parquet")):
            for process in psutil.process_iter(["cmdline"]):
                if "ShardEmbedder" in " ".join(process.info["cmdline"] or []):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.02)


def test_addresses(tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe("/bucket/a/song.mp3", b"1")
    system.pipe("/bucket/notes.txt", b"2")
    assert find_recordings(["memory://bucket"]) == ["memory:///bucket/a/song.mp3"]
    with pytest.raises(ValueError, match="memory://bucket/b holds no recordings"):
        find_recordings(["memory://bucket/b"])
    soundfile.write(tmp_path / "x.wav", np.zeros(10), 8000)
    assert find_recordings([tmp_path]) == [str(tmp_path / "x.wav")]


def test_actors_make_the_shards_of_embed_dataset(music, tiny_checkpoint, tmp_path):
    """Without a cluster: what the decoders pass on, and what the embedders write."""
    files = [str(path) for path in sorted(music.glob("0*.flac"))]
    options = {"device": "cpu", "batch_size": 4, "channels": "left", **QUIET}
    straight = embed_dataset(files, tmp_path / "straight", tiny_checkpoint, **options)
    shutil.copytree(tmp_path / "straight", tmp_path / "ray", ignore=shutil.ignore_patterns("*.parquet"))
    decoder = Decoder(str(tmp_path / "ray"))
    embedder = ShardEmbedder(str(tmp_path / "ray"), str(tiny_checkpoint), "cpu", "float32", 4)
    done = [embedder(decoder({"shard": index})) for index in range(len(decoder.plan))]
    assert sum(row["seconds"] for row in done) == pytest.approx(straight.seconds)
    assert rows(tmp_path / "ray") == rows(tmp_path / "straight")
    shards = sorted((tmp_path / "ray").glob("train-*.parquet"))
    failed = [file for shard in shards for file in read_summary(shard).failed]
    assert [(file.path, file.error) for file in failed] == [(file.path, file.error) for file in straight.failed]


@pytest.mark.slow
def test_same_rows_with_a_killed_worker(cluster, music, tiny_checkpoint, tmp_path):
    straight = embed_dataset([music], tmp_path / "straight", tiny_checkpoint, device="cpu", batch_size=4, **QUIET)
    killed: list[int] = []
    killer = threading.Thread(target=kill_an_embedder, args=(tmp_path / "ray", killed))
    killer.start()
    options = {"batch_size": 4, "decoders": 1, "embedders": 2, "num_cpus": 1}
    summary = embed_with_ray([music], tmp_path / "ray", tiny_checkpoint, **options, **QUIET)
    killer.join()
    assert killed
    one, other = rows(tmp_path / "ray"), rows(tmp_path / "straight")
    order, expected = (
        sorted(range(len(x["path"])), key=lambda i: (x["path"][i], x["start"][i], x["layer"][i])) for x in (one, other)
    )
    for name in ("path", "start", "end", "layer"):
        assert [one[name][i] for i in order] == [other[name][i] for i in expected]
    vectors = (np.array(x["embedding"])[index] for x, index in ((one, order), (other, expected)))
    np.testing.assert_allclose(*vectors, atol=1e-5)
    assert [(file.path, file.error) for file in summary.failed] == [(file.path, file.error) for file in straight.failed]
    assert len(summary.failed) == 2
    again = embed_with_ray([music], tmp_path / "ray", tiny_checkpoint, **options, **QUIET)
    assert again.seconds == 0 and again.rows == summary.rows
