"""Attacks of other libraries, aimed at retrieval."""
