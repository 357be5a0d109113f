"""What a user can mend: in goes nothing, out comes the one exception that stands for it."""


class UserError(ValueError):
    """Something the user gave can't be used; the message says what it was, what is wanted and the way out.

    The commands show it as one line. Every other exception is a bug, of ours or of a library, and keeps its traceback.
    """
