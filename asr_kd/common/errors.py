"""The error that stages report to the user."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: one clear sentence with what to do.  Stages print it and exit with 1."""
