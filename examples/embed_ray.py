"""Embed a collection on the machines of a Ray cluster: the data set of `mert-hf embed`.

    python examples/embed_ray.py /shared/music --output /shared/embeddings --decoders 64 --embedders 8 --gpus 1

PATHS are files, folders and globs that every node sees, or addresses such as s3://bucket/music. The output folder is
on a file system that every node sees. Run the command again to resume. Without `--address`, Ray starts on this machine.
"""

from __future__ import annotations

import argparse
import sys

import ray

from mert_hf.embedding.ray import embed_with_ray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", help="Files, folders, globs, and addresses that fsspec opens.")
    parser.add_argument("--output", required=True, help="Folder of the data set; an interrupted run is resumed there.")
    parser.add_argument("--model", default="mert2-nano", help="Hub id, folder, or name of a bundled checkpoint.")
    parser.add_argument("--layers", default="all", help="all, or layers such as 7 or 5,7,9.")
    parser.add_argument("--window", type=float, default=5.0, help="Seconds of audio that the model sees at a time.")
    parser.add_argument("--batch-size", type=int, default=16, help="Windows that the model computes at a time.")
    parser.add_argument("--store-dtype", default="float32", help="Precision of the stored embeddings.")
    parser.add_argument("--decoders", type=int, default=2, help="Actors that decode recordings, on a CPU each.")
    parser.add_argument("--embedders", type=int, default=1, help="Actors that embed.")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of an embedder; 0 embeds on the CPU.")
    parser.add_argument("--address", help="Address of a Ray cluster, such as auto; started here by default.")
    arguments = parser.parse_args()
    ray.init(address=arguments.address)
    summary = embed_with_ray(
        arguments.paths,
        arguments.output,
        arguments.model,
        layers=arguments.layers,
        window=arguments.window,
        batch_size=arguments.batch_size,
        store_dtype=arguments.store_dtype,
        decoders=arguments.decoders,
        embedders=arguments.embedders,
        num_gpus=arguments.gpus,
    )
    print(summary.text(arguments.output))
    sys.exit(1 if summary.failed else 0)


if __name__ == "__main__":
    main()
