"""Every error that robustdml raises on purpose.

    RobustDMLError                 caught by the command line: one sentence, exit code 2
    ├── UnknownNameError           no attack, data set, backbone, loss … of that name; says the nearest one
    ├── SpecError                  an attack spec, a parameter or an option value that cannot be
    ├── BudgetError                an eps outside (0, 1]
    ├── DataError                  a missing folder, a corrupt image, a split that cannot be evaluated
    ├── CheckpointError            a file or folder that is not a robustdml checkpoint, or does not fit
    ├── RunFolderError             an output folder that holds another run, or that another process writes into
    │   └── StorageError           a file that cannot be written: a full disk, a folder that is gone, a permission
    ├── TrainingError              training cannot go on (a loss that is not finite, a collapse)
    ├── Terminated                 training was asked to end and has saved its state; exit code 129, 130 or 143
    ├── ProcessLost                another of several processes that train together is gone
    ├── EndedElsewhere             another of several processes ended the training and says why; silent
    ├── AttackError                an attack broke its contract; recorded for its cell, never stops a run
    │   ├── AttackUnsound          it changed what is not its own, or tried to end the program
    │   ├── AttackSkipped          it was not tried, for a reason known before (too large an image, say)
    │   └── AttackTimeout          it ran longer than it was given
    ├── ProcessSpoiled             foreign code changed this process so that no further number of it can be believed
    └── MissingPackageError        a package that is absent, or does not fit the installed torch

Every message names what was given, what was expected, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: More names than this make no sentence: then so many of the nearest are listed.
_MANY, _LISTED = 24, 8


class RobustDMLError(Exception):
    """Base of all errors of this package; its text is one sentence for the user."""

    exit_code = 2


class UnknownNameError(RobustDMLError):
    """A name that no registry entry has.

    Args:
        kind: what was looked up, in the singular ("attack").
        name: the name that was given.
        known: the names that exist; the nearest is suggested, and of many only the nearest are listed.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        name = str(name)  # whatever was given
        self._given = (kind, name, names)
        folded = {candidate.casefold(): candidate for candidate in names}
        near = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=_LISTED, cutoff=0.0)]
        close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
        hint = f"did you mean '{folded[close[0]]}'? " if close else ""
        if len(names) > _MANY:
            super().__init__(f"unknown {kind} '{name}': {hint}nearest of {len(names)} known: {', '.join(near)}")
        else:
            super().__init__(f"unknown {kind} '{name}': {hint}known: {', '.join(names)}")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        return UnknownNameError, self._given


class SpecError(RobustDMLError):
    """A spec, parameter or option value that cannot be used."""


class BudgetError(RobustDMLError):
    """A perturbation budget outside (0, 1]."""


class DataError(RobustDMLError):
    """Data that is missing, corrupt, or split in a way that cannot be trained on or evaluated.

    Args:
        reason: of one image, why it cannot be read, in a few words.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str]]:
        return type(self), (str(self), self.reason)


class CheckpointError(RobustDMLError):
    """A checkpoint that is not ours, is damaged, or does not fit."""


class RunFolderError(RobustDMLError):
    """An output folder that holds another run, or that another process is writing into."""


class StorageError(RunFolderError):
    """A file that cannot be written; what was finished before is kept."""


class TrainingError(RobustDMLError):
    """Training that cannot go on."""


class Terminated(RobustDMLError):  # noqa: N818 -- no fault of anyone
    """A training that was asked to end (SIGTERM, SIGINT, SIGHUP), has saved its state and can be resumed.

    Args:
        exit_code: 128 and the number of the signal.
    """

    exit_code = 128 + 15

    def __init__(self, message: str, exit_code: int = 128 + 15) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[Terminated], tuple[str, int]]:
        return Terminated, (str(self), self.exit_code)


class ProcessLost(RobustDMLError):  # noqa: N818 -- no fault of this process
    """Another of several processes that train together is gone, and has not said why."""


class EndedElsewhere(RobustDMLError):  # noqa: N818 -- no fault of this process
    """One of several processes ended the training, and says why itself; raised by all others.

    Args:
        exit_code: that this process ends with.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this training ended it, and says why")
        self.exit_code = exit_code


class AttackError(RobustDMLError):
    """An attack that broke its contract (wrong shape, not finite, touched the model)."""


class AttackUnsound(AttackError):  # noqa: N818
    """An attack that changed what is not its own (the model, the gallery, the process), or tried to end the program."""


class AttackSkipped(AttackError):  # noqa: N818 -- no fault of anyone
    """An attack that cannot be tried on this model or these images; raised before it computes anything."""


class AttackTimeout(AttackError):  # noqa: N818
    """An attack that ran longer than it was given."""


class MissingPackageError(RobustDMLError):
    """A package that is absent or does not fit the installed torch."""


class ProcessSpoiled(RobustDMLError):  # noqa: N818
    """Foreign code changed this process, and that cannot be put back: nothing more is computed in it."""
