"""The command line: each command is a file with its options and one library call.

Heavy imports stand inside the commands, so that ``robustdml --help`` answers at once and ``report`` needs no torch.
"""

from robustdml.cli.main import main as main
from robustdml.cli.main import program as program

__all__ = ["main", "program"]
