"""Actions that wait for the import of another package, so that `import mert_hf` itself is fast.

transformers takes seconds to import and imports torch. Programs that only run an exported model need neither; programs
that use transformers find MERT registered whether they import it before or after mert_hf.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def do_nothing() -> None:
    """An action that does nothing."""


def around_import(name: str, before: Callable[[], None] = do_nothing, after: Callable[[], None] = do_nothing) -> None:
    """Calls `before` and `after` around the first import of a module, or both now if it has been imported already."""
    if name in sys.modules:
        before()
        after()
    else:
        sys.meta_path.insert(0, ImportObserver(name, before, after))


class ImportObserver:
    """Meta path finder and loader of one package: its own loader does the work, with a call before and one after."""

    def __init__(self, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
        self.name, self.before, self.after = name, before, after
        self.searching = False
        self.loader = None

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None):
        """The specification that the other finders give, with this object as its loader."""
        if name != self.name or self.searching:
            return None
        self.searching = True
        try:
            spec: ModuleSpec | None = importlib.util.find_spec(name)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the package's own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Executes the package between the two calls; afterwards the package has its own loader again."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        module.__loader__ = module.__spec__.loader = self.loader
        self.before()
        self.loader.exec_module(module)
        self.after()
