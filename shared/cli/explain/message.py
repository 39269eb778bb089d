"""A message, and the words for its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Rest:
    """A message, of which the sentences take what they tell."""

    def __init__(self, message: Mapping[str, Any], names: Mapping[str, str]) -> None:
        # a header field that is 0 says nothing, an attribute that is 0 does
        self.left = {name: value for name, value in message.items() if value or name.isupper()}
        self.names = names

    def take(self, name: str, default: Any = None) -> Any:
        """A field's or attribute's value."""
        return self.left.pop(name, default)

    def inner(self, name: str) -> Rest:
        """What is nested in an attribute."""
        value = self.take(name)
        return Rest(value if isinstance(value, dict) else {} if value is None else {name: value}, self.names)

    def link(self, name: str = "index") -> str:
        """The link that a field or attribute refers to."""
        number = self.take(name)
        return self.names.get(name, f"link {number}" if number else "")

    def flag(self, bit: int) -> bool | None:
        """What `flags` and `change` say of a flag; None for nothing."""
        change, flags = self.left.get("change", 0), self.left.get("flags", 0)
        if not change & bit:
            return None
        self.left |= {"change": change & ~bit, "flags": flags & ~bit}
        return bool(flags & bit)

    def all(self) -> list[str]:
        """The same, and it counts as told."""
        told = self.words()
        self.left = {}
        return told

    def words(self) -> list[str]:
        """What nobody told."""
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
