"""``python -m robustdml`` is ``robustdml``."""

from robustdml.cli import program

if __name__ == "__main__":
    program()
