"""Where the Hub is, and what its client's errors say; its client is imported when either is asked for."""

from __future__ import annotations

import os

__all__ = ["endpoint", "one_line"]


def endpoint() -> str:
    """Address of the Hub: that of ``HF_ENDPOINT``, or the client's own."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def one_line(error: BaseException) -> str:
    """The error's message, and its cause's, in one line without the token."""
    from huggingface_hub import get_token

    cause = f" ({error.__cause__})" if isinstance(error, RuntimeError) and error.__cause__ else ""
    text = " ".join(f"{str(error) or type(error).__name__}{cause}".split())
    return text.replace(token, "***") if (token := get_token()) else text
