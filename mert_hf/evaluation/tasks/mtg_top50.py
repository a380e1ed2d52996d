"""MTG-Jamendo top 50: the 50 most frequent tags of whole tracks. Layout, licence and split: `mtg_jamendo`."""

from .mtg_jamendo import mtg_task

TASK = mtg_task("top50tags", "MTG-Jamendo top 50", name="mtg_top50")
