"""What the Hub refuses, as errors of one line that say how to fix it."""

from __future__ import annotations

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

from ..utils.text import one_line
from .connection import transport_errors


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
