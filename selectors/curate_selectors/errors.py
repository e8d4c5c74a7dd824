"""What can be wrong with a call of a selector."""


class SelectorError(ValueError):
    """An input of a selector makes no sense: shape, NaN, a budget out of range, a score that it needs."""


class UnknownSelectorError(SelectorError, KeyError):
    """No selector has this name."""

    def __str__(self) -> str:
        return str(self.args[0])
