"""Declare the command line of the dhcp daemon, with the standard library only."""

from __future__ import annotations

import argparse
import re

EPILOG = """The plugin dhcp asks this daemon over its socket. Leases are stored in /var/lib/cni/dhcp, so a new daemon
renews those of an earlier one. `dhcp daemon`, the reference's command, does the same."""
DURATIONS = (
    ("timeout", "timeout", "10s", "send a message again after this time at the latest"),
    ("resendmax", "resend_max", "62s", "the longest pause between two sendings"),
    ("resendtimeout", "resend_timeout", "45s", "an ADD fails after this time without a lease"),
)


def _duration(text: str) -> float:
    """Parse a duration of Go, such as 10s or 1m2s, into seconds."""
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?(?:([\d.]+)ms)?", text)
    try:
        numbers = [float(number) for number in parts.groups("0")] if text and parts else []
    except ValueError:
        numbers = []
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 10s or 1m2s")
    return sum(number * size for number, size in zip(numbers, (3600, 60, 1, 0.001), strict=True))


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "t", "f", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "t", "1")


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the daemon, as the reference spells them."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("-pidfile", "--pidfile", metavar="FILE", default="", help="write the process id to FILE")
    parser.add_argument(
        "-socketpath", "--socketpath", metavar="PATH", dest="socket_path", default="",
        help="listen here (default: /run/cni/dhcp.sock, or the socket that systemd passes)",
    )  # fmt: skip
    parser.add_argument(
        "-hostprefix", "--hostprefix", metavar="DIR", dest="host_prefix", default="",
        help="where the host's root is mounted; it precedes the paths of socket, leases and namespaces",
    )  # fmt: skip
    parser.add_argument(
        "-broadcast", "--broadcast", nargs="?", const=True, default=False, type=_truth,
        help="ask servers to broadcast their answers, unless a network's configuration decides",
    )  # fmt: skip
    for name, dest, default, text in DURATIONS:
        parser.add_argument(
            f"-{name}", f"--{name}", dest=dest, metavar="DURATION", type=_duration, default=_duration(default),
            help=f"{text} (default: {default})",
        )  # fmt: skip
