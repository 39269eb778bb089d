"""The runtime's side of CNI: read configurations, find plugins, chain their calls, set up pods."""
