"""The vocabulary of main plugins."""
