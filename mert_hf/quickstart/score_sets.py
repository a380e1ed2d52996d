"""Sets of rendered scores: excerpts to train on, and excerpts and notes to probe with.

Pieces are split once (`mert_hf.scores.split_of`), so that no piece of a test split is in any training data.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .scores import Excerpt, Piece, load_pieces, plan_excerpts, plan_notes, split_of, write_excerpts

PRETRAINING, PROBES, NOTES = "pretraining", "probes", "notes"
PRETRAINING_SECONDS = 10.0
PROBE_SECONDS = 6.0
PROBE_PARTS = {"train": 5, "valid": 1, "test": 2}


@dataclass(frozen=True)
class ScoreSets:
    """How much is rendered.

    Attributes:
        num_scores: scores that are read, of music21's 1,467 chorales and tunes.
        pretraining: excerpts of 10 s to train on, half of them with an instrument for each part, half with one for
            all; a tenth as many from other pieces validate.
        probes: excerpts of 6 s with one instrument, labeled with key and family, train : valid : test as 5 : 1 : 2.
        notes: single notes, labeled with their pitch, split by instrument in the same proportion.
        seed: all choices follow from it.
    """

    num_scores: int = 400
    pretraining: int = 360
    probes: int = 640
    notes: int = 0
    seed: int = 0

    def plan(self, pieces: Sequence[Piece]) -> dict[str, list[Excerpt]]:
        """The excerpts of each set that has any."""
        split = {name: [piece for piece in pieces if split_of(piece.name) == name] for name in PROBE_PARTS}
        half, seconds, seed = self.pretraining // 2, PRETRAINING_SECONDS, self.seed
        plans = {
            PRETRAINING: [
                *plan_excerpts(split["train"], half, seconds, seed, "ensemble-", ensemble=True),
                *plan_excerpts(split["train"], self.pretraining - half, seconds, seed + 1, "solo-"),
                *plan_excerpts(split["valid"], max(self.pretraining // 10, 4), seconds, seed + 2, "valid-"),
            ],
            PROBES: [
                excerpt
                for index, (name, parts) in enumerate(PROBE_PARTS.items())
                for excerpt in plan_excerpts(
                    split[name],
                    self.probes * parts // sum(PROBE_PARTS.values()),
                    PROBE_SECONDS,
                    seed + 3 + index,
                    f"{name}-",
                )
            ],
            NOTES: plan_notes(self.notes, seed=seed + 6),
        }
        return {name: excerpts for name, excerpts in plans.items() if excerpts}


def render_sets(sets: ScoreSets, folder: str | os.PathLike, workers: int = 2, progress: bool = True) -> dict[str, Path]:
    """Reads the scores and renders the sets below `folder`, each as an audiofolder; what is there is kept.

    Returns:
        The folder of each set by its name: "pretraining", "probes", "notes".
    """
    folder = Path(folder)
    pieces = load_pieces(sets.num_scores, folder / f"pieces-{sets.num_scores}.json", workers, progress)
    plans = sets.plan(pieces)
    for name, excerpts in plans.items():
        write_excerpts(excerpts, folder / name, workers=workers, progress=progress)
    return {name: folder / name for name in plans}
