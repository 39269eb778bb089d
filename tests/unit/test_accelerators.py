"""The interpreter's private modules, and the public ones that replace them."""

from __future__ import annotations

import errno
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cni import blake2
from tests.unit.python import run

CALL = """
import errno, os
from shared import libc
print(libc.call("getppid") == os.getppid())
try:
    libc.call("setns", -1, 0)
except OSError as error:
    print(error.errno)
print("ctypes" in sys.modules)
"""


def test_calls_into_the_c_library() -> None:
    assert run(CALL).splitlines() == ["True", str(errno.EBADF), "True"]


def test_a_python_without_calls_into_the_c_library() -> None:
    """The module can be imported, and so can its users; only a call itself says that something is missing."""
    told = run(
        """
        import shared.cni.execute, shared.net.netns
        from shared import libc
        for function in ("getppid", "setns"):
            try:
                print(libc.call(function, -1, 0))
            except ImportError as error:
                print(error.name)
        """,
        without=("_ctypes",),
    )
    assert told.split() == ["_ctypes", "_ctypes"]


def test_calls_by_the_public_module() -> None:
    """If _ctypes lacks the private functions, ctypes does it."""
    assert run("""
        import _ctypes, ctypes, os
        del _ctypes.dlsym, _ctypes.call_function
        from shared import libc
        print(libc.call("getppid") == os.getppid())
        try:
            libc.call("setns", -1, 0)
        except OSError as error:
            print(error.errno, error.filename)
    """).splitlines() == ["True", f"{errno.EBADF} setns"]


def test_a_call_that_succeeds_does_not_need_ctypes() -> None:
    """The import of ctypes costs 3 ms."""
    assert (
        run("""
        from shared import libc
        libc.call("getppid")
        print("ctypes" in sys.modules)
    """)
        == "False\n"
    )


SOCKETS = """
from shared.sockets import native
from shared.cni.ip import Address
held = native.socket(native.AF_NETLINK, native.SOCK_RAW | native.SOCK_CLOEXEC, 0)
held.close()
print(Address.parse("fd00::1"), Address.parse("10.1.0.1"), native.__name__)
"""


def test_sockets_without_the_public_module() -> None:
    assert run(SOCKETS).splitlines() == ["fd00::1 10.1.0.1 _socket"]


def test_sockets_where_the_private_module_lacks_something() -> None:
    """The public module takes over; it builds on the private one, which cannot be absent altogether."""
    assert (
        run("""
        import _socket, types, socket
        lean = types.ModuleType("_socket")
        sys.modules["_socket"] = lean
        from shared.sockets import native
        from shared.cni.ip import Address
        print(Address.parse("fd00::1"), native.__name__)
    """)
        == "fd00::1 socket\n"
    )


NAMES = """
from shared.net.owner import Owner, stable_link
from shared.runtime.attachment import Attachment
from shared.runtime.cache import Cache
owner = Owner("net", "c1", "eth0")
print(owner.host_link, owner.host_mac, owner.pod_mac, stable_link("cni0.7"), stable_link("x" * 1000))
print(Cache("/cache").path("net", Attachment("c" * 300, "")).name)
"""
PUBLIC = "import hashlib\nsys.modules['_blake2'] = None\n"
# What the builds of Python for hosts under FIPS have in the hash's place.
FIPS = {
    "absent": PUBLIC + "del hashlib.blake2b\n",
    "OpenSSL's, without sizes": PUBLIC + "hashlib.blake2b = lambda data=b'': hashlib.sha512(data)\n",
    "forbidden": PUBLIC
    + "def forbidden(*a, **k): raise ValueError('disabled for FIPS')\nhashlib.blake2b = forbidden\n",
}


@pytest.mark.parametrize("how", [PUBLIC, *FIPS.values()], ids=["public", *FIPS])
@pytest.mark.row("fips")
def test_names_without_the_private_hash(how: str) -> None:
    """A host link's name may not depend on which module computes it, or DEL would not find it."""
    assert run(how + NAMES) == run(NAMES)


@given(st.binary(max_size=600), st.integers(1, 64))
@pytest.mark.row("fips")
def test_the_hash_in_python(data: bytes, size: int) -> None:
    assert blake2.hexdigest(data, size) == hashlib.blake2b(data, digest_size=size).hexdigest()
