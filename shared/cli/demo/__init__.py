"""The demonstration of install.sh."""
