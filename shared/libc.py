"""Call C library functions that Python lacks, without the 3 ms that importing ctypes takes."""

from __future__ import annotations

try:
    import _ctypes
except ImportError:
    _ctypes = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def call(function: str, *arguments: int) -> int:
    """Call a C function with integer arguments. Raise OSError with its errno if it returns -1."""
    if _ctypes is not None:
        try:
            address = _ctypes.dlsym(_ctypes.dlopen(None, 0), function)  # type: ignore[arg-type]
            answer: int = _ctypes.call_function(address, arguments)
        except AttributeError:
            return _slow_call(function, *arguments)
        if answer != -1:
            return answer
    # the private call loses errno: repeat the call with the public module to get it
    return _slow_call(function, *arguments)


def advise(ranges: Iterable[tuple[int, int]], advice: int) -> None:
    """Call madvise(2) for memory of this process, each range an address and a number of bytes. Ignore errors."""
    if _ctypes is None:
        return

    class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001  (`call` cuts integers to 32 bits)
        _type_ = "L"

    address = _ctypes.dlsym(_ctypes.dlopen(None, 0), "madvise")  # type: ignore[arg-type]
    for start, length in ranges:
        _ctypes.call_function(address, (Long(start), Long(length), advice))


def _slow_call(function: str, *arguments: int) -> int:
    import ctypes
    import os

    answer: int = getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments)
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function)
    return answer
