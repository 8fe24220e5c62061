"""Errors that are the user's to mend."""


class InputError(ValueError):
    """Input that cannot be used.

    The message is one sentence: what is wrong (with the value), what was expected, what to do. The command line prints it
    without a traceback and exits with code 2.
    """
