"""What is derived from a finished model run beside its recalls."""
