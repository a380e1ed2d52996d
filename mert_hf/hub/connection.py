"""Whether the Hub can be reached, by one request: the client of the Hub repeats those of a loader for minutes."""

from __future__ import annotations

import sys

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from ..utils.text import one_line


def why_unreachable() -> str | None:
    """Why the Hub does not answer, in a few words; None where it answers with any status."""
    if constants.HF_HUB_OFFLINE:
        return "the Hub is switched off by HF_HUB_OFFLINE"
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except transport_errors() as error:
        return f"there is no connection to {constants.ENDPOINT} ({one_line(error)})"
    return None


def transport_errors() -> tuple[type[Exception], ...]:
    """Connection errors of whichever HTTP library this version of huggingface_hub uses."""
    names = (("requests", "RequestException"), ("httpx", "TransportError"), ("httpx2", "TransportError"))
    loaded = [getattr(sys.modules[module], name) for module, name in names if module in sys.modules]
    return (ConnectionError, TimeoutError, *loaded)
