"""The error that stages report to users."""


class UserError(Exception):
    """An error that the user can correct, as one sentence that says how.  Stages print it and exit with status 1."""
