"""sysctls that cannot be written: a right value is no error, and an error names the wrong value and its remedy."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from shared.cni.errors import InternalError
from shared.net import sysctl

PATH = "ipv6/conf/cni0/disable_ipv6"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a read-only /proc/sys/net with one sysctl, which is 0."""
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_text("0\n")
    monkeypatch.setattr(sysctl, "ROOT", f"{tmp_path}/")
    monkeypatch.setattr(sysctl, "_write", lambda _path, _value: OSError(errno.EROFS, "Read-only file system"))
    return tmp_path


def test_what_is_right_already(root: Path) -> None:
    """Another call may have been faster."""
    assert root.exists()
    sysctl.write(PATH, "0")
    sysctl.ensure(PATH, "0")


def test_what_is_wrong(root: Path) -> None:
    assert root.exists()
    for change in (sysctl.write, sysctl.ensure):
        with pytest.raises(InternalError, match="it is 0, and must be 1") as raised:
            change(PATH, "1")
        assert "net/ipv6/conf/default/disable_ipv6=1" in raised.value.details
    sysctl.prefer(PATH, "1")  # everything works without it
