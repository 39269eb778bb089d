"""Kernel numbers that the code has as literals, compared with the headers of other architectures.

A literal's comment names its header: `IF_OPER_UP = 6  # linux/if.h`, or also the kernel's own name, `LINK_NAME_BYTES =
15  # IFNAMSIZ in linux/if.h, less the closing NUL`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.net import netns, taps

ROOT = Path(__file__).resolve().parents[2]
# Debian's architectures, each with its headers' directory and uname(2)'s name for such a machine.
ARCHITECTURES = {
    "arm64": ("aarch64-linux-gnu", "aarch64"),
    "armhf": ("arm-linux-gnueabihf", "armv7l"),
    "mips64el": ("mips64el-linux-gnuabi64", "mips64"),  # its headers want to know the order of bytes
    "ppc64el": ("powerpc64le-linux-gnu", "ppc64le"),
    "s390x": ("s390x-linux-gnu", "s390x"),
}
LITERAL = re.compile(
    r"^([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) = ([0-9A-Fa-fx, ]+?)  # (.*?\b(?:asm|linux)[\w/-]*\.h.*)$"
)
# The same on each of them, but include/linux/socket.h is the kernel's own, SO_RCVTIMEO_NEW is in no header of userspace,
# and SO_PEERPIDFD is newer than these headers.
NOT_EXPORTED = {"SOL_NETLINK", "SO_PEERPIDFD", "SO_RCVTIMEO_NEW"}
DIFFERENT = {"NS_GET_NSTYPE", "IOC_NONE"}  # request_of_type() knows how


def literals() -> Iterator[tuple[str, str, int]]:
    """Yield each literal: the kernel's name for it, its header, the number that the kernel should have."""
    for package in ("shared", "plugins", "ipam"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for line in path.read_text().splitlines():
                found = LITERAL.match(line)
                if not found:
                    continue
                comment = found[3]
                header = re.search(r"(?:asm|linux)[\w/-]*\.h", comment)
                named = re.search(r"\b([A-Z][A-Z0-9_]+) in (?:asm|linux)", comment)
                if header is None or not (named or comment.startswith(header[0])):
                    continue
                for name, number in zip(found[1].split(", "), found[2].split(", ")):
                    value = int(number, 0) + ("less the closing NUL" in comment)
                    yield named[1] if named else name, header[0], value


LITERALS = sorted({one for one in literals() if one[0] not in NOT_EXPORTED | DIFFERENT})


def numbers(architecture: str, wanted: list[tuple[str, str]], directory: Path) -> list[int]:
    """Return an architecture's numbers of these names, each from its header."""
    headers = Path("/usr", ARCHITECTURES[architecture][0], "include")
    assert headers.is_dir(), f"no {headers}: install linux-libc-dev-{architecture}-cross"
    includes = "".join(f"#include <{header}>\n" for header in dict.fromkeys(header for _, header in wanted))
    prints = "".join(f'    __builtin_printf("%lu\\n", (unsigned long)({name}));\n' for name, _ in wanted)
    source, program, sys_socket = directory / "numbers.c", directory / "numbers", directory / "sys/socket.h"
    sys_socket.parent.mkdir()  # the C library's, for which linux/if.h asks
    sys_socket.write_text("struct sockaddr { unsigned short sa_family; char sa_data[14]; };\n")
    source.write_text(f"{includes}int main(void)\n{{\n{prints}    return 0;\n}}\n")
    subprocess.run(
        ["gcc", "-w", "-D__MIPSEL__", "-nostdinc", "-isystem", headers, "-I", directory, source, "-o", program],
        check=True,
    )
    shown = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return [int(line) for line in shown.split()]


def test_there_are_literals() -> None:
    """A pattern that finds nothing would compare nothing."""
    assert {"IF_OPER_UP", "CLONE_NEWNET", "IFNAMSIZ", "NFPROTO_INET"} <= {name for name, _, _ in LITERALS}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.row("architectures")
def test_literals(architecture: str, tmp_path: Path) -> None:
    found = numbers(architecture, [(name, header) for name, header, _ in LITERALS], tmp_path)
    wrong = [f"{one[0]}: {one[2]}, not {is_}" for one, is_ in zip(LITERALS, found) if one[2] != is_]
    assert not wrong


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.row("architectures")
def test_type_of_a_namespace(architecture: str, tmp_path: Path) -> None:
    (request,) = numbers(architecture, [("NS_GET_NSTYPE", "linux/nsfs.h")], tmp_path)
    assert netns.request_of_type(ARCHITECTURES[architecture][1]) == request


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.row("architectures")
def test_requests_for_taps(architecture: str, tmp_path: Path) -> None:
    names = ["TUNSETIFF", "TUNSETPERSIST", "TUNSETOWNER", "TUNSETGROUP"]
    wanted = [("_IOC_WRITE", "linux/ioctl.h"), *((name, "linux/if_tun.h") for name in names)]
    _, *found = numbers(architecture, wanted, tmp_path)
    machine = ARCHITECTURES[architecture][1]
    assert [taps.request_of(getattr(taps, name), machine) for name in names] == found
