"""Errors that the command line prints as one line: a wrong call, a run or a record that cannot be used."""

from __future__ import annotations

__all__ = [
    "BusyError",
    "HubError",
    "NoProfileError",
    "NotOfferedError",
    "OutOfMemoryError",
    "RecordError",
    "RunError",
    "UnreadableError",
    "UsageError",
]


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


class OutOfMemoryError(RunError):
    """A run whose computation the memory does not hold; the message proposes smaller pieces, none is taken."""


class UsageError(ValueError):
    """A wrong call: an unknown name or option."""


class NotOfferedError(UsageError, NoProfileError):
    """An artifact whose experiment has no settings of a profile."""


class HubError(OSError):
    """Weights that cannot be had; the message is one line that says what to do."""
