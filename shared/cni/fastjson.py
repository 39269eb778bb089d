"""JSON with the C half of the json module; the Python half imports re and takes 8 ms."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

WHITE_SPACE = " \t\n\r"
NESTING_LIMIT = 200  # levels of lists and objects: later code recurses once per level


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _Scanning:
    """The settings that the C scanner reads."""

    strict = True
    object_hook = None
    object_pairs_hook: Any = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo: dict[str, str] = {}  # noqa: RUF012


def _native(settings: type = _Scanning) -> tuple[Callable[[str, int], tuple[Any, int]], Callable[[str], str]]:
    return _json.make_scanner(settings), _json.encode_basestring_ascii  # type: ignore[arg-type]


def _public() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[[str], str]]:
    import json

    return json.JSONDecoder(parse_constant=_refuse_constant).scan_once, json.dumps  # type: ignore[attr-defined]


try:
    import _json

    _scan, _quote = _native()
except Exception:  # noqa: BLE001  (the private module is absent, or its interface has changed)
    _scan, _quote = _public()


def loads(data: bytes) -> Any:
    """Return the value of one JSON document in UTF-8.

    Raise ValueError with the reason: not UTF-8, not JSON, more than one document, NaN or infinity, nested too deep.
    """
    text = data.decode("utf-8")
    start = len(text) - len(text.lstrip(WHITE_SPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"no JSON value at character {stop.value}") from None
    except SystemError:  # the C scanner needs the json module to raise its error
        value, end = _public()[0](text, start)
    except RecursionError:
        raise _too_deep() from None
    if data.count(b"[") + data.count(b"{") > NESTING_LIMIT and _is_deep(value):
        raise _too_deep()
    if text[end:].strip(WHITE_SPACE):
        raise ValueError(f"more than one JSON document: something follows at character {end}")
    return value


def _too_deep() -> ValueError:
    return ValueError(f"nested more than {NESTING_LIMIT} levels deep")


def _is_deep(value: Any) -> bool:
    """Return True if a list or object is nested below NESTING_LIMIT others."""
    level = [value]
    for _ in range(NESTING_LIMIT + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def repeated(data: bytes) -> set[str]:
    """Return the names that are repeated within one object; loads silently takes the last value."""
    found: set[str] = set()

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            names = [name for name, _ in pairs]
            found.update(name for name in members if names.count(name) > 1)
        return members

    class Looking(_Scanning):
        object_pairs_hook = staticmethod(look)

    text = data.decode("utf-8")
    start = len(text) - len(text.lstrip(WHITE_SPACE))
    try:
        _native(Looking)[0](text, start)
    except Exception:  # noqa: BLE001  (as above)
        import json

        json.loads(text, object_pairs_hook=look)
    return found


def dumps(value: Any, indent: str = "\n") -> str:
    """Return JSON text indented by four blanks, as CNI plugins print it; on one line if `indent` is empty."""
    if isinstance(value, str):
        return _quote(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    inner = indent and indent + "    "
    if isinstance(value, dict):
        members = [f"{_quote(str(key))}: {dumps(member, inner)}" for key, member in value.items()]
        return "{" + inner + ("," + (inner or " ")).join(members) + indent + "}" if members else "{}"
    elements = [dumps(element, inner) for element in value]
    return "[" + inner + ("," + (inner or " ")).join(elements) + indent + "]" if elements else "[]"
