"""Modules that have moved: the old name still imports for one release, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED_MODULES = {
    "mert_hf.audio.metadata": "mert_hf.data.metadata",
    "mert_hf.broken_packages": "mert_hf.utils.broken_packages",
    "mert_hf.cards": "mert_hf.hub.cards",
    "mert_hf.cards.card": "mert_hf.hub.cards.card",
    "mert_hf.cards.facts": "mert_hf.hub.cards.facts",
    "mert_hf.cards.training": "mert_hf.hub.cards.training",
    "mert_hf.checkpoints": "mert_hf.hub.names",
    "mert_hf.connection": "mert_hf.hub.connection",
    "mert_hf.conversion.json_file": "mert_hf.utils.json_files",
    "mert_hf.conversion.staging": "mert_hf.utils.staging",
    "mert_hf.doctor_model": "mert_hf.doctor.model",
    "mert_hf.embedding_dataset": "mert_hf.embedding.dataset",
    "mert_hf.embedding_shards": "mert_hf.embedding.shards",
    "mert_hf.evaluation.tasks.keys": "mert_hf.data.keys",
    "mert_hf.finetuning.data": "mert_hf.data.dataset",
    "mert_hf.outputs": "mert_hf.utils.outputs",
    "mert_hf.quickstart_report": "mert_hf.quickstart.report",
    "mert_hf.score_sets": "mert_hf.quickstart.score_sets",
    "mert_hf.scores": "mert_hf.quickstart.scores",
}


class MovedModuleFinder:
    """Meta path finder that returns the module of the new name for an old name."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The specification of an old name; None for any other name."""
        return ModuleSpec(name, MovedModuleFinder) if name in MOVED_MODULES else None

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        """The module of the new name."""
        home = MOVED_MODULES[spec.name]
        warnings.warn(
            f"{spec.name} has moved to {home}; the old name will be removed in the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return importlib.import_module(home)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Does nothing: the module was executed under its new name."""


def keep_old_names() -> None:
    """Installs the finder, once."""
    if MovedModuleFinder not in sys.meta_path:
        sys.meta_path.append(MovedModuleFinder)
