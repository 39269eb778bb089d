"""Runs one command on a stock kernel: boots qemu, hands the command in, brings output and exit status back."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from tests.kernel.image import ROOT, SUITE, Image, image, write_initramfs
from tests.pretend import PATH

START_LIMIT = 60.0  # seconds until the command runs, which takes 7 on an idle machine; a boot that hangs is tried again
TRIES = 2
STARTED = b"started\n"  # the first that `inside` prints
# Software emulation copies bytes one at a time for a processor with erms and fsrm, and walks longer tables with la57.
PROCESSOR = "max,erms=off,fsrm=off,la57=off"
MACHINE = (
    *("-M", "q35", "-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", "1", "-m", "1024"),
    *("-display", "none", "-nodefaults", "-no-reboot"),
)  # fmt: skip
# Two network cards with PCI addresses, whose wires meet in a hub that nothing else is plugged into.
CARDS = tuple(
    word
    for number in range(2)
    for word in (
        *("-netdev", f"hubport,id=card{number},hubid=0"),
        *("-device", f"virtio-net-pci,netdev=card{number},romfile=,mac=52:54:00:00:00:0{number}"),
    )
)
# On a loaded machine the kernel's test of its timer may fail: it counts ticks while the emulation waits.
ARGUMENTS = "no_timer_check console=ttyS0 quiet panic=-1 mitigations=off init_on_alloc=0"
INSIDE = Path("/mnt")  # where the share is in there
REPORTS, RELEASE = "reports", "release"  # files in the share: the tests' reports, the kernel's `uname -r`
# All that a command finds in its environment. Python is about 20 times slower there than outside.
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "NO_COLOR": "1", "TEST_PATIENCE": "20", "STOCK_KERNEL": "1"}


class BootError(Exception):
    """The kernel did not come up, the command took too long, or the machine stopped under it."""


class HungBoot(BootError):
    """The command did not begin: the kernel was too slow, or it panicked."""


def is_running() -> bool:
    """Return True if this process runs in such a boot."""
    return "STOCK_KERNEL" in os.environ


def run(argv: Sequence[str], write: Callable[[bytes], object], *, share: Path, limit: float, suite: str = SUITE) -> int:
    """Run a command on the stock kernel in the root of this tree; `write` gets its output as it comes.

    `share` is a directory that the command finds at INSIDE, and may write files to. `limit` is in seconds from the
    command's start. Return its exit status. Raise ImageError, or BootError with the kernel's output.
    """
    kernel = image(suite=suite)
    words = ["env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items()), *argv]
    (share / RELEASE).write_text(kernel.release)
    (share / "command").write_text(f"cd {shlex.quote(str(ROOT))}\nexec {shlex.join(words)}\n")
    with tempfile.TemporaryDirectory() as directory:
        initramfs = Path(directory, "initramfs")
        console = Path(directory, "console")
        write_initramfs(kernel, initramfs)
        command = _qemu(kernel, initramfs, console, share)
        for left in reversed(range(TRIES)):
            try:
                _boot(command, write, limit)
                return int((share / "status").read_text())
            except HungBoot as error:
                if not left:
                    raise BootError(f"{error}, {TRIES} times\n{console.read_text(errors='replace')}") from None
            except FileNotFoundError:
                raise BootError(f"the machine stopped under it\n{console.read_text(errors='replace')}") from None
            except BootError as error:
                raise BootError(f"{error}\n{console.read_text(errors='replace')}") from None
    raise AssertionError


def _qemu(kernel: Image, initramfs: Path, console: Path, share: Path) -> list[str]:
    shares = {"root": (Path("/"), ",readonly=on"), "share": (share, "")}
    return [
        # its one processor goes before the tests outside, which would take as much of it as they can get
        *("nice", "-n", "-5", "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *MACHINE, *CARDS),
        *("-kernel", str(kernel.vmlinuz), "-initrd", str(initramfs)),
        *("-append", f"{ARGUMENTS} tree={ROOT} modules={kernel.modules}"),
        *("-serial", f"file:{console}", "-serial", "stdio"),
        *(
            word
            for tag, (path, more) in shares.items()
            for word in (
                *("-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{more}"),
                *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
            )
        ),
    ]


def _boot(command: Sequence[str], write: Callable[[bytes], object], limit: float) -> None:
    """Run the machine from power on to power off."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as qemu:  # fmt: skip
        assert qemu.stdout is not None
        begin = b""
        try:
            for chunk in _chunks(qemu.stdout, START_LIMIT, HungBoot("the command did not begin")):
                begin += chunk
                if STARTED in begin:
                    break
            else:
                raise HungBoot(f"the machine stopped before the command began: {begin.decode(errors='replace')}")
            write(begin.partition(STARTED)[2])
            for chunk in _chunks(qemu.stdout, limit, BootError("the command did not end")):
                write(chunk)
        finally:
            qemu.kill()


def _chunks(stream: IO[bytes], seconds: float, late: BootError) -> Iterator[bytes]:
    """Yield a pipe's output until its end, which must come within `seconds`."""
    deadline = time.monotonic() + seconds
    while select.select([stream], [], [], max(0, deadline - time.monotonic()))[0]:
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            return
        yield chunk
    raise type(late)(f"{late} within {seconds:.0f} s")
