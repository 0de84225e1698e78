"""Attacks of torchattacks."""
