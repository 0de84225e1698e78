"""Requests to end: all alike, handled within a block, and as before after it."""

import signal
import threading

import pytest

from robustdml.stopping import Stopped, stopping

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_request_raises_at_once_or_is_noted_and_the_second_raises(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Stopped) as caught, stopping(at_once=True) as asked:
        signal.raise_signal(number)
    assert (asked.number, caught.value.exit_code) == (number, 128 + number)
    with pytest.raises(Stopped):
        asked.check()
    with stopping(at_once=False) as asked:
        asked.check()
        signal.raise_signal(number)
        assert asked.number == number
        with pytest.raises(Stopped) as caught:
            signal.raise_signal(signal.SIGINT)
    assert (asked.number, caught.value.exit_code) == (number, 130)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_blocks_within_blocks_are_asked_alone():
    with stopping(at_once=True) as outer:
        with stopping(at_once=False) as inner:
            signal.raise_signal(signal.SIGTERM)
        assert (inner.number, outer.number) == (signal.SIGTERM, 0)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with stopping(at_once=True) as asked:
            signal.raise_signal(signal.SIGHUP)
        assert asked.number == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_notes_nothing_and_changes_nothing():
    before, found = signal.getsignal(signal.SIGTERM), []

    def work():
        with stopping(at_once=True) as asked:
            found.append((asked.number, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(0, before)]
