"""Licenses of weights: what the makers of a model state, and what follows for a model that was made from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from .names import RANDOM_PREFIX, local_checkpoint

logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
AUTHORS_LICENSE = "cc-by-nc-4.0"  # of the weights of m-a-p
OURS = "apache-2.0"
# Those that let a model made from the weights have our license.
PERMISSIVE = frozenset({OURS, "mit", "isc", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "unlicense"})


def base_license(base: str) -> tuple[str | None, str]:
    """The license that the card of a base model states, which holds for the weights made from it, and where."""
    folder = local_checkpoint(base) or Path(base)
    if (folder / CARD_FILE).is_file():
        license_name = stated_license(folder)
        return license_name, "as stated by the card of the base model" if license_name else ""
    if base.startswith("m-a-p/"):
        return AUTHORS_LICENSE, "the license of the base model's weights"
    return None, ""


def stated_license(folder: Path) -> str | None:
    """The license in the metadata of a folder's card; None, with a warning, where the card cannot be read."""
    if not (folder / CARD_FILE).is_file():
        return None
    try:
        stated = ModelCard.load(folder / CARD_FILE, ignore_metadata_errors=True).data.license
    except (ValueError, TypeError, KeyError) as error:
        logger.warning("The card of %s cannot be read (%s): its license is not carried over.", folder, error)
        return None
    return str(stated) if stated else None


def license_of(name: str, encoder: Any = None) -> str | None:
    """The license of an encoder's weights by its name, or its attribute `license`; None where it is not known."""
    if stated := getattr(encoder, "license", None):
        return str(stated).lower()
    return OURS if name.startswith(RANDOM_PREFIX) else base_license(name)[0]


def student_license(sources: Mapping[str, str]) -> tuple[str | None, str]:
    """The license of a model made from others, and a note where it comes from.

    `sources` are the licenses of the weights from which it learned by their names, empty where one is not known. Ours
    where all are permissive; that of the others where it is a single one; None where one is not known or there are
    several.
    """
    binding = {name: stated for name, stated in sources.items() if stated not in PERMISSIVE}
    if not binding:
        return OURS, ""
    licenses = set(binding.values())
    note = "of the teachers, " + ", ".join(f"{name} ({stated or 'not known'})" for name, stated in binding.items())
    return (next(iter(licenses)) or None) if len(licenses) == 1 else None, note


def check_license(wanted: str, sources: Mapping[str, str]) -> None:
    """Raises ValueError for a license that allows more than those of the sources, as far as they are known."""
    for name, stated in sources.items():
        bound = stated and stated not in PERMISSIVE
        if bound and (wanted in PERMISSIVE or (is_non_commercial(stated) and not is_non_commercial(wanted))):
            raise ValueError(
                f"A model that learned from {name} ({stated}) cannot have the license {wanted}. Leave the license out, "
                f"which gives {student_license(sources)[0] or 'none'}, or train without {name}."
            )


def is_non_commercial(name: str) -> bool:
    return "nc" in name.lower().replace("_", "-").split("-") or "noncommercial" in name.lower().replace("-", "")
