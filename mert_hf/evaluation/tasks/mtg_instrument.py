"""MTG-Jamendo instrument: 40 instrument tags of whole tracks. Layout, license and split: `mtg_jamendo`."""

from .mtg_jamendo import mtg_task

TASK = mtg_task(
    "instrument",
    "MTG-Jamendo instrument",
    name="mtg_instrument",
    table="MTGInstrument",
    manifest="4747943718b58ae5ba4680f34e1a97f5f51a75a6f09c62ee66bc022a074dc176",
    counts=(14395, 5466, 5115),
)
