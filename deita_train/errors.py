"""The one exception that stands for a mistake of the user's."""


class UserError(ValueError):
    """Something the user can mend: the command line prints the message alone and exits with code 2.

    The message says what was wrong, the value, what is allowed, where (file, line, row id or dotted recipe path),
    and what to do next. A fault of our own is an ``assert`` or an ordinary exception instead.
    """
