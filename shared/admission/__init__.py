"""Admission of pods by the host's packet filter, one file for each."""
