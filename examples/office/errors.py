"""The one error that users of the scripts see, worded for whoever has to fix it."""


class UserError(Exception):
    """What is wrong with files, options or data, in one line if possible."""

    def __str__(self) -> str:
        """Return the message, without the traceback that a DataLoader worker puts before it."""
        return super().__str__().rpartition("UserError: ")[2].strip()
