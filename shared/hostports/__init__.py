"""Host ports: mappings, conditions on packets, and one backend for each packet filter."""
