"""Call C library functions that Python lacks, without the 3 ms that importing ctypes takes."""

from __future__ import annotations

try:
    import _ctypes
except ImportError:
    _ctypes = None  # type: ignore[assignment]


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


def advise(start: int, length: int, advice: int) -> None:
    """Call madvise(2) for memory of this process, whose addresses `call` would cut. Ignore errors."""
    if _ctypes is not None:
        address = _ctypes.dlsym(_ctypes.dlopen(None, 0), "madvise")  # type: ignore[arg-type]
        _ctypes.call_function(address, (_long(start), _long(length), advice))


def _long(value: int) -> object:
    """Return an argument of the machine's size."""

    class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
        _type_ = "L"

    return Long(value)


def _slow_call(function: str, *arguments: int) -> int:
    import ctypes
    import os

    answer: int = getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments)
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function)
    return answer
