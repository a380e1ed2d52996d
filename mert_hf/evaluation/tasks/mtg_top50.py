"""MTG-Jamendo top 50: the 50 most frequent tags of whole tracks. Layout, license and split: `mtg_jamendo`."""

from .mtg_jamendo import mtg_task

TASK = mtg_task(
    "top50tags",
    "MTG-Jamendo top 50",
    name="mtg_top50",
    table="MTGTop50",
    manifest="be0e9a7bd57eda26208800172d3212cb180ea6ae33bb339c19431a1ba06de72a",
    counts=(32136, 10888, 11356),
)
