"""The one error that a command prints as a single line."""


class UserError(ValueError):
    """Something its reader can put right: a path, a config key, a damaged file.

    The message is one line that names the item, what was expected and what was found.
    Commands print it without a traceback and exit with status 1.
    """
