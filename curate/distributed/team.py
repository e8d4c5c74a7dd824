"""The processes that own kept rows, and what tells that one of them died."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from curate.distributed.owner import Owner
from curate.errors import ClusterError

_AHEAD = 16  # calls on their way that nobody waits for


class LostError(ClusterError):
    """An owner of kept rows died, and its rows with it: they lie in the pool, too."""


class Team:
    """The owners of one side: actors, by Ray's choice of machines."""

    def __init__(self, ray: Any, count: int) -> None:
        self._ray = ray
        actor = ray.remote(Owner).options(num_cpus=0, scheduling_strategy="SPREAD")
        self._actors = [actor.remote() for _ in range(count)]
        self._waiting: deque[Any] = deque()
        self._lost: Exception | None = None

    def __len__(self) -> int:
        return len(self._actors)

    @property
    def lost(self) -> bool:
        """Whether an owner died."""
        return self._lost is not None

    def put(self, value: Any) -> Any:
        """Return a reference to a value for several owners."""
        return self._ray.put(value)

    def ask(self, owner: int, method: str, *given: Any, returns: int = 1) -> Any:
        """Call an owner; return the reference to its answer."""
        return getattr(self._actors[owner], method).options(num_returns=returns).remote(*given)

    def tell(self, owner: int, method: str, *given: Any) -> None:
        """Call an owner and do not wait, but for calls of long ago; what goes wrong is told by `answers`."""
        self._waiting.append(self.ask(owner, method, *given))
        while len(self._waiting) > _AHEAD:
            self._settle(self._waiting.popleft())

    def tell_all(self, method: str, *given: Any) -> None:
        """Call every owner and do not wait."""
        for owner in range(len(self)):
            self.tell(owner, method, *given)

    def answers(self, refs: Sequence[Any]) -> list[Any]:
        """Return the answers, in order. Raises LostError where an owner died."""
        while self._waiting and not self._lost:
            self._settle(self._waiting.popleft())
        out = [self._settle(ref) for ref in refs if not self._lost]
        if self._lost:
            raise LostError(f"a part of the kept set was lost with the process that held it: {self._lost}")
        return out

    def kill(self) -> None:
        """End the owners."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _settle(self, ref: Any) -> Any:
        try:
            return self._ray.get(ref)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as error:
            self._lost = error
            return None
