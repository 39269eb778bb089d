"""cnitool cluster: look at the cluster, set its pools, and free what a node that is gone has left."""
