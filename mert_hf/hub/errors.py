"""Errors of the Hub in one line that says how to fix it, and whether the Hub can be reached."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from ..utils.text import one_line


class PushError(ValueError):
    """A push that the Hub refused or that cannot work; the message is one line and says how to fix it."""


@contextmanager
def one_line_errors(repo_id: str) -> Iterator[None]:
    """Turns the exceptions of the Hub client into a PushError of one line."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise PushError("The Hub is switched off by HF_HUB_OFFLINE. Unset it to push.") from error
    except HFValidationError as error:
        raise PushError(f"repo_id {repo_id!r} is malformed, give 'owner/name': {one_line(error)}") from error
    except RevisionNotFoundError as error:
        raise PushError(f"{repo_id} has no such revision: {one_line(error)}") from error
    except HfHubHTTPError as error:
        raise PushError(_refusal(error, repo_id)) from error
    except transport_errors() as error:
        raise PushError(
            f"There is no connection to {constants.ENDPOINT} ({one_line(error)}). Try again later."
        ) from error


def http_status(error: HfHubHTTPError) -> int | None:
    """The status of the response that an error reports, if there was one."""
    return error.response.status_code if error.response is not None else None


def _refusal(error: HfHubHTTPError, repo_id: str) -> str:
    status, reason = http_status(error), error.server_message or one_line(error)
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return f"The Hugging Face token is not valid ({reason}). Log in again with `hf auth login`, or renew HF_TOKEN."
    if status in (401, 403):
        return f"The token may not write to {repo_id} ({reason}). Use a token with write access to that namespace."
    if status == 409:
        return f"{repo_id} was changed or created at the same time ({reason}). Try again."
    return f"The Hub refused the push to {repo_id}: {status} {reason}"


def why_unreachable() -> str | None:
    """Why the Hub does not answer, in a few words; None where it answers with any status.

    One request: the client of the Hub repeats those of a loader for minutes.
    """
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
