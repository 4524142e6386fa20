"""Errors that the command line prints as one line: a wrong call, a run or a record that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

__all__ = [
    "BusyError",
    "FailedCodeError",
    "HubError",
    "NoProfileError",
    "NotOfferedError",
    "OutOfMemoryError",
    "RecordError",
    "RunError",
    "StoppedError",
    "TrainingStopped",
    "UnreadableError",
    "UsageError",
    "suggestion",
]


def suggestion(word: object, known: Sequence[str], otherwise: str = "") -> str:
    """``"did you mean a or b?"``, or what is known where nothing is near.

    Arguments:
        word: What was asked for.
        known: What there is.
        otherwise: What to say where nothing is near; ``"one of ..."`` if empty.
    """
    names = {name.lower(): name for name in known}  # a slip of the shift key is no other word
    near = [names[found] for found in get_close_matches(str(word).lower(), list(names), n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(near)}?" if near else otherwise or f"one of {', '.join(known) or 'none'}"


class RecordError(ValueError):
    """A record or a specification that cannot be trusted: malformed, altered, or not the one asked for."""


class NoProfileError(ValueError):
    """An experiment that has no settings of a profile."""


class RunError(RuntimeError):
    """A run that could not be executed; the message is one line that says what to do."""


class UnreadableError(RecordError):
    """A record's file that the operating system does not give."""


class BusyError(RunError):
    """A run that another process is executing."""


class FailedCodeError(RunError):
    """A run of a reader's own model whose code raised something, or ended the process.

    ``final`` says whether a second attempt cannot change it.
    """

    final = True


class OutOfMemoryError(RunError):
    """A run whose computation the memory does not hold; the message proposes smaller pieces, none is taken."""


class StoppedError(Exception):
    """Runs were stopped as asked, and the same command continues them."""

    code = 75  # what ``repro run`` ends with, EX_TEMPFAIL of sysexits.h


class TrainingStopped(Exception):
    """Training ended early because it was asked to; its checkpoint holds every step that was done."""


class UsageError(ValueError):
    """A wrong call: an unknown name or option."""


class NotOfferedError(UsageError, NoProfileError):
    """An artifact whose experiment has no settings of a profile."""


class HubError(OSError):
    """Weights that cannot be had; the message is one line that says what to do."""
