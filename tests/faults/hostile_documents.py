"""Row 8, stdin as a whole: no JSON, too much of it, in the wrong encoding; streams that are closed or full."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.faults.hostile_cases import ALL_VERBS, ATTACHED, CONFIGS, EVERY, FULL, Case, case, having

DEEP = 100_000
MEGABYTES = 10 << 20


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for plugin, config in EVERY.items():
        text = json.dumps(config)
        yield from _not_an_object(plugin, text)
        yield from _nested(plugin, text)
        if plugin in CONFIGS:  # the others read it by the same code
            yield from _long(plugin, text)
        yield from _encoded(plugin, text)
        yield from _streams(plugin)
    yield from _truncated()


def _not_an_object(plugin: str, text: str) -> Iterator[Case]:
    documents = {
        "empty": "",
        "null": "null",
        "list of the object": f"[{text}]",
        "comma after the last": text[:-1] + ",}",
        "white space": " \n\t",
        "number": "1",
        "string": '"x"',
        "true": "true",
        "no JSON": "bridge",
        "two documents": text * 2,
        "single quotes": text.replace('"', "'"),
        "something behind": text + "x",
        "raw newline in a string": text.replace("hostile", "hos\ntile"),
        "raw NUL in a string": text.replace("hostile", "hos\0tile"),
        "comment": "// no\n" + text,
    }
    for verb in ALL_VERBS:
        for name, document in list(documents.items())[: None if verb == "ADD" else 4]:
            yield case(plugin, verb, name, document, 6)


def _nested(plugin: str, text: str) -> Iterator[Case]:
    inside = text[:-1].encode() + b', "x": '
    yield case(plugin, "ADD", "nested lists", [(b"[", DEEP), (b"]", DEEP)], 6)
    yield case(plugin, "ADD", "nested objects", [(b'{"a":', DEEP), (b"1", 1), (b"}", DEEP)], 6)
    yield case(plugin, "ADD", "nested in a key", [(inside, 1), (b"[", DEEP), (b"]", DEEP), (b"}", 1)], 6)
    yield case(plugin, "DEL", "nested and never closed", [(b'[{"a":', DEEP)], 6)


def _long(plugin: str, text: str) -> Iterator[Case]:
    start, name, end = text.encode().partition(b"hostile")
    inside = text[:-1].encode() + b', "x": '
    yield case(plugin, "ADD", "10 MB of blanks", [(b" ", MEGABYTES), (text.encode(), 1)], may_succeed=True)
    unknown = [(inside + b'"', 1), (b"x", MEGABYTES), (b'"}', 1)]
    yield case(plugin, "ADD", "10 MB in an unknown key", unknown, may_succeed=True)
    yield case(plugin, "ADD", "10 MB of letters", [(b"x", MEGABYTES)], 6)
    yield case(plugin, "DEL", "10 MB of NUL", [(b"\0", MEGABYTES)], 6)
    yield case(plugin, "ADD", "10 MB of digits", [(inside, 1), (b"9", MEGABYTES), (b"}", 1)], 6)
    yield case(plugin, "ADD", "17 MB", [(b" ", 17 << 20), (text.encode(), 1)], 5)
    big_name = [(start, 1), (name, MEGABYTES // len(name)), (end, 1)]
    yield case(plugin, "ADD", "10 MB in the name", big_name, 5, 7, may_succeed=plugin == "loopback")


def _encoded(plugin: str, text: str) -> Iterator[Case]:
    data = text.encode()
    hostile = {
        "UTF-8 with BOM": text.encode("utf-8-sig"),
        "UTF-16": text.encode("utf-16"),
        "Latin-1": data.replace(b"hostile", b"h\xf6stile"),
        "UTF-16 LE": text.encode("utf-16-le"),
        "UTF-16 BE": text.encode("utf-16-be"),
        "UTF-32": text.encode("utf-32"),
        "lone continuation byte": data.replace(b"hostile", b"hos\x80tile"),
        "overlong slash": data.replace(b"hostile", b"hos\xc0\xaftile"),
        "surrogate in UTF-8": data.replace(b"hostile", b"hos\xed\xa0\x80tile"),
        "beyond Unicode": data.replace(b"hostile", b"hos\xf4\x90\x80\x80tile"),
        "cut character": data[:-1] + b', "x": "\xe2\x82',
        "bad byte behind": data + b"\xff",
    }
    for verb, number in (("ADD", None), ("DEL", 3)):
        for name, document in list(hostile.items())[:number]:
            yield case(plugin, verb, name, document, 6)


def _streams(plugin: str) -> Iterator[Case]:
    attached = having(plugin, **ATTACHED, name="streams")
    for verb in (*ALL_VERBS, "VERSION"):
        for redirect in (">&-", ">/dev/full"):
            quiet = verb not in ("ADD", "VERSION")  # they have nothing to say where all is well
            yield case(plugin, verb, redirect, attached, redirect=redirect, mute=True, may_succeed=quiet)
    for verb in ALL_VERBS:
        for redirect in ("<&-", "</dev/null", "</proc/self/mem"):
            yield case(plugin, verb, redirect, EVERY[plugin], 5, 6, redirect=redirect)
    yield case(plugin, "ADD", "all closed", EVERY[plugin], redirect="<&- >&- 2>&-", mute=True)
    yield case(plugin, "ADD", "stderr closed", EVERY[plugin], redirect="2>&-", may_succeed=True)
    yield case(plugin, "ADD", "no JSON, stdout closed", "{", redirect=">&-", mute=True)


def _truncated() -> Iterator[Case]:
    for plugin, verb, config, step in (
        ("bridge", "ADD", FULL, 8),
        ("bridge", "DEL", CONFIGS["bridge"], 25),
        ("host-local", "ADD", CONFIGS["host-local"], 11),
        ("loopback", "ADD", CONFIGS["loopback"], 11),
    ):
        text = json.dumps(config)
        for end in range(1, len(text), step):
            yield case(plugin, verb, f"cut after {end} bytes", text[:end], 6)
