"""Draws the self-similarity of a recording: bright where two moments sound alike to the model, so that its form shows.

    python examples/draw_similarity.py song.wav --output similarity.png
    python examples/draw_similarity.py --score AlhambraReel --output docs/similarity.png

The second command makes the picture of the README: it renders a score of music21, played three times.
"""

import argparse

from mert_hf.quickstart.report import HOP, WINDOW, form_of, render_score


def parse_arguments() -> argparse.Namespace:
    """The recording and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("recording", nargs="?", help="File of the recording.")
    source.add_argument("--score", help="File name of a score of music21 to render in place of a recording.")
    parser.add_argument("--output", default="similarity.png", help="File of the picture.")
    parser.add_argument("--model", default="mert2-nano", help="Hub id or folder.")
    parser.add_argument("--layer", type=int, default=-1, help="Layer of the embeddings; -1 is the last.")
    parser.add_argument("--window", type=float, default=WINDOW, help="Seconds that each embedding covers.")
    parser.add_argument("--hop", type=float, default=HOP, help="Seconds from one embedding to the next.")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    recording = render_score(arguments.score) if arguments.score else arguments.recording
    title = arguments.score or arguments.recording
    form = form_of(recording, title, arguments.model, arguments.layer, arguments.window, arguments.hop)
    form.figure().savefig(arguments.output, dpi=90)
    print(arguments.output)


if __name__ == "__main__":
    main()
