"""What an attack on an embedding wants."""
