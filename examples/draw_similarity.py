"""Draws the self-similarity of a recording: bright where two moments sound alike to the model, so that its form shows.

    python examples/draw_similarity.py song.wav --output similarity.png
    python examples/draw_similarity.py --score AlhambraReel --output docs/similarity.png

The second command makes the picture of the README: it renders a score of music21, played three times.
"""

import argparse
import io

import numpy as np
import soundfile

from mert_hf import MERTEmbedder
from mert_hf.quickstart.pieces import Note, read_piece, score_paths
from mert_hf.quickstart.rendering import SAMPLING_RATE, Excerpt, render
from mert_hf.utils.optional import needs_extra

with needs_extra("eval"):
    import matplotlib

    matplotlib.use("Agg")  # draws without a display
    from matplotlib import pyplot

BEAT = 0.6  # seconds per quarter note of a rendered score


def parse_arguments() -> argparse.Namespace:
    """The recording and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("recording", nargs="?", help="File of the recording.")
    source.add_argument("--score", help="File name of a score of music21 to render in place of a recording.")
    parser.add_argument("--output", default="similarity.png", help="File of the picture.")
    parser.add_argument("--model", default="mert2-nano", help="Hub id or folder.")
    parser.add_argument("--layer", type=int, default=-1, help="Layer of the embeddings; -1 is the last.")
    parser.add_argument("--window", type=float, default=2.0, help="Seconds that each embedding covers.")
    parser.add_argument("--hop", type=float, default=0.8, help="Seconds from one embedding to the next.")
    return parser.parse_args()


def render_score(name: str, repeats: int = 3) -> io.BytesIO:
    """The score of this file name as a FLAC file in memory, played `repeats` times on the piano."""
    paths = [path for path in score_paths() if path.stem == name]
    piece = read_piece(paths[0]) if paths else None
    if piece is None:
        raise ValueError(f"music21 has no score {name!r} that can be rendered.")
    length = piece.length * BEAT
    notes = tuple(
        Note(note.onset * BEAT + repeat * length, note.duration * BEAT, note.pitch, note.part)
        for repeat in range(repeats)
        for note in piece.notes
    )
    programs = (0,) * (1 + max(note.part for note in notes))
    (audio,) = render([Excerpt(name, notes, programs, repeats * length, 0.7, {})])
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLING_RATE, format="FLAC")
    file.seek(0)
    return file


def self_similarity(embeddings: np.ndarray) -> np.ndarray:
    """Cosine similarities (windows, windows) of embeddings (windows, hidden), after their mean is subtracted."""
    centered = embeddings - embeddings.mean(axis=0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    return centered @ centered.T


def main() -> None:
    arguments = parse_arguments()
    recording = render_score(arguments.score) if arguments.score else arguments.recording
    embedder = MERTEmbedder.from_pretrained(arguments.model, device="cpu")
    song = embedder.encode(recording, layers=arguments.layer, window=arguments.window, hop=arguments.hop)
    seconds = song.end[-1]
    figure, axes = pyplot.subplots(figsize=(5.2, 4.6), layout="constrained")
    image = axes.imshow(
        self_similarity(song.embeddings), extent=(0, seconds, seconds, 0), cmap="magma", interpolation="nearest"
    )
    axes.set(xlabel="seconds", ylabel="seconds", title=arguments.score or arguments.recording)
    figure.colorbar(image, label="cosine similarity")
    figure.savefig(arguments.output, dpi=90)
    print(arguments.output)


if __name__ == "__main__":
    main()
