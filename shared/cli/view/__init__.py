"""Commands that show the pod network."""
