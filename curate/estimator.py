"""`curate.Curator`: the selectors as scikit-learn knows estimators, to be used with it or without."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral
from typing import Any

import numpy as np

from curate.errors import NotFittedError, UsageError
from curate.selection import Budget, parse_budget, select
from curate_kernels.arrays import B1, F32, I64, as_rows, unit_rows
from curate_selectors.errors import SelectorError
from curate_selectors.protocols import Pass
from curate_selectors.registry import make
from curate_selectors.types import Selection

try:
    from sklearn.base import BaseEstimator
except ImportError:  # the core does without it

    class BaseEstimator:  # type: ignore[no-redef]
        """Parameters by name, as scikit-learn's class of this name has them."""

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            """Return {parameter: value}."""
            return {
                name: getattr(self, name)
                for name in inspect.signature(type(self).__init__).parameters
                if name != "self"
            }

        def set_params(self, **params: Any) -> Any:
            """Set parameters, and return self. Raises UsageError for one that there is not."""
            for name, value in params.items():
                if name not in self.get_params():
                    raise UsageError(f"Curator has no parameter {name!r}; it has: {', '.join(self.get_params())}")
                setattr(self, name, value)
            return self

        def __repr__(self) -> str:
            return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"


_DATA = ("text", "captions", "groups", "columns", "target", "target_labels", "scores", "sizes", "constraints")


class Curator(BaseEstimator):  # type: ignore[misc]
    """Chooses rows. `fit` chooses, `transform` returns the chosen rows of what was fitted, in the order of the data.

    It takes samples away, so it is no step of a scikit-learn Pipeline: transform the training set before it. X are
    embeddings; their rows are scaled to norm 1. With scikit-learn installed, this is one of its estimators.

    Args:
        method: a name of `curate.methods()`.
        budget: int = count, float in (0, 1] = share, str as on the command line (`5%`, `500`; bytes need sizes=).
        params: fields of the method's dataclass; docs/methods.md lists them.
        random_state: seed of the selector: an int, None for 0, or a numpy RandomState or Generator to draw it from.

    Attributes, after fit; m rows of n are chosen:
        sample_indices_: (m,) int64, the chosen rows, ascending; `get_support` gives them as a mask, too.
        ranking_ (and ranking): (m,) int64, the chosen rows, best first; of a nested method each prefix is a selection.
        gains_ (and gains): (m,) float32, the method's gain of each row of ranking_.
        weights_, probabilities_: (m,) float32, training weight and inclusion probability of each row of ranking_.
        scores_: (n,) float32, the gain of each row of X, NaN where it was not chosen.
        n_features_in_, n_samples_seen_: d and n.
    """

    _pass: Pass | None
    _selection: Selection | None

    def __init__(
        self,
        method: str = "infogrowth",
        budget: Budget = 0.1,
        params: Mapping[str, Any] | None = None,
        random_state: Any = 0,
    ) -> None:
        self.method = method
        self.budget = budget
        self.params = params
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, **data: Any) -> Curator:
        """Choose rows of X.

        X: (n, d) embeddings; y: n labels, for the methods that read them
        data: what else the method reads, as `curate.select` takes it: text, captions, groups, target, scores, …

        Raises:
            UsageError: the budget makes no sense, or something that the method needs is missing. ValueError: X has NaN
                or the wrong shape. UnknownSelectorError: no such method.
        """
        if unknown := sorted(set(data) - set(_DATA)):
            raise UsageError(f"fit takes no {', '.join(unknown)}; beside X and y it takes: {', '.join(_DATA)}")
        self._made()  # its errors name a wrong parameter
        x = self._checked(X, reset=True)
        options = {"method": self.method, "budget": self.budget, "seed": self._seed(), "labels": _labels(y)}
        self._selection, self._pass = select(x, **options, **data, **dict(self.params or {})), None
        self.n_samples_seen_ = x.shape[0]
        return self

    @property
    def partial_fit(self) -> Any:
        """`partial_fit(X, y=None)`: choose among the rows of all calls so far, as `fit` would; returns self.

        For methods that choose in one pass: infogrowth, reservoir, density-online, ridge-leverage-online. Memory is
        four numbers a row, or O(budget) where it is a count; infogrowth keeps all rows, as gains are distances to them.
        A `fit` in between forgets what came before.

        Raises AttributeError where the method needs all rows at once.
        """
        with suppress(SelectorError):  # what is wrong with the parameters is told by the call
            if getattr(self._made(), "begin", None) is None:
                raise AttributeError(
                    f"method {self.method!r} needs all rows at once, so it has no partial_fit: use fit"
                )
        return self._partial_fit

    def _partial_fit(self, X: Any, y: Any = None) -> Curator:
        run: Pass | None = getattr(self, "_pass", None)
        x = unit_rows(as_rows(self._checked(X, reset=run is None)))
        if run is None:
            most = int(self.budget) if isinstance(self.budget, Integral) else None
            run = self._made().begin(most, self._seed())
            self.n_samples_seen_ = 0
        run.add(x)
        self._pass, self._selection = run, None
        self.n_samples_seen_ += x.shape[0]
        return self

    def transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return the chosen rows of X, and of y and sample_weight where they are given, as a tuple then.

        X: what was fitted: as many rows of as many features. Arrays, lists and data frames come back as what they are.
        """
        at = self.sample_indices_
        self._checked(X, reset=False)
        given = [values for values in (X, y, sample_weight) if values is not None]
        parts = [self._rows(values, at) for values in given]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None, **data: Any) -> Any:
        """Choose, and return what `transform` returns."""
        return self.fit(X, y, **data).transform(X, y, sample_weight)

    def get_support(self, indices: bool = False) -> B1 | I64:
        """Return which rows (not features) are chosen: a mask (n,), or their numbers (m,), ascending."""
        chosen = self.sample_indices_
        if indices:
            return chosen
        mask = np.zeros(self.n_samples_seen_, dtype=np.bool_)
        mask[chosen] = True
        return mask

    @property
    def sample_indices_(self) -> I64:
        """Return the chosen rows, ascending."""
        return np.sort(self._chosen().index)

    @property
    def ranking_(self) -> I64:
        """Return the chosen rows, best first."""
        return self._chosen().index

    @property
    def gains_(self) -> F32:
        """Return the gain of each row of ranking_."""
        return self._chosen().gain

    @property
    def weights_(self) -> F32:
        """Return the training weight of each row of ranking_."""
        return self._chosen().weight

    @property
    def probabilities_(self) -> F32:
        """Return the inclusion probability of each row of ranking_."""
        return self._chosen().probability

    @property
    def scores_(self) -> F32:
        """Return the gain of each row of X, NaN where it was not chosen."""
        chosen = self._chosen()
        scores = np.full(self.n_samples_seen_, np.nan, dtype=np.float32)
        scores[chosen.index] = chosen.gain
        return scores

    ranking = ranking_
    gains = gains_

    def _chosen(self) -> Selection:
        """Return the selection; after partial_fit it is made when it is first asked for."""
        chosen: Selection | None = getattr(self, "_selection", None)
        if chosen is not None:
            return chosen
        run: Pass | None = getattr(self, "_pass", None)
        if run is None:
            raise NotFittedError("this Curator is not fitted yet; call fit or partial_fit first")
        amount = parse_budget(self.budget, self.n_samples_seen_)
        if amount.rows is None:
            raise UsageError("a budget in bytes needs fit(X, sizes=…); partial_fit takes a count or a share")
        self._selection = chosen = run.chosen(amount.rows)
        return chosen

    def _checked(self, X: Any, reset: bool) -> Any:
        """Return X as an array, its features noted or compared with those noted."""
        try:
            from sklearn.utils.validation import validate_data
        except ImportError:
            x = as_rows(X, "X")
            if reset:
                self.n_features_in_ = x.shape[1]
            elif x.shape[1] != self.n_features_in_:
                raise UsageError(
                    f"X has {x.shape[1]} features, but Curator is expecting {self.n_features_in_} features as input"
                ) from None
            return x
        return validate_data(self, X, reset=reset)

    def _rows(self, values: Any, at: I64) -> Any:
        framed = hasattr(values, "iloc") or type(values).__module__.partition(".")[0] == "polars"
        values = values if framed else np.asarray(values)
        if len(values) != self.n_samples_seen_:
            raise UsageError(f"{len(values)} rows given, and {self.n_samples_seen_} were fitted: give what was fitted")
        return values.iloc[at] if hasattr(values, "iloc") else values[at]

    def _made(self) -> Any:
        return make(self.method, **dict(self.params or {}))

    def _seed(self) -> int:
        given = self.random_state
        if given is None:
            return 0
        if isinstance(given, Integral) and not isinstance(given, bool):
            return int(given)
        if isinstance(given, np.random.RandomState):
            return int(given.randint(2**31))
        if isinstance(given, np.random.Generator):
            return int(given.integers(2**31))
        raise UsageError(f"random_state is {given!r}; it must be an int, None, a numpy RandomState or Generator")

    def __sklearn_is_fitted__(self) -> bool:
        return getattr(self, "_selection", None) is not None or getattr(self, "_pass", None) is not None

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import TransformerTags

        tags = super().__sklearn_tags__()
        tags.transformer_tags = TransformerTags(preserves_dtype=["float64", "float32"])
        return tags


def _labels(y: Any) -> Any:
    """Return labels (n,), or None where there are none, or several to a row."""
    if y is None:
        return None
    labels = np.asarray(y)
    return labels.reshape(-1).tolist() if labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1) else None
