"""Generators of the bundle of compiled code, the netlink tables and the library."""
