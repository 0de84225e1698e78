"""Attacks that treat one image after the other, run together: their questions to the model become one batch.

Each query's attack is a thread, and exactly one runs at a time: the next starts when it asks the model something. When
all wait, their questions are answered in one pass. The order is fixed and each has random states of its own, so that
the result depends neither on the threads nor on the other queries.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .estimators import Array, Question

#: Asks the model a question at images ``(K, 3, H, W)``, with labels ``(K,)`` where it takes them.
Ask = Callable[[Question, Array, Any], Array]


class _StoppedError(BaseException):
    """Ends a thread whose answer nobody waits for; no library may catch it as an error of its own."""


@dataclass
class _Player:
    """One thread, what it asked, and what it was answered."""

    task: Callable[[Ask], Array]
    seed: int
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    question: tuple[Question, Array, Any] | None = None
    answer: Array | None = None
    result: Array | None = None
    error: BaseException | None = None
    stopped: bool = False
    states: tuple[Any, Any] | None = None
    thread: threading.Thread | None = None

    def run(self) -> None:
        self.turn.acquire()
        try:
            if not self.stopped:
                self.result = self.task(self.ask)
        except BaseException as error:  # handed to the thread that waits
            self.error = error
        self.question = None
        self.asked.release()

    def ask(self, kind: Question, images: Array, labels: Any) -> Array:
        self.question = (kind, images, labels)
        self.asked.release()
        self.turn.acquire()
        if self.stopped or self.answer is None:
            raise _StoppedError
        return self.answer

    def play(self) -> None:
        """Let the thread run until its next question or its end, with its own random states."""
        if self.thread is None:
            random.seed(self.seed)
            np.random.seed(self.seed % 2**32)
            self.thread = threading.Thread(target=self.run, daemon=True)
            self.thread.start()
        elif self.states is not None:
            random.setstate(self.states[0])
            np.random.set_state(self.states[1])
        self.turn.release()
        self.asked.acquire()
        self.states = (random.getstate(), np.random.get_state())


def run_in_turns(tasks: Sequence[Callable[[Ask], Array]], answer: Ask, seeds: Sequence[int]) -> list[Array]:
    """Run all tasks to their end, answering the questions of one kind together.

    Args:
        tasks: each is called with a function that it asks the model by, and returns its image.
        answer: answers the questions of all, with as many rows as it is asked.
        seeds: of each task's random states (of Python and NumPy).

    Raises:
        whatever a task or ``answer`` raises; no thread is left then.
    """
    players = [_Player(task, seed) for task, seed in zip(tasks, seeds, strict=True)]
    waiting = players
    try:
        while waiting:
            for player in waiting:
                player.play()
                if player.error is not None:
                    raise player.error
            waiting = [player for player in waiting if player.question is not None]
            for kind in sorted({player.question[0] for player in waiting if player.question}):
                _answer(kind, [player for player in waiting if player.question and player.question[0] == kind], answer)
    finally:
        for player in players:
            player.stopped = True
            player.turn.release()
            if player.thread is not None:
                player.thread.join()
    return [player.result for player in players if player.result is not None]


def _answer(kind: Question, players: list[_Player], answer: Ask) -> None:
    questions = [player.question for player in players if player.question is not None]
    images = np.concatenate([asked for _, asked, _ in questions])
    labels = None if questions[0][2] is None else np.concatenate([each for _, _, each in questions])
    answers = answer(kind, images, labels)
    ends = np.cumsum([len(asked) for _, asked, _ in questions])
    for player, part in zip(players, np.split(answers, ends[:-1]), strict=True):
        player.answer = part
