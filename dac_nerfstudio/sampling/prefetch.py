"""Work for the next step, done in a thread during this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Generic, Optional, Tuple, TypeVar

Made = TypeVar("Made")


class Prefetch(Generic[Made]):
    """Calls a function of a number for the number that follows, in a thread, while the last result is made use of.

    The function has to depend on the number (and on ``size``, which is not passed on) alone: results are then those of
    plain calls, in whatever order numbers come. Its errors are raised, with its traceback, by the call that wants the
    result. The thread ends with the process or with this object, whichever is first; neither waits for more than the
    one call that is under way.
    """

    def __init__(self, function: Callable[[int], Made]) -> None:
        self.function = function
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self.next: Optional[Tuple[Tuple[int, int], Future[Made]]] = None

    def __call__(self, number: int, size: int) -> Made:
        """The result for a number; one that was prefetched for another ``size`` is made again."""
        following, self.next = self.next, None
        if following is not None and following[0] == (number, size):
            result = following[1].result()
        else:
            result = self.thread.submit(self.function, number).result()
        self.next = (number + 1, size), self.thread.submit(self.function, number + 1)
        return result
