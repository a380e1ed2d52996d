"""MTG-Jamendo instrument: 40 instrument tags of whole tracks. Layout, licence and split: `mtg_jamendo`."""

from .mtg_jamendo import mtg_task

TASK = mtg_task("instrument", "MTG-Jamendo instrument", name="mtg_instrument")
