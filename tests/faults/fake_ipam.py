"""IPAM plugins that misbehave: small shell programs in a directory of their own.

CNI_PATH names this directory beside the real one. Each program notes its calls, a verb a line, in /run/fake/<container
id>. Its leases are in /run/fake/leases/<container id>.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.pretend import PretendHost

NOTES = "/run/fake"
LEASES = "/run/fake/leases"
GOOD: dict[str, Any] = {"cniVersion": "1.1.0", "ips": [{"address": "10.7.0.5/24", "gateway": "10.7.0.1"}]}
HEAD = f"""#!/bin/sh
echo "$CNI_COMMAND" >>{NOTES}/"$CNI_CONTAINERID"
lease={LEASES}/"$CNI_CONTAINERID"
"""
RELEASE = '[ "$CNI_COMMAND" != DEL ] || { rm -f "$lease"; exit 0; }\n: >"$lease"\n'


def says(answer: Any, status: int = 0) -> str:
    """Return a body that prints an answer, as it is or as JSON, and exits."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return f"cat <<'END'\n{text}\nEND\nexit {status}\n"


def write(
    host: PretendHost, directory: Path, name: str, body: str, *, release: str = RELEASE, mode: int = 0o755
) -> str:
    """Write the program into the directory. Return the CNI_PATH with the real plugins and this directory."""
    (host.root / LEASES.lstrip("/")).mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(HEAD + release + body)
    path.chmod(mode)
    return f"{host.bin_dir}:{directory}"


def calls(host: PretendHost, container_id: str) -> list[str]:
    """Return the verbs that were called for a container."""
    path = host.root / NOTES.lstrip("/") / container_id
    return path.read_text().split() if path.exists() else []


def leases(host: PretendHost) -> list[str]:
    """Return the containers that hold a lease of a fake."""
    return sorted(path.name for path in (host.root / LEASES.lstrip("/")).iterdir())
