"""Generators: the bundle of compiled code, the netlink tables, the library."""
