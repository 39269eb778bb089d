"""Debian's stock kernel, booted in qemu over the machine's own root file system, with features that the machine lacks."""
