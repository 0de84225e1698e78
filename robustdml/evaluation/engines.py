"""Where the tasks of an evaluation are done: in this process, or by the workers of a Ray cluster.

An engine asks an agenda for one task after the other and hands it back what came of it. What is to be done, what is
kept and what becomes of a task that failed is the agenda's business: it alone writes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from robustdml.config import ENGINES
from robustdml.contracts import GalleryAttack
from robustdml.errors import AttackError, AttackTimeout, AttackUnsound, ProcessSpoiled, RobustDMLError, SpecError
from robustdml.evaluation.attacking.queries import reason_of
from robustdml.evaluation.work import Done, Task, Work
from robustdml.importing import needed, of_files
from robustdml.models import single_precision
from robustdml.values import brief, whole

#: Seconds that a task may take for each of its shards where no limit is given, and beyond one that the attack should
#: have kept itself.
_LONGEST, _GRACE = 3600.0, 10.0
#: Seconds within which one worker at least must have what it needs.
_READY = 900.0
#: Seconds within which the cluster at an address must answer.
_ANSWER = 5.0
#: How often a task is begun whose worker is lost.
_TRIES = 2
#: How a task's worker was lost.
_LATE = "it took too long, in one call or without asking the model: its process was ended"
_SPOILED = "it changed its process, and that cannot be put back"
_ENDED = "its process ended: a crash, a kill, or too little memory"
#: What a client of HTTP/2 says first, and the kind of frame that its server answers with: Ray's control service is one.
_HELLO, _SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5), 4


class Agenda(Protocol):
    """What is to be done on a model."""

    def next(self) -> Task | None:
        """The next task; None while there is none, which may change with what comes back."""
        ...

    def done(self, task: Task, found: list[Done]) -> None:
        """Keep what came of it."""
        ...

    def failed(self, task: Task, error: BaseException) -> None:
        """Note why nothing came of it, or raise the error, if it is of no attack."""
        ...


class Engine(Protocol):
    """Does what an agenda asks for."""

    def run(self, work: Work, agenda: Agenda) -> None:
        """Until nothing is left to do."""
        ...


class Inline:
    """In this process, one task after the other."""

    def run(self, work: Work, agenda: Agenda) -> None:
        """See `Engine`."""
        task = agenda.next()
        while task is not None:
            current = task
            try:
                with work.opened(current.attack):
                    while task is not None and task.attack == current.attack:
                        current = task
                        agenda.done(current, work.do(current))
                        task = agenda.next()
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # Foreign code may raise anything.
                agenda.failed(current, error)
                if task is current:
                    task = agenda.next()


def check_engine(name: str, workers: int | None) -> None:
    """Refuse an engine that cannot be, or a cluster that does not answer, before anything is done.

    Args:
        name: ``"inline"`` or ``"ray"``.
        workers: processes of Ray, or None.

    Raises:
        SpecError: the name is another, ``workers`` is below 1, or inline; or nothing like Ray is at RAY_ADDRESS.
        MissingPackageError: there is no Ray.
    """
    if name not in ENGINES:
        raise SpecError(f"engine={brief(name)} must be one of: {', '.join(ENGINES)}")
    if workers is not None:
        whole("workers", workers, least=1)
    if name == "ray":
        if not _ray().is_initialized() and _address() not in {"local", "auto"}:
            _check_answers(_address())
    elif workers is not None:
        raise SpecError(f"workers={workers} are those of Ray: give --engine ray too, or leave --workers out")


@contextmanager
def engine(name: str, workers: int | None, device: torch.device) -> Iterator[Engine]:
    """The engine of that name, as long as the block lasts.

    Args:
        name: ``"inline"`` or ``"ray"``.
        workers: processes of Ray; None takes as many as the cluster has processors, or GPUs where ``device`` is one.
        device: where a model is run; each worker has a GPU of its own.

    Raises:
        SpecError: see `check_engine`; or the cluster cannot be joined, or has not what is asked for.
        MissingPackageError: there is no Ray.
    """
    check_engine(name, workers)
    if name == "inline":
        yield Inline()
        return
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _join(ray, workers)
    try:
        found = Ray(ray, _count(ray, workers, device), device)
        try:
            yield found
        finally:
            found.close()
    finally:
        if ours:
            ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers what is run
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a change of Ray's that it warns of
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15: beside whoever else is at work, nothing would be done
    return needed("ray", "ray", "--engine ray")


def _join(ray: Any, workers: int | None) -> None:
    address = _address()
    # A cluster of this machine alone has as many processors as workers are asked for, and nobody else is heard.
    own = {"num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, logging_level="ERROR", log_to_driver=False, **own if address == "local" else {})
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:160]
        where = "Ray cannot be begun on this machine" if address == "local" else f"no Ray at RAY_ADDRESS={address!r}"
        raise SpecError(f"{where} ({said}): give --engine inline, or mend it") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has put its own in its place.


def _address() -> str:
    return os.environ.get("RAY_ADDRESS", "").strip() or "local"


def _check_answers(address: str) -> None:
    """Ask whether a server like Ray's is there: Ray itself would ask for a minute, and then end this process."""
    host, _, port = address.rpartition(":")
    wanted = "give that of the control service of the cluster, such as RAY_ADDRESS=10.0.0.1:6379, or unset it"
    if "://" in address or not (host and port.isdecimal() and int(port) < 2**16):
        raise SpecError(f"RAY_ADDRESS={brief(address)} is no address HOST:PORT: {wanted}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}:
                return
            connection.sendall(_HELLO)
            said = connection.recv(4)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecError(f"no Ray cluster answers at RAY_ADDRESS={brief(address)} ({reason}): {wanted}") from None
    if len(said) < 4 or said[3] != _SETTINGS:
        raise SpecError(f"what answers at RAY_ADDRESS={brief(address)} is no Ray cluster: {wanted}")


def _count(ray: Any, workers: int | None, device: torch.device) -> int:
    kind = "GPU" if device.type == "cuda" else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if there < (workers or 1):
        raise SpecError(f"--workers {workers or 1} need a {kind} each, and the Ray cluster has {there}: ask for fewer")
    return workers or there


@dataclass
class _Running:
    """A task in a worker, None while that is made ready; and until when, by `time.monotonic`."""

    worker: Any
    task: Task | None
    until: float


class Ray:
    """By workers of a Ray cluster, each a process with a copy of the model; one that is lost costs its task.

    Args:
        ray: the module.
        workers: how many.
        device: where a model is run.
    """

    def __init__(self, ray: Any, workers: int, device: torch.device) -> None:
        self._ray, self._workers = ray, workers
        # As many threads as this process would use, shared out: rounding may depend on their number.
        threads = max(1, torch.get_num_threads() // workers)
        gpus = 1 if device.type == "cuda" else 0
        self._kind = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Worker)
        self._threads = threads
        self._idle: list[Any] = []
        self._running: dict[Any, _Running] = {}

    def run(self, work: Work, agenda: Agenda) -> None:
        """See `Engine`.

        Raises:
            SpecError: the model or an attack cannot be sent to another process.
        """
        sent = self._sent(work)
        self._running = {}
        idle, self._idle = self._idle, []
        for worker in [*idle, *(self._new() for _ in range(self._workers - len(idle)))]:
            self._load(worker, sent)
        try:
            self._work_off(work, agenda, sent)
        finally:  # of those that are still made ready, and of all where the run is stopped
            for one in self._running.values():
                self._ray.kill(one.worker)
            self._running = {}

    def _work_off(self, work: Work, agenda: Agenda, sent: Any) -> None:
        again, tries, unready = deque[Task](), dict[tuple[int, int | None], int](), 0
        while True:
            while self._idle and (task := again.popleft() if again else agenda.next()) is not None:
                worker = self._idle.pop()
                until = time.monotonic() + _longest(work, task)
                self._running[worker.do.remote(task)] = _Running(worker, task, until)
            if self._idle and not any(one.task for one in self._running.values()):
                return
            for one, answer, lost in self._back():
                if isinstance(answer, ProcessSpoiled) and one.task is not None:
                    self._ray.kill(one.worker)
                    self._load(self._new(), sent)
                    agenda.failed(one.task, AttackUnsound(f"{_SPOILED} ({answer})"))
                    continue
                if not lost:
                    self._idle.append(one.worker)
                    if one.task is None:
                        unready = 0
                    else:
                        _hand_over(agenda, one.task, answer)
                    continue
                self._load(self._new(), sent)
                if one.task is None:
                    unready += 1
                    if unready >= _TRIES * self._workers:  # in a row
                        raise SpecError(f"no worker of Ray can begin ({lost}): see Ray's logs, or give --engine inline")
                    continue
                key = one.task.attack, one.task.shard
                tries[key] = tries.get(key, 1) + 1
                if tries[key] <= _TRIES:
                    again.append(one.task)
                else:
                    kind = AttackTimeout if lost == _LATE and one.task.seconds is not None else AttackError
                    agenda.failed(one.task, kind(f"{lost}, {_TRIES} times"))

    def _back(self) -> Iterator[tuple[_Running, Any, str]]:
        """Wait for workers: who they are, what they answer, or how they were lost."""
        soonest = min(one.until for one in self._running.values()) - time.monotonic()
        ready, _ = self._ray.wait(list(self._running), timeout=max(0.0, soonest))
        late = [ref for ref, one in self._running.items() if one.until <= time.monotonic() and ref not in ready]
        for ref in [*ready, *late]:
            one = self._running.pop(ref)
            if ref in late:
                self._ray.kill(one.worker)
                yield one, None, _LATE if one.task else f"not within {_READY:g} s"
                continue
            try:
                yield one, self._ray.get(ref), ""
            except self._ray.exceptions.RayTaskError as error:
                said = reason_of(error.cause)[:200]
                raise SpecError(f"a worker of Ray cannot do its part ({said}): give --engine inline") from None
            except self._ray.exceptions.RayError as error:
                yield one, None, f"{_ENDED} ({type(error).__name__})"

    def _load(self, worker: Any, sent: Any) -> None:
        self._running[worker.load.remote([sent])] = _Running(worker, None, time.monotonic() + _READY)

    def close(self) -> None:
        """End the workers."""
        for worker in self._idle:
            self._ray.kill(worker)
        self._idle = []

    def _new(self) -> Any:
        return self._kind.remote(self._threads, sys.path)

    def _sent(self, work: Work) -> Any:
        with _by_value(self._ray):
            try:
                return self._ray.put(work)
            except RobustDMLError:
                raise
            except Exception as error:  # Whatever cannot be written down raises what it likes.
                raise SpecError(
                    f"the model or an attack cannot be sent to another process ({type(error).__name__}: "
                    f"{' '.join(str(error).split())[:200]}): give --engine inline"
                ) from None


class _Worker:
    """A process that does tasks."""

    def __init__(self, threads: int, path: list[str]) -> None:
        torch.set_num_threads(threads)
        sys.path += [folder for folder in path if folder not in sys.path]  # what is imported there is, here
        self._work: Work | None = None

    def load(self, sent: list[Any]) -> None:
        """Take another model."""
        if self._work is not None:
            self._work.close()
        self._work = None  # before the next one needs its memory
        self._work = _ray().get(sent[0])
        with _as_here():
            self._work.check()

    def do(self, task: Task) -> list[Done] | BaseException:
        """What came of the task, or what it raised."""
        assert self._work is not None
        try:
            with _as_here(), self._work.opened(task.attack):
                return self._work.do(task)
        except (SystemExit, KeyboardInterrupt) as error:
            return AttackUnsound(reason_of(error))
        except (AttackError, OSError) as error:
            return error
        except Exception as error:
            # Some errors cannot be sent.
            return error if type(error).__module__ == "robustdml.errors" else AttackError(reason_of(error))


def _hand_over(agenda: Agenda, task: Task, answer: list[Done] | BaseException) -> None:
    if isinstance(answer, BaseException):
        agenda.failed(task, answer)
    else:
        agenda.done(task, answer)


def _longest(work: Work, task: Task) -> float:
    """Seconds after which nobody waits for a task any more."""
    if task.seconds is not None:
        return max(0.0, task.seconds) + _GRACE
    whole_run = isinstance(work.attacks[task.attack], GalleryAttack)
    return _LONGEST * (len(work.shards) if whole_run else max(1, len(task.parts)))


@contextmanager
def _as_here() -> Iterator[None]:
    """Within the block, torch is as `robustdml.evaluation.evaluate` has it."""
    with torch.inference_mode(False), torch.enable_grad(), single_precision():
        yield


@contextmanager
def _by_value(ray: Any) -> Iterator[None]:
    """Code that workers cannot import, because it was loaded from a file, is sent along."""
    alone = of_files()
    for module in alone:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in alone:
            ray.cloudpickle.unregister_pickle_by_value(module)
