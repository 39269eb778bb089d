"""The settings of a dhcp daemon."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The daemon's command line; times in seconds."""

    socket_path: str
    host_prefix: str = ""
    broadcast: bool = False
    timeout: float = 10.0  # until a message is sent again
    resend_max: float = 62.0  # the longest pause between two sendings
    resend_timeout: float = 45.0  # for an ADD, below the 50 seconds that the plugin waits

    @property
    def limits(self) -> tuple[float, float]:
        """Return the limits of a client's first pause, and of all its pauses."""
        return self.timeout, self.resend_max
