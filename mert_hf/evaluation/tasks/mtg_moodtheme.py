"""MTG-Jamendo mood and theme: 56 moods and themes of whole tracks. Layout, licence and split: `mtg_jamendo`."""

from .mtg_jamendo import mtg_task

TASK = mtg_task("moodtheme", "MTG-Jamendo mood and theme", name="mtg_moodtheme")
