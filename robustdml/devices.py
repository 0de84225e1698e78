"""Which processor does the work."""

from __future__ import annotations

import torch

from robustdml.errors import SpecError

#: Devices on which the numbers are those of a CPU but for rounding.
_KINDS = ("cpu", "cuda", "mps", "xpu")


def choose_device(name: str) -> torch.device:
    """The torch device of that name; ``"auto"`` is a GPU where there is one, else the CPU.

    Raises:
        SpecError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in _KINDS:
            raise RuntimeError(f"of the kind {device.type}, on which nothing is computed here")
        torch.zeros(1, device=device).add_(1).item()
    except Exception as error:  # Each kind of device has errors of its own.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise SpecError(f"device '{name}' cannot be used ({reason}): use cpu or auto") from None
    return device
