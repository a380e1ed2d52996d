"""MTG-Jamendo mood and theme: 56 moods and themes of whole tracks. Layout, license and split: `mtg_jamendo`."""

from .mtg_jamendo import mtg_task

TASK = mtg_task(
    "moodtheme",
    "MTG-Jamendo mood and theme",
    name="mtg_moodtheme",
    table="MTGMood",
    manifest="a87386b3cfd11f633dd00fbf5dbe4c05663e5298105c80fc800bfebd741f4ee6",
    counts=(9949, 3802, 4231),
)
