"""Results made ahead, in a thread."""

import subprocess
import sys
import threading
import traceback

import pytest

from dac_nerfstudio.sampling.prefetch import Prefetch


def test_results_come_in_any_order_and_are_made_by_one_other_thread() -> None:
    threads = []

    def double(number: int) -> int:
        threads.append(threading.current_thread())
        return 2 * number

    ahead = Prefetch(double)
    assert [ahead(number, 1) for number in (0, 1, 2, 7, 8, 8, 0)] == [0, 2, 4, 14, 16, 16, 0]
    assert len(set(threads)) == 1 and threading.current_thread() not in threads


def test_what_follows_is_made_before_it_is_asked_for_unless_circumstances_change() -> None:
    calls: list[int] = []
    made = threading.Semaphore(0)

    def record(number: int) -> int:
        calls.append(number)
        made.release()
        return number

    ahead = Prefetch(record)
    ahead(4, 1)
    assert made.acquire(timeout=10) and made.acquire(timeout=10) and calls == [4, 5]
    ahead(5, 1)
    assert made.acquire(timeout=10) and calls == [4, 5, 6]
    ahead(6, 2)
    assert made.acquire(timeout=10) and calls[:4] == [4, 5, 6, 6]


def test_an_error_in_the_thread_is_raised_with_its_traceback_where_the_result_is_wanted() -> None:
    def fails_at_two(number: int) -> int:
        if number == 2:
            raise ZeroDivisionError("at two")
        return number

    ahead = Prefetch(fails_at_two)
    assert ahead(1, 1) == 1  # two has been begun, and nobody has asked for it
    with pytest.raises(ZeroDivisionError, match="at two") as error:
        ahead(2, 1)
    assert "fails_at_two" in [frame.name for frame in traceback.extract_tb(error.value.__traceback__)]
    assert ahead(3, 1) == 3


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)"])
def test_a_process_ends_though_something_is_made_ahead(ending: str) -> None:
    program = (
        "import time\nfrom dac_nerfstudio.sampling.prefetch import Prefetch\n"
        f"ahead = Prefetch(lambda number: time.sleep(0.2))\nahead(0, 1)\n{ending}\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (3 if ending else 0, b"")
