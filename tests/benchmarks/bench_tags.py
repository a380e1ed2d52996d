"""The bundled heads of `mert-hf tag` on real music, next to Essentia and to tempi of people.

    pip install --no-deps essentia
    python tests/benchmarks/bench_tags.py MUSIC [--every 3 | --charted]

Songs of Debian's fretsonfire-songs-muldjord and -sectoid, where MUSIC has them, have the tempo of their note charts,
made by people; `--charted` takes these only, without Essentia. Essentia's KeyExtractor and RhythmExtractor2013 are no
truth: a table shows how often we agree, for all answers and for those at or above the confidence that is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mert_hf.audio import find_audio_files, read_audio
from mert_hf.evaluation.metrics.weighted import key_scores
from mert_hf.recordings.targets import KEYS, key_index
from mert_hf.tagging import tag_recordings
from mert_hf.tagging.heads import TagHead
from mert_hf.utils.text import markdown_table

RATE, SECONDS = 44100, 120.0
CHARTED = {  # beats a minute in the charts, by the name of the song
    "armygeddon": 170,
    "chaos-god": 170,
    "internal-degeneration": 190,
    "mutilated-mime": 180,
    "escape-from-chaosland": 135,
    "feelings": 95,
    "metal-madness": 150,
    "war-of-freedom": 140,
}
OCTAVES = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)


def essentia_answers(path: str) -> tuple[int, float]:
    """Index of the key in `KEYS` and beats a minute."""
    import essentia.standard

    samples = read_audio(path, RATE, 0, SECONDS)
    tonic, mode, _ = essentia.standard.KeyExtractor()(samples)
    return key_index(f"{tonic} {mode}", path), float(essentia.standard.RhythmExtractor2013(method="degara")(samples)[0])


def near(tempo: float, other: float, factors: tuple[float, ...] = (1.0,)) -> bool:
    return any(abs(tempo / (factor * other) - 1) <= 0.04 for factor in factors)


def shares(rows: list[tuple], *columns: int) -> list[str]:
    return [f"{np.mean([row[column] for row in rows]):.3f}" if rows else "-" for column in columns]


def compare_with_people(charted: dict[str, int]) -> None:
    rows = []
    for row in tag_recordings(sorted(charted), model=("tempo",), show_progress_bar=False).rows:
        found, truth = row.predictions["tempo"], charted[row.path]
        beats = float(found.texts[0])
        rows.append([Path(row.path).stem, truth, beats, f"{found.confidence:.2f}", near(beats, truth, OCTAVES)])
    print(markdown_table(["song", "chart", "tempo", "confidence", "right, or an octave away"], rows))


def compare_with_essentia(paths: list[str]) -> None:
    keys, tempi = [], []
    for row in tag_recordings(paths, show_progress_bar=False).rows:
        key, tempo = row.predictions["key"], row.predictions["tempo"]
        their_key, their_tempo = essentia_answers(row.path)
        ours, beats = KEYS.index(key.texts[0]), float(tempo.texts[0])
        keys.append((key.confidence, ours == their_key, key_scores()[their_key, ours]))
        tempi.append((tempo.confidence, near(beats, their_tempo), near(beats, their_tempo, OCTAVES)))
    rows = []
    for name, answers in (("key", keys), ("tempo", tempi)):
        least = TagHead.load(name).confidence
        for title, taken in (("all", answers), (f"from {least:g}", [row for row in answers if row[0] >= least])):
            rows.append([name, title, len(taken), *shares(taken, 1, 2)])
    print(markdown_table(["head", "confidence", "recordings", "equal", "weighted score, or octaves too"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", help="Folder or glob of recordings.")
    parser.add_argument("--every", type=int, default=1, help="Take every so many recordings.")
    parser.add_argument("--charted", action="store_true", help="Only songs whose tempo people have noted.")
    arguments = parser.parse_args()
    found = [str(path) for path in find_audio_files(arguments.music)]
    charted = {path: CHARTED[name] for path in found if (name := Path(path).stem.split("__")[-1]) in CHARTED}
    if charted:
        compare_with_people(charted)
    if not arguments.charted:
        compare_with_essentia(found[:: arguments.every])


if __name__ == "__main__":
    main()
