"""Calls into the C library that Python has no function for, without the 3 ms that importing ctypes costs."""

from __future__ import annotations

try:
    import _ctypes
except ImportError:
    _ctypes = None  # type: ignore[assignment]


def call(function: str, *arguments: int) -> int:
    """Calls a C function of integer arguments.

    Raises OSError with the C library's errno where the function answers -1.
    """
    if _ctypes is not None:
        try:
            address = _ctypes.dlsym(_ctypes.dlopen(None, 0), function)  # type: ignore[arg-type]
            answer: int = _ctypes.call_function(address, arguments)
        except AttributeError:
            return _slow_call(function, *arguments)
        if answer != -1:
            return answer
    # errno did not survive the private call: the public module repeats it to learn the reason
    return _slow_call(function, *arguments)


def _slow_call(function: str, *arguments: int) -> int:
    import ctypes
    import os

    answer: int = getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments)
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function)
    return answer
