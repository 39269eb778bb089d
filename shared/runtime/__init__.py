"""What a container runtime does with CNI: read configurations, find plugins, chain their calls, set up pods."""
