"""Optional packages that are installed but cannot load must not make the import of this package fail."""

from __future__ import annotations

import importlib.util
import logging
import sys

logger = logging.getLogger(__name__)


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
        _forget_availability()
        logger.warning(
            "torchaudio is installed but cannot load (%s); mert_hf works without it. `pip uninstall torchaudio` "
            "also fixes other programs that use transformers.",
            error,
        )


def _forget_availability() -> None:
    """Clears what transformers has stored about installed packages, if it was imported before."""
    import_utils = sys.modules.get("transformers.utils.import_utils")
    for name in ("is_torchaudio_available", "_is_package_available"):
        forget = getattr(getattr(import_utils, name, None), "cache_clear", None)
        if forget is not None:
            forget()
