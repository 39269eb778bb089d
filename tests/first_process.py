"""The first process of a pretend host with a root file system of its own: `python first_process.py ROOT SHARES`.

It uses the machine's programs, mounts everything, changes its root, says its process id, and waits for the end of its
input. The root needs no program for it. Changes of the root go to a tmpfs, which ends with the host.

SHARES is a JSON object from paths in the host to directories of the machine, none of them below /run.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys

MNT_DETACH = 2  # linux/fs.h
SETUP = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/upper /run/work /run/root
mount -t overlay -o "lowerdir=$1,upperdir=/run/upper,workdir=/run/work" overlay /run/root
cd /run/root
mkdir -p dev proc run sys tmp
chmod 1777 tmp
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t sysfs sysfs sys
mount -t proc proc proc
echo pretend >/proc/sys/kernel/hostname
echo 0 >proc/sys/net/ipv4/ip_forward
ip link set lo up
"""
SHARE = """
set -e
mkdir -p "/run/root$2"
mount --rbind "$1" "/run/root$2"
"""


def main() -> int:
    """Prepare the host, and wait."""
    root, shares = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/stat", encoding="ascii") as file:  # the machine's proc, still
        pid = file.read().split()[0]
    _run(SETUP, root)
    for inside, path in json.loads(shares).items():
        _run(SHARE, path, inside)
    os.chdir("/run/root")
    if libc.pivot_root(b".", b".") or libc.umount2(b".", MNT_DETACH):
        number = ctypes.get_errno()
        raise OSError(number, f"pivot_root: {os.strerror(number)}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans vanish, as init lets them
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    sys.stdin.read()
    return 0


def _run(script: str, *arguments: str) -> None:
    subprocess.run(["/bin/sh", "-c", script, "sh", *arguments], stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main())
