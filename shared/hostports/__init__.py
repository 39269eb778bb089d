"""Host ports, one file for each packet filter."""
