"""MTG-Jamendo genre: 87 genres of whole tracks. Layout, licence and split: `mtg_jamendo`."""

from .mtg_jamendo import mtg_task

TASK = mtg_task("genre", "MTG-Jamendo genre", name="mtg_genre")
