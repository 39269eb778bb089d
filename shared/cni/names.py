"""Which names are safe: checked whole, in ASCII, before one becomes a path, a link or an owner's mark."""

from __future__ import annotations

ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
NAME_CHARACTERS = ALPHANUMERIC | frozenset("_.-")
LONGEST_NAME = 131_072  # bytes: MAX_ARG_STRLEN in linux/binfmts.h, more than an environment variable can hold
CHAIN_NAME_BYTES = 28  # XT_EXTENSION_MAXNAMELEN in linux/netfilter/x_tables.h, less the closing NUL
LINK_NAME_BYTES = 15  # IFNAMSIZ in linux/if.h, less the closing NUL


def is_name(value: str) -> bool:
    """Whether it may stand for a network or container: the specification's form, in ASCII, matched whole."""
    return 0 < len(value) <= LONGEST_NAME and value[0] in ALPHANUMERIC and NAME_CHARACTERS.issuperset(value)


def is_chain_name(value: str) -> bool:
    """Whether it may stand for a chain of iptables, in a script of iptables-restore, too."""
    return 0 < len(value) <= CHAIN_NAME_BYTES and value[0] in ALPHANUMERIC and NAME_CHARACTERS.issuperset(value)


def is_absolute_path(value: str) -> bool:
    """Whether it is a path from the root that no `..` leads elsewhere and that can be shown."""
    return value.startswith("/") and value.isprintable() and ".." not in value.split("/")


def is_link_name(value: str) -> bool:
    """Whether the kernel takes it as a link's name (dev_valid_name) and it is safe in a path."""
    return (
        0 < len(value) <= LINK_NAME_BYTES
        and value.isascii()
        and value not in (".", "..")
        and not any(character in "/:%" or character.isspace() or not character.isprintable() for character in value)
    )
