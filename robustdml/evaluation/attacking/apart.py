"""Attacks of strangers in a process of their own: whatever they do, this one goes on with what it had.

The process is a copy of this one at the moment of the call, so that nothing of it has to be written down to be sent;
what comes back are tensors and numbers, which hold no code. It ends with the call, and by force after a time or when it
takes too much memory. It is no jail: it may write files as its user may.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import pickle
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from robustdml.contracts import (
    Attack,
    FittedAttack,
    GalleryAttack,
    References,
    StagedAttack,
    TwoSidedAttack,
    foreign_code,
)
from robustdml.errors import AttackError, AttackSkipped, AttackTimeout, AttackUnsound, SpecError
from robustdml.files import strict_json
from robustdml.results import AttackEntry
from robustdml.retrieval.embed import Embedder
from robustdml.threat import ThreatModel

#: Seconds that one call may take where no limit is given, and beyond one that the attack should have kept itself.
_LONGEST, _GRACE = 3600.0, 5.0
#: How often its memory is looked at, in seconds; and of what memory is free, the share that it may take.
_EVERY, _SHARE = 0.1, 0.8
_KINDS: dict[str, type[AttackError]] = {"skipped": AttackSkipped, "timeout": AttackTimeout, "error": AttackError}


def possible(device: torch.device) -> bool:
    """Whether a process can be copied here: on Linux, where no GPU is in use, which no copy could share."""
    return sys.platform == "linux" and device.type == "cpu" and not torch.cuda.is_available()


class ApartAttack:
    """An attack of which every call is made in a process of its own.

    Args:
        attack: a plain one, on queries.
        longest: seconds that one call may take.
        memory: bytes that it may take beyond what this process has; None takes most of what is free.
    """

    def __init__(self, attack: Attack, *, longest: float = _LONGEST, memory: int | None = None) -> None:
        self.attack, self._longest, self._memory = attack, longest, memory
        self._threat, self._entry = attack.threat, attack.entry()

    @property
    def threat(self) -> ThreatModel:
        """The budget, as it was first said."""
        return self._threat

    def entry(self) -> AttackEntry:
        """Its row in the results, as it was first said."""
        return self._entry

    def target_rows(self, references: References, *, seed: int) -> Tensor | None:
        """See `robustdml.contracts.Attack`."""
        found = self._apart(lambda: {"rows": self.attack.target_rows(references, seed=seed)}, self._longest)
        return found.get("rows")

    def __call__(self, model: nn.Module, images: Tensor, references: References, *, seed: int) -> Tensor:
        """See `robustdml.contracts.Attack`.

        Raises:
            AttackError: it raised, or ended its process.
            AttackTimeout: it took too long.
        """

        def work() -> dict[str, Tensor | None]:
            # Counted from 0, and said whatever comes of the images.
            images_, counted = self.attack(model, images, references, seed=seed), [0, 0]
            if isinstance(model, Embedder):
                counted = [model.forward_images - before[0], model.gradient_images - before[1]]
            return {"images": images_, "counted": torch.tensor(counted)}

        longest, before = self._longest, (0, 0)
        if isinstance(model, Embedder):
            before = model.forward_images, model.gradient_images
            left = model.seconds_left
            longest = longest if left is None else min(longest, left + _GRACE)
        found = self._apart(work, longest)
        counted = found.get("counted", torch.zeros(2, dtype=torch.int64)).tolist()
        if isinstance(model, Embedder):
            model.forward_images += max(0, int(counted[0]))
            model.gradient_images += max(0, int(counted[1]))
        if "images" not in found:
            raise AttackError("it returned no images")
        return found["images"]

    def _apart(self, work: Callable[[], dict[str, Tensor | None]], longest: float) -> dict[str, Tensor]:
        return _call(work, longest, self._memory)


def apart(attack: Attack) -> Attack:
    """The attack in a process of its own, where that can be done with its kind."""
    more = FittedAttack | GalleryAttack | TwoSidedAttack | StagedAttack
    return attack if isinstance(attack, more | ApartAttack) else ApartAttack(attack)


def guarded(text: str, build: Callable[[], list[Attack]], device: torch.device) -> list[Attack]:
    """The attacks of a list of specs; those of strangers in a process of their own, where there can be one.

    Args:
        text: the list; only where it names a module is code of strangers run to build it.
        build: makes them.

    Raises:
        SpecError: the code of one of them ends the process.
    """
    if ":" not in text:
        return build()
    ended = survives(build)
    if ended:
        raise SpecError(f"the attacks '{text[:80]}' cannot be built: one of them does this: {ended}")
    return [apart(attack) if possible(device) and foreign_code(attack) else attack for attack in build()]


def survives(build: Callable[[], object], longest: float = 600.0) -> str:
    """Try in a copy of this process what runs code of strangers; what ended it, or nothing where it came to its end.

    An error that it raises is an end, too: it will be met again here. Where processes cannot be copied, it is tried in
    one that begins anew, if ``build`` can be sent there.
    """
    if sys.platform != "linux":
        return _survives_anew(build, longest)

    def work() -> dict[str, Tensor | None]:
        with contextlib.suppress(Exception, SystemExit):
            build()
        return {}

    try:
        _call(work, longest, None)
    except AttackError as error:
        return str(error)
    return ""


#: What the new process does with what it is sent: where modules lie, then the work; and how it says that it is done.
_ANEW = """
import os, pickle, sys
sys.path[:], answer = pickle.load(sys.stdin.buffer)
try:
    pickle.load(sys.stdin.buffer)()
except (Exception, SystemExit):
    pass
os._exit(answer)
"""


def _survives_anew(build: Callable[[], object], longest: float) -> str:
    answer = 64 + secrets.randbelow(64)
    try:
        sent = pickle.dumps((sys.path, answer)) + pickle.dumps(build)
    except (pickle.PicklingError, AttributeError, TypeError):
        return ""
    command = [sys.executable, "-c", _ANEW]
    try:
        done = subprocess.run(command, input=sent, capture_output=True, timeout=longest, check=False)
    except subprocess.TimeoutExpired:
        return f"it took more than {longest:g} seconds for one call: its process was ended"
    except OSError:  # no process can be begun here
        return ""
    if done.returncode == answer:
        return ""
    return f"it ended its process without an answer (exit code {done.returncode})"


def _call(work: Callable[[], dict[str, Tensor | None]], longest: float, memory: int | None) -> dict[str, Tensor]:
    reading, writing = os.pipe()
    allowed = int(_SHARE * _free()) if memory is None else memory
    with warnings.catch_warnings():
        # Of threads that a copy does not have: what it calls of this project takes none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        os.close(reading)
        _child(work, writing, allowed)
    os.close(writing)
    try:
        data, why = _answer(process, reading, time.monotonic() + longest, _memory(process) + allowed)
        if not why:
            _await_end(process)
    finally:
        os.close(reading)
        for end in (os.killpg, os.kill):
            with contextlib.suppress(OSError):
                end(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
    if why:
        raise (AttackTimeout if "second" in why else AttackUnsound)(why.format(longest=longest))
    return _read(data, status)


def _child(work: Callable[[], dict[str, Tensor | None]], writing: int, allowed: int) -> None:
    """What the copy does; it never returns."""
    import resource  # there is none on Windows

    # It ends with the process that waits for it, however that ends (PR_SET_PDEATHSIG of Linux).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.setsid()  # what it starts ends with it, and what it sends to its group does not come here
    faulthandler.disable()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    most = _memory(os.getpid(), "VmData") + allowed
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def run() -> None:
        try:
            found = {name: part for name, part in work().items() if isinstance(part, Tensor)}
            tensors = {name: part.detach().cpu().contiguous().clone() for name, part in found.items()}
            answer = safetensors.torch.save(tensors, {"error": ""})
        except BaseException as error:
            kind = next((name for name, known in _KINDS.items() if isinstance(error, known)), "error")
            text = " ".join(str(error).encode("utf-8", "replace").decode().split())[:300]
            own = isinstance(error, AttackError)
            said = text if own else f"{type(error).__name__}: {text or 'no message'}"
            if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
                kind, said = "unsound", f"it tried to end the program ({type(error).__name__})"
            answer = safetensors.torch.save({}, {"error": json.dumps([kind, said])})
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        answered.append(True)

    # The copy has none of the threads of torch's pool, and would wait for them: a thread of its own makes its own pool.
    answered: list[bool] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    # By this thread, which a signal that the attack sent to the process reaches first.
    os._exit(0 if answered else 1)


def _answer(process: int, reading: int, deadline: float, most: int) -> tuple[bytes, str]:
    """What the copy wrote until it closed the pipe, and why it had to be ended, if it had."""
    parts: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return b"", "it took more than {longest:g} seconds for one call: its process was ended"
        if select.select([reading], [], [], min(_EVERY, left))[0]:
            part = os.read(reading, 1 << 20)
            if not part:
                return b"".join(parts), ""
            parts.append(part)
        if _memory(process) > most:
            return b"", "it took more memory than there is for it: its process was ended"
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return b"".join([*parts, *_rest(reading)]), ""


def _rest(reading: int) -> list[bytes]:
    """What is left in the pipe of a copy that has ended; one that it started in its turn may hold it open."""
    found = []
    while select.select([reading], [], [], 0)[0] and (part := os.read(reading, 1 << 20)):
        found.append(part)
    return found


def _await_end(process: int) -> None:
    """Give a copy that has answered the time to end by itself: how it ends says whether its answer counts.

    A signal that it sent itself may reach it only after the answer.
    """
    deadline = time.monotonic() + _GRACE
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < deadline:
        time.sleep(0.001)


def _read(data: bytes, status: int) -> dict[str, Tensor]:
    code = os.waitstatus_to_exitcode(status)
    if code or not data:
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        raise AttackUnsound(f"it ended its process without an answer ({how})")
    try:
        length = int.from_bytes(data[:8], "little")
        error = strict_json(data[8 : 8 + length])["__metadata__"]["error"]
        kind, said = strict_json(error) if error else ("", "")
        tensors = safetensors.torch.load(data)
    except (ValueError, KeyError, TypeError, SafetensorError):
        raise AttackUnsound("it answered with what is no answer") from None
    if kind == "unsound":
        raise AttackUnsound(str(said))
    if kind:
        raise _KINDS.get(str(kind), AttackError)(str(said))
    return tensors


def _memory(process: int, line: str = "VmRSS") -> int:
    """Bytes that a process takes; 0 where it is gone."""
    with contextlib.suppress(OSError, StopIteration, ValueError, IndexError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return 1024 * int(next(one for one in lines if one.startswith(f"{line}:")).split()[1])
    return 0


def _free() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(one for one in lines if one.startswith("MemAvailable:")).split()[1])
