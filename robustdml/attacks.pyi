from attacks import *  # noqa: F403
