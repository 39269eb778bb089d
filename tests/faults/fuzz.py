"""Coverage-guided fuzzing of the readers of configurations, until one raises another error than CniError.

    python -m tests.faults.fuzz CORPUS… -runs=N -max_len=N        the arguments are libFuzzer's

A finding lies in crash-…. When it is mended, put it into tests/faults/corpus, from which every run starts.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["shared", "plugins", "ipam"]):
    from shared.cli.config.reading import reader
    from shared.cni import fastjson
    from shared.cni.call import Call
    from shared.cni.errors import CniError
    from shared.cni.plugin import previous_result, valid_attachments
    from shared.executables import PLUGINS

    READERS = (*filter(None, map(reader, PLUGINS)), valid_attachments)

VARIABLES = {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
}  # fmt: skip


def one(data: bytes) -> None:
    """Read a configuration as a call does before anything is touched."""
    call = Call(VARIABLES)
    try:
        call.read_config(data)
    except CniError:
        return
    for read in READERS:
        with suppress(CniError):
            read(call)
    with suppress(CniError):
        result = previous_result(call)
        if result is not None:
            for version in ("1.1.0", "1.0.0", "0.4.0", "0.2.0"):
                fastjson.dumps(result.to_json(version))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
