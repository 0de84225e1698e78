"""``python -m robustdml`` is ``robustdml``."""

from robustdml.cli import main

if __name__ == "__main__":
    main()
