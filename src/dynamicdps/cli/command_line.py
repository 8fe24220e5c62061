"""The words that the running command was given."""

from collections.abc import Sequence
from contextvars import ContextVar

# What `main` got; nothing where a command is called as a function.
command_line: ContextVar[Sequence[str]] = ContextVar("command_line", default=())
