"""Read tables of the kernel that have tens of thousands of entries, of which few change between two readings.

Most of a reading's time goes into decoding. An entry that has the same bytes as in the last reading is not decoded
again.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import calcsize
from typing import TYPE_CHECKING, Any, TypeVar

from shared.net import messages
from shared.net.messages import ATTRIBUTE_BYTES, NLA_TYPE_MASK, unpack_attribute
from shared.net.netlink import Netlink, Request
from shared.net.wire import NLM_F_DUMP

if TYPE_CHECKING:
    from shared.net.netlink import Message, NetlinkError

MOST_DUMPS = 20  # in a memory: more are of devices that are gone
Read = TypeVar("Read")
# what was read last, by the dump's type and filter: the results by the messages' bytes
Memory = dict[str, dict[bytes, Any]]


class Recalling(Netlink):
    """A netlink socket whose dumps recall the results of the last ones from a memory that the caller keeps."""

    _has_refused = False

    def __init__(self, memory: Memory | None = None) -> None:
        super().__init__()
        self._memory: Memory = {} if memory is None else memory
        if len(self._memory) > MOST_DUMPS:
            self._memory.clear()

    def recall(
        self, kind: int, like: Message, read: Callable[[Message], Read | None], *, without: int = 0
    ) -> list[Read]:
        """Return the results of `read` for all objects of a kind, except None. `read` may use its argument alone.

        The attribute with the number `without` is left out: it changes all the time, and `read` does not need it.
        """
        name, request = f"{kind} {like}", Request(kind, like, NLM_F_DUMP)
        found = self._retry_read(lambda: self._recall_once(request, read, without, self._memory.get(name, {})))
        self._memory[name] = found
        return list(found.values())

    def _recall_once(
        self, request: Request, read: Callable[[Message], Read | None], without: int, before: dict[bytes, Read]
    ) -> dict[bytes, Read]:
        found = {}
        for kind, data, start, end in self._dump_parts(request):
            content = data[start:end]
            if without:
                content = _cut(content, calcsize(self.tables.STRUCTURES[self.tables.MESSAGES[kind]][1]), without)
            result = before.get(content)
            if result is None:
                result = read(messages.decode(kind, content, 0, len(content), self.tables))
            if result is not None:
                found[content] = result
        return found

    def change(self, requests: list[Request]) -> bool:
        """Send a batch. Return False if the kernel refused a request, though the request tolerates it."""
        self._has_refused = False
        self.batch(requests)
        return not self._has_refused

    def _refusal(self, request: Request, flags: int, data: bytes, start: int, end: int) -> NetlinkError | None:
        self._has_refused = self._has_refused or messages.decode_error(data, start, end) != 0
        return super()._refusal(request, flags, data, start, end)


def _cut(content: bytes, start: int, without: int) -> bytes:
    """Return a message's body without the attributes of a number. `start` is the end of its fixed part."""
    while start + ATTRIBUTE_BYTES <= len(content):
        length, number = unpack_attribute(content, start)
        end = start + (length + 3 & ~3)
        if length < ATTRIBUTE_BYTES:
            break
        if number & NLA_TYPE_MASK == without:
            content = content[:start] + content[end:]
        else:
            start = end
    return content
