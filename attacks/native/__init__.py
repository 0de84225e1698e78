"""The project's own attacks."""
