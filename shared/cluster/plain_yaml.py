"""Read the part of YAML that Kubernetes' own tools write: block mappings and sequences, scalars on one line.

The standard library has no YAML, and a kubeconfig is YAML. A document that uses more (anchors, tags, folded or
continued scalars) is refused with the number of its line, never read in another sense.
"""

from __future__ import annotations

import json
import re
from typing import Any

_KEY = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[\w./$][^:#]*?)\s*:(?:\s+(.*))?$""")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_MARKS = set("&*!|>%@`,]}?:-#")  # a plain scalar that begins so is something else


class Unreadable(ValueError):
    """The text is no YAML, or YAML beyond this reader."""


def parse(text: str) -> Any:
    """Return the content of one document: YAML, or JSON. Raise Unreadable with the line's number."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise Unreadable(f"invalid JSON: {error}") from None
    reader = _Reader(text)
    found = reader.node(reader.indent())
    if reader.at < len(reader.lines):
        raise reader.error("is not indented as the lines before")
    return found


class _Reader:
    """A position in the lines of a document."""

    def __init__(self, text: str) -> None:
        self.raw = text.replace("\r\n", "\n").split("\n")
        self.lines = [
            (number, _indent(line), line.strip(" \t"))
            for number, line in enumerate(self.raw, 1)
            if line.strip(" \t") and not line.lstrip(" \t").startswith("#")
        ]
        if self.lines and self.lines[0][2] == "---":
            del self.lines[0]
        self.at = 0
        for number, indent, _ in self.lines:
            if self.raw[number - 1][indent] == "\t":
                raise Unreadable(f"line {number} is indented by tabs")

    def error(self, reason: str) -> Unreadable:
        number, _, text = self.lines[min(self.at, len(self.lines) - 1)] if self.lines else (1, 0, "")
        # Never the text of a value: a kubeconfig has secrets.
        return Unreadable(f"line {number} ({text.partition(':')[0][:30]!r}) {reason}")

    def indent(self) -> int:
        return self.lines[self.at][1] if self.at < len(self.lines) else -1

    def node(self, indent: int) -> Any:
        """Read the mapping, sequence or scalar that begins here."""
        if indent < 0:
            return None
        if self._is_item():
            return self._sequence(indent)
        if _KEY.match(self.lines[self.at][2]):
            return self._mapping(indent)
        found = self._scalar(self.lines[self.at][2])
        self.at += 1
        return found

    def _is_item(self) -> bool:
        text = self.lines[self.at][2]
        return text == "-" or text.startswith("- ")

    def _sequence(self, indent: int) -> list[Any]:
        found = []
        while self.indent() == indent and self._is_item():
            number, _, text = self.lines[self.at]
            rest = text[1:].lstrip()
            if rest:
                inner = indent + len(text) - len(rest)
                self.lines[self.at] = number, inner, rest
            else:
                self.at += 1
                inner = self.indent() if self.indent() > indent else -1
            found.append(self.node(inner))
        return found

    def _mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.indent() == indent and not self._is_item():
            match = _KEY.match(self.lines[self.at][2])
            if match is None:
                raise self.error("is not 'key: value'")
            key = str(self._scalar(match[1])) if match[1][0] in "\"'" else match[1]
            if key in found:
                raise self.error("is there twice")
            found[key] = self._value(indent, (match[2] or "").strip())
        return found

    def _value(self, indent: int, text: str) -> Any:
        if text in ("|", "|-"):
            return self._literal(indent, keeps_end=text == "|")
        if text and not text.startswith("#"):
            found = self._scalar(text)
            self.at += 1
            return found
        self.at += 1
        if self.indent() > indent or (self.indent() == indent and self._is_item()):
            return self.node(self.indent())
        return None

    def _literal(self, indent: int, *, keeps_end: bool) -> str:
        first = end = self.lines[self.at][0]
        while end < len(self.raw) and (not self.raw[end].strip() or _indent(self.raw[end]) > indent):
            end += 1
        while self.at < len(self.lines) and self.lines[self.at][0] <= end:
            self.at += 1
        body = [line if line.strip(" ") else "" for line in self.raw[first:end]]
        margin = min((_indent(line) for line in body if line), default=0)
        text = "\n".join(line[margin:] for line in body)
        content = text.rstrip("\n")
        # The last line may lack its end.
        return content + "\n" if keeps_end and content and (content != text or end < len(self.raw)) else content

    def _scalar(self, text: str) -> Any:
        """Return the value of a scalar, or of a flow collection that is JSON, too."""
        try:
            if text[0] in '"{[':
                found, end = json.JSONDecoder().raw_decode(text)
                if _COMMENT.sub("", text[end:]).strip():
                    raise self.error("goes on after its value")
                return found
        except json.JSONDecodeError:
            raise self.error("has a value that this reader does not know") from None
        if text[0] == "'":
            match = re.fullmatch(r"'((?:[^']|'')*)'\s*(?:#.*)?", text)
            if match is None:
                raise self.error("has a quoted value that does not end on its line")
            return match[1].replace("''", "'")
        text = _COMMENT.sub("", text).strip()
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if text[0] in _MARKS or ": " in text or text.endswith(":"):
            raise self.error("has a value that this reader does not know")
        return text


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
