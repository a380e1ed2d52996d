"""Histograms of codes, which show whether all codebooks of a teacher carry information."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DEAD_ENTROPY = 0.02  # share of the entropy that equally frequent codes would have
DEAD_SHARE = 0.99  # share of the frames that have the most frequent code


class CodeCounts:
    """Histogram of the codes of each codebook, of `sizes` codes each."""

    def __init__(self, sizes: Sequence[int]):
        self.counts = [np.zeros(size, dtype=np.int64) for size in sizes]

    def add(self, codes: np.ndarray) -> None:
        """Counts codes (codebooks, frames). Raises ValueError where they do not fit the codebooks."""
        if codes.ndim != 2 or len(codes) != len(self.counts):
            raise ValueError(f"Expected codes of shape ({len(self.counts)}, frames), got {codes.shape}.")
        for index, (row, count) in enumerate(zip(codes, self.counts, strict=True)):
            if row.size and not 0 <= int(row.min()) <= int(row.max()) < len(count):
                raise ValueError(
                    f"Codebook {index} has the codes 0 to {len(count) - 1}, but codes from {int(row.min())} to "
                    f"{int(row.max())} were found."
                )
            count += np.bincount(row, minlength=len(count))

    def entropy(self, codebook: int) -> float:
        """Entropy in bits; log2 of the codebook's size where all codes are equally frequent."""
        share = self.counts[codebook][self.counts[codebook] > 0] / max(self.counts[codebook].sum(), 1)
        return float(-(share * np.log2(share)).sum()) + 0.0

    def dead(self) -> list[int]:
        """Codebooks without information: nearly all frames have one code, or the entropy is nearly 0."""
        return [
            index
            for index, count in enumerate(self.counts)
            if count.max() > DEAD_SHARE * count.sum() or self.entropy(index) < DEAD_ENTROPY * math.log2(len(count))
        ]

    def check(self) -> None:
        """Raises ValueError, with the table, where a codebook is dead."""
        if dead := self.dead():
            raise ValueError(
                f"Dead codebooks: {', '.join(map(str, dead))}. Nearly all frames have the same code, so there is "
                f"nothing to learn from them: is the audio silent, or the teacher not trained?\n{self.table()}"
            )

    def summary(self) -> list[dict[str, float]]:
        """For each codebook: size, codes in use, entropy in bits and its bound, most frequent code and its share."""
        return [
            {
                "size": len(count),
                "used": int((count > 0).sum()),
                "entropy": round(self.entropy(index), 4),
                "max_entropy": round(math.log2(len(count)), 4),
                "commonest": int(count.argmax()),
                "commonest_share": round(float(count.max() / max(count.sum(), 1)), 4),
            }
            for index, count in enumerate(self.counts)
        ]

    def table(self) -> str:
        """The summary as text, with a bar of the codes' frequencies in descending order."""
        lines = ["codebook  used/codes  entropy/max bits  most frequent (share)  frequencies, descending"]
        for index, row in enumerate(self.summary()):
            lines.append(
                f"{index:8d}  {row['used']:>4d}/{row['size']:<5d}  {row['entropy']:7.2f}/{row['max_entropy']:<8.2f}"
                f"  {row['commonest']:>13d} ({row['commonest_share']:6.1%})  {histogram_bar(self.counts[index])}"
            )
        return "\n".join(lines)


def histogram_bar(counts: np.ndarray, width: int = 24) -> str:
    """Counts in descending order, in `width` groups, as block characters of increasing height."""
    levels = " ▁▂▃▄▅▆▇█"
    groups = [group.sum() for group in np.array_split(np.sort(counts)[::-1], min(width, len(counts)))]
    top = max(max(groups), 1)
    return "".join(levels[math.ceil(int(group) * (len(levels) - 1) / int(top))] for group in groups)
