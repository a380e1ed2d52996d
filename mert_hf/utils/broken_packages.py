"""Optional packages that are installed but cannot load must not take the whole package down."""

from __future__ import annotations

import importlib.util
import logging
import sys

logger = logging.getLogger(__name__)


def hide_broken_torchaudio() -> None:
    """Makes transformers go without torchaudio where its import fails.

    transformers 5 imports torchaudio wherever it is installed, and the build on the package index is made for CUDA:
    beside a CPU torch it cannot load, and the import of every audio model fails with it. Nothing here needs torchaudio.
    """
    if "torchaudio" in sys.modules or importlib.util.find_spec("torchaudio") is None:
        return
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:
        sys.modules["torchaudio"] = None  # type: ignore[assignment]  # import machinery: as if it were not installed
        _forget_availability()
        logger.warning(
            "torchaudio is installed but cannot load (%s); mert_hf goes on without it. `pip uninstall torchaudio` "
            "mends other programs too.",
            error,
        )


def _forget_availability() -> None:
    """transformers may have been imported before, and remembers which packages it has seen."""
    import_utils = sys.modules.get("transformers.utils.import_utils")
    for name in ("is_torchaudio_available", "_is_package_available"):
        forget = getattr(getattr(import_utils, name, None), "cache_clear", None)
        if forget is not None:
            forget()
