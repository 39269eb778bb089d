"""Commands about configurations."""
