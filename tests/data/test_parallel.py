from __future__ import annotations

import os
from functools import partial

import pytest

from videossl_hf.data.parallel import map_in_processes
from videossl_hf.errors import DataError, DecodeError, InputError


def scale(factor: int, item: int) -> int:
    return factor * item


def fail_at_three(item: int) -> int:
    if item == 3:
        raise DecodeError("clip.mp4", "cut off")
    return item


def die_at_three(item: int) -> int:
    if item == 3:
        os._exit(1)
    return item


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_items(processes):
    assert list(map_in_processes(partial(scale, 3), range(50), processes=processes)) == list(range(0, 150, 3))


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_function_is_raised_as_it_is(processes):
    with pytest.raises(DecodeError, match=r"clip\.mp4: cut off"):
        list(map_in_processes(fail_at_three, range(6), processes=processes))


def test_a_process_that_dies_is_an_error_and_no_hang():
    with pytest.raises(DataError, match="process died"):
        list(map_in_processes(die_at_three, range(6), processes=2))


def test_no_process_at_all_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        list(map_in_processes(fail_at_three, range(6), processes=0))
