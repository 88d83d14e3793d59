"""What several tests of tasks share: fixtures that keep tests of torch and of the shell fast."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from shell_here import few_objects


@pytest.fixture(scope="module")
def _few_objects() -> Iterator[None]:
    with few_objects():
        yield


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder for all tests of a module, so that data are prepared once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Use one thread: on tiny tensors, more threads mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
