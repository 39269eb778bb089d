"""Counting the messages of a call in the output of strace."""

from __future__ import annotations

WAITS = "setsockopt,close"
"""The system calls that strace has to show as well, so that a wait can be told from the rest."""


def messages_outside_waits(calls: list[str]) -> int:
    """Count the messages that a call sends, without those inside a wait for the kernel.

    A wait asks again at each notification, as often as the kernel happens to send one.
    """
    sent, listener = 0, ""
    for call in calls:
        if "NETLINK_ADD_MEMBERSHIP" in call:
            listener = call.split("(")[1].split(",")[0]
        elif listener and call.startswith(f"close({listener})"):
            listener = ""
        elif not listener and call.startswith(("sendto(", "sendmsg(")):
            sent += 1
    return sent
