"""Ten thousand agents in one process, and one host with ten thousand peers: tests/cluster_scale/run."""
