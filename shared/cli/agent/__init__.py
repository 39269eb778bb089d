"""The operator's side of the node agent: its duties, a repair by hand, its status."""
