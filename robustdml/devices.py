"""Which processor does the work."""

from __future__ import annotations

import torch

from robustdml.errors import SpecError


def choose_device(name: str) -> torch.device:
    """The torch device of that name; ``"auto"`` is a GPU where there is one, else the CPU.

    Raises:
        SpecError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SpecError(f"device '{name}' cannot be used ({str(error).splitlines()[0]}): use cpu or auto") from None
    return device
