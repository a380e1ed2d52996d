"""The 24 major and minor keys: names, and their parsing with mir_eval's table of note names."""

from __future__ import annotations

from ..utils.optional import needs_extra

TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)


def key_index(text: str, where: object) -> int:
    """Index in `KEYS` of a key such as "C# minor" or "db maj". Raises ValueError for another text."""
    with needs_extra("eval"):
        from mir_eval.key import KEY_TO_SEMITONE

    words = text.lower().split()
    modes = {"major": 0, "maj": 0, "minor": 1, "min": 1}
    if len(words) == 2 and words[1] in modes and KEY_TO_SEMITONE.get(words[0]) is not None:
        return KEY_TO_SEMITONE[words[0]] + 12 * modes[words[1]]
    raise ValueError(f"{where}: unknown key {text!r}; the keys are {', '.join(KEYS)} (sharps are read too).")
