"""Imports that wait or fail: actions around the import of another package, names loaded on use, a broken torchaudio.

transformers takes seconds to import and imports torch. Programs that only run an exported model need neither; programs
that use transformers find MERT registered whether they import it before or after mert_hf.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .optional import needs_extra

logger = logging.getLogger(__name__)


def lazy_names(package: str, extra: str | None = None) -> tuple[list[str], Callable[[str], Any]]:
    """`__all__` and `__getattr__` of a package that loads its public names when they are first used.

    They are what the package imports `if TYPE_CHECKING`: one list for readers, type checkers and the program. An extra
    of mert_hf may have to install what these modules import.
    """
    source = sys.modules[package].__spec__.loader.get_source(package)
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: "." * node.level + (node.module or "") for node in imports for alias in node.names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needs_extra(extra) if extra else nullcontext():
            module = importlib.import_module(homes[name], package)
        return getattr(module, name)

    return sorted(homes), load


def around_import(name: str, *, before: Callable[[], Any] | None = None, after: Callable[[], Any]) -> None:
    """Calls `before` and `after` around the first import of a module, or both now if it has been imported already."""
    before = before or (lambda: None)
    if name in sys.modules:
        before()
        after()
    else:
        sys.meta_path.insert(0, ImportObserver(name, before, after))


class ImportObserver:
    """Meta path finder and loader of one package: its own loader does the work, with a call before and one after."""

    def __init__(self, name: str, before: Callable[[], Any], after: Callable[[], Any]) -> None:
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
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Executes the package between the two calls; afterwards the package has its own loader again."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        module.__loader__ = module.__spec__.loader = self.loader
        self.before()
        self.loader.exec_module(module)
        self.after()


def hide_broken_torchaudio() -> None:
    """Makes transformers work without torchaudio where its import fails.

    transformers 5 imports torchaudio wherever it is installed, and the build on the package index is made for CUDA:
    with a CPU torch it cannot load, and the import of every audio model fails. Nothing here needs torchaudio.
    """
    if "torchaudio" in sys.modules or importlib.util.find_spec("torchaudio") is None:
        return
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:
        sys.modules["torchaudio"] = None  # type: ignore[assignment]  # import machinery: as if it were not installed
        import_utils = sys.modules.get("transformers.utils.import_utils")  # which may have stored what is installed
        for name in ("is_torchaudio_available", "_is_package_available"):
            if hasattr(cached := getattr(import_utils, name, None), "cache_clear"):
                cached.cache_clear()
        logger.warning(
            "torchaudio is installed but cannot load (%s); mert_hf works without it. `pip uninstall torchaudio` "
            "also fixes other programs that use transformers.",
            error,
        )


@contextmanager
def torchaudio_or_a_stub() -> Iterator[None]:
    """During an import, an empty module in place of a torchaudio that is missing or hidden.

    Packages that import it read files with it, which mert_hf reads itself.
    """
    if importlib.util.find_spec("torchaudio") is not None:
        yield
        return
    before = {name: module for name, module in sys.modules.items() if name == "torchaudio"}  # None where it is hidden
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
    try:
        yield
    finally:
        del sys.modules["torchaudio"]
        sys.modules.update(before)
