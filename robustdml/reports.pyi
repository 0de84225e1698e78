from reports import *  # noqa: F403
