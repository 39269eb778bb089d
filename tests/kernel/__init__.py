"""Debian's stock kernel, booted in qemu over the machine's own root file system, for what the running kernel lacks."""
