"""A configuration's IPAM plugin that is in no directory of CNI_PATH."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.cni import delegate
from shared.cni.call import Call
from shared.cni.errors import CniError

WHOLE = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0"}


@pytest.mark.parametrize(("verb", "code"), [("STATUS", 50), ("CHECK", 7), ("DEL", 7), ("GC", 7)])
def test_a_missing_ipam_plugin(tmp_path: Path, verb: str, code: int) -> None:
    """STATUS says that no ADD can succeed; the other verbs name the key."""
    call = Call({**WHOLE, "CNI_COMMAND": verb, "CNI_PATH": str(tmp_path)})
    call.read_config(json.dumps({"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "nowhere"}}).encode())
    with pytest.raises(CniError, match=r'"ipam.type": "nowhere" is not a plugin in any directory') as caught:
        delegate.forward(call)
    assert caught.value.code == code
