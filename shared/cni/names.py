"""Check names, whole and in ASCII, before they become part of a path, a link or an owner's mark."""

from __future__ import annotations

ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
NAME_CHARACTERS = ALPHANUMERIC | frozenset("_.-")
NO_LINK_CHARACTERS = frozenset("/:% ")
LONGEST_NAME = 131_072  # bytes: MAX_ARG_STRLEN in linux/binfmts.h, more than an environment variable can hold
CHAIN_NAME_BYTES = 28  # XT_EXTENSION_MAXNAMELEN in linux/netfilter/x_tables.h, less the closing NUL
LINK_NAME_BYTES = 15  # IFNAMSIZ in linux/if.h, less the closing NUL


def is_name(value: str) -> bool:
    """Return True if it can name a network or container: the specification's form, in ASCII."""
    return 0 < len(value) <= LONGEST_NAME and value[0] in ALPHANUMERIC and NAME_CHARACTERS.issuperset(value)


def is_chain_name(value: str) -> bool:
    """Return True if it can name an iptables chain, safe in a script for iptables-restore."""
    return 0 < len(value) <= CHAIN_NAME_BYTES and value[0] in ALPHANUMERIC and NAME_CHARACTERS.issuperset(value)


def is_absolute_path(value: str) -> bool:
    """Return True if it is an absolute path without `..`, and printable."""
    return value.startswith("/") and value.isprintable() and ".." not in value.split("/")


def is_link_name(value: str) -> bool:
    """Return True if it can name a link (dev_valid_name in the kernel) and is safe in a path."""
    return (
        0 < len(value) <= LINK_NAME_BYTES
        and value.isascii()
        and value not in (".", "..")
        and value.isprintable()
        and NO_LINK_CHARACTERS.isdisjoint(value)
    )
