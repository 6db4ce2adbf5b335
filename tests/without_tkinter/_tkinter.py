"""The compiled half of the stand-in for tkinter: the one name that is imported from it."""


class TclError(Exception):
    """Raised by nothing here."""
