"""Masquerading, one file for each packet filter."""
