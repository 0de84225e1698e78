"""What a program calls: one function for one question, with names, paths or objects for models, data and attacks."""

from robustdml.api.batch import attack as attack

__all__ = ["attack"]
