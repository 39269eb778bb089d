"""Represent a netlink message while it is described, and the words for its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Rest:
    """The parts of a message that no sentence has described yet."""

    def __init__(self, message: Mapping[str, Any], names: Mapping[str, str]) -> None:
        # A header field that is 0 is unset; an attribute that is 0 is not.
        self.left = {name: value for name, value in message.items() if value or name.isupper()}
        self.names = names

    def take(self, name: str, default: Any = None) -> Any:
        """Remove a field or attribute and return its value."""
        return self.left.pop(name, default)

    def inner(self, name: str) -> Rest:
        """Remove a nested attribute and return its parts."""
        value = self.take(name)
        return Rest(value if isinstance(value, dict) else {} if value is None else {name: value}, self.names)

    def link(self, name: str = "index") -> str:
        """Remove a link's index and return the link's name."""
        number = self.take(name)
        return self.names.get(name, f"link {number}" if number else "")

    def flag(self, bit: int) -> bool | None:
        """Return a flag's new value, or None if the message does not change it."""
        change, flags = self.left.get("change", 0), self.left.get("flags", 0)
        if not change & bit:
            return None
        self.left |= {"change": change & ~bit, "flags": flags & ~bit}
        return bool(flags & bit)

    def take_words(self) -> list[str]:
        """Return words for all remaining parts, and remove them."""
        told = self.words()
        self.left = {}
        return told

    def words(self) -> list[str]:
        """Return words for the remaining parts."""
        return [
            f"{name} {self.names.get(name) or plain(value)}"
            for name, value in self.left.items()
            if value or name.isupper()
        ]


def plain(value: Any) -> str:
    """Return the words for a value of a message."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} {plain(one)}" for name, one in value.items() if one not in (None, {})) + "}"
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    return (
        {True: "yes", False: "no", None: "none"}.get(value, str(value))
        if value is None or isinstance(value, bool)
        else str(value)
    )
