"""The one error that a user of the scripts sees: words for the person who has to act."""


class UserError(Exception):
    """What is wrong with files, options or data, in one line where one line does."""

    def __str__(self) -> str:
        """Return the message; a DataLoader worker puts its traceback before it, dropped here."""
        return super().__str__().rpartition("UserError: ")[2].strip()
