"""Several runs as one, and two runs compared."""
