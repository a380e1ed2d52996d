"""MTG-Jamendo genre: 87 genres of whole tracks. Layout, license and split: `mtg_jamendo`."""

from .mtg_jamendo import mtg_task

TASK = mtg_task(
    "genre",
    "MTG-Jamendo genre",
    name="mtg_genre",
    table="MTGGenre",
    manifest="e0e05f4c2dca16f38908df9c8bbd5d47a7d56d1a7908b3175479d7dcf8acd326",
    counts=(32572, 11043, 11479),
)
