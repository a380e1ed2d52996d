"""How a library is served: the options of `mert-hf serve`."""

from __future__ import annotations

import ipaddress
import math
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..utils.settings import check_positive, described, shared

TOKEN_VARIABLE = "MERT_HF_TOKEN"
PASSWORD_VARIABLE = "MERT_HF_PLAYER_PASSWORD"


@dataclass(frozen=True)
class ServeSettings:
    """How a library is served; each field has its help. ValueError for a value out of its range, an address that others
    can reach without a token, or a player without a user."""

    host: str = described("Address to listen on; one that others can reach needs a token.", "127.0.0.1")
    port: int = described("Port to listen on.", 8484)
    token: str | None = described(
        f"Secret that callers must give; that of the variable {TOKEN_VARIABLE} by default.", None
    )
    ids: str | None = described("CSV file with columns id and path: the player's ids of the recordings.", None)
    player: str | None = described("Address of the player, whose Subsonic API lists its ids: http://music:4533.", None)
    player_user: str | None = described("Name by which to log in to the player.", None)
    player_password: str | None = described(
        f"Password of the player; that of the variable {PASSWORD_VARIABLE} by default.", None
    )
    per_artist: int | None = described("Maximum number of songs of an artist in an answer.", None, min=1)
    per_album: int | None = described("Maximum number of songs of an album in an answer.", None, min=1)
    device: str | None = shared("device", None)
    max_megabytes: float = described("Largest upload, in units of 10^6 bytes.", 200.0)
    max_minutes: float = described("Longest recording that is uploaded.", 60.0)
    max_waiting: int = described("Uploads that wait while one is embedded; more are refused.", 8)
    max_connections: int = described("Connections at a time; more are refused.", 200)

    def __post_init__(self) -> None:
        check_positive(max_waiting=self.max_waiting, max_connections=self.max_connections)
        for name in ("max_megabytes", "max_minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a number above 0.")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port={self.port} must be from 0 (any free one) to 65535.")
        if not self.is_local and not self.secret:
            raise ValueError(
                f"host={self.host} can be reached by others. Give --token (or set {TOKEN_VARIABLE}), or listen on "
                "127.0.0.1."
            )
        if self.ids and self.player:
            raise ValueError("Ids come from --ids or from --player. Give one of them.")
        if self.player and not (urlsplit(self.player).scheme in ("http", "https") and self.player_user):
            raise ValueError(
                f"player={self.player!r} must be an address such as http://music:4533, with --player-user."
            )

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name
            return self.host == "localhost"

    @property
    def secret(self) -> str | None:
        """The token that callers must give, or None for all callers."""
        return self.token or os.environ.get(TOKEN_VARIABLE) or None

    @property
    def password(self) -> str:
        """The password for the player."""
        return self.player_password or os.environ.get(PASSWORD_VARIABLE, "")

    @property
    def max_bytes(self) -> int:
        """Bytes of the largest request."""
        return int(self.max_megabytes * 1e6)
