"""Errors that are the user's to mend."""

import re

_LONG_WORD = re.compile(r"\S{400,}")


def reason_of(error: Exception) -> str:
    """What a library says is wrong, on one line of at most 100 characters."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:100]


class InputError(ValueError):
    """Input that cannot be used.

    The message is one sentence: what is wrong (with the value), what was expected, what to do. The command line prints it
    without a traceback and exits with code 2. Words of a file that fill a screen are cut.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_LONG_WORD.sub(lambda word: f"{word[0][:100]}...", message))
