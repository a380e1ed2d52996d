"""Actions that wait until a module of another package is imported, so that they do not import it themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class ActingFinder:
    """Meta path finder that runs an action once a module has been executed.

    Args:
        name: full name of the module.
        action: called with the module.
    """

    def __init__(self, name: str, action: Callable[[ModuleType], None]):
        self.name, self.action = name, action

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own specification, whose loader also runs the action; None for all other modules."""
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            self.action(module)

        spec.loader.exec_module = execute_and_act
        return spec


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Runs an action when a module is imported, or now if it has been imported already.

    Args:
        name: full name of the module.
        action: called once, with the module.
    """
    if name in sys.modules:
        action(sys.modules[name])
    elif not any(isinstance(finder, ActingFinder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, ActingFinder(name, action))
