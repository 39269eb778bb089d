"""Leases, and the attachments that are alive."""
