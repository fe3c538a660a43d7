"""Commands that run as forks of a process: what they print, and how they end."""

import os
import sys
from pathlib import Path
from threading import Timer

from include.orchestration.forked import ForkedProcess


def test_a_fork_of_a_fork_prints_to_the_one_that_made_it() -> None:
    def inner() -> int:
        with Path(os.devnull).open() as free, Path(os.devnull).open() as other:  # takes what is closed of 0, 1 and 2
            print("inner", min(free.fileno(), other.fileno()) > 2)
        return 0

    def outer() -> int:
        heard: list[str] = []
        code, line = ForkedProcess("inner", inner).run(heard.append)
        print(code, heard, line)
        return 3

    said: list[str] = []
    assert ForkedProcess("outer", outer).run(said.append) == (3, "0 ['inner True'] inner True")
    assert said == ["0 ['inner True'] inner True"]


def test_a_fork_whose_output_is_gone_ends_all_the_same() -> None:
    """It is a copy of whoever made it: what goes on there would go on in the copy, too."""
    made = os.getpid()

    def loses_its_output() -> int:
        sys.stdout.write("not written yet")
        os.close(1)
        return 5

    code, _ = ForkedProcess("lost", loses_its_output).run(lambda line: None)
    assert os.getpid() == made
    assert code == 5


def test_a_fork_of_a_process_that_has_computed_computes_too() -> None:
    """OpenMP's threads do not come along, and the one thread that does must not wait for them."""
    import torch

    def computes() -> int:
        torch.rand(2_000, 1_000).exp()
        return 4

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        computes()
        process = ForkedProcess("computes", computes)
        hung = Timer(60, process.stop, [10])
        hung.start()
        assert process.run(lambda line: None) == (4, "")
        hung.cancel()
    finally:
        torch.set_num_threads(threads)
