"""A process that leases fake GPUs again and again: started by test_gpu_pool.py, never imported.

    python gpu_competitor.py PROOFS (race | hold N)

``race`` forks RACERS that lease at random, kills one at random after every few leases and forks
another, until there were KILLS; then it prints how many leases there were, and ends. On each
lease a racer proves for itself that it is alone. Its proof is an O_EXCL file with its pid, which
it removes before it gives the lease back; a file that is there already is fine only if its owner
is dead. A double lease is appended to PROOFS/double. ``hold`` prints its pid once it has N, and
sleeps.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from sandboxes import gpu_pool
from sandboxes.gpu_pool import GpuPool
from sandboxes.gpus import Gpu, Listing

RACERS, KILLS = 40, 30
PATIENCE_S = 60.0
PF_EXITING = 0x4
EIGHT = Listing(tuple(Gpu(f"GPU-fake-{i}", i, "Fake H100") for i in range(8)))


def pool() -> GpuPool:
    return GpuPool(lambda: EIGHT, lambda uuid: ())


def started(pid: int) -> str:
    """A pid alone may be given out again; with its start time it is one process.

    Dead is also who is dying: the kernel frees a killed process's locks while its state is still
    R, after it has set PF_EXITING, from where no line of the program runs any more.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "dead"
    exiting = int(fields[6]) & PF_EXITING
    return "dead" if exiting or fields[0] in "ZX" else fields[19]


def claim(proof: Path, double: Path) -> None:
    me = f"{os.getpid()} {started(os.getpid())}"
    whole = proof.with_name(f"{os.getpid()}.new")
    whole.write_text(me)  # whole before it is seen: a kill must not leave an empty proof
    while True:
        try:
            os.link(whole, proof)
            break
        except FileExistsError:
            try:
                pid, _, since = proof.read_text().partition(" ")
            except FileNotFoundError:  # only when leases are not exclusive: go on, and find out
                continue
            if started(int(pid)) == since:
                with double.open("a") as file:
                    file.write(f"{proof.name}: {me} beside {pid}\n")
                return
            proof.unlink(missing_ok=True)
    whole.unlink()


def compete(proofs: Path, seed: int) -> None:
    rng = random.Random(seed)
    while True:
        with pool().lease(rng.choice((1, 1, 1, 2, 3))) as lease:
            for uuid in lease.uuids:
                claim(proofs / uuid, proofs / "double")
            with (proofs / "count").open("ab", buffering=0) as file:
                file.write(b"." * len(lease.uuids))
            time.sleep(rng.uniform(0.0, 0.02))
            for uuid in lease.uuids:
                (proofs / uuid).unlink(missing_ok=True)


def fork(proofs: Path, seed: int) -> int:
    if pid := os.fork():
        return pid
    try:
        compete(proofs, seed)
    finally:
        os._exit(1)


def race(proofs: Path) -> None:
    gpu_pool._QUEUE_PAUSE_S = 0.005  # forty in a queue: more leases in less time
    rng, count = random.Random(7), proofs / "count"
    count.touch()
    racers = [fork(proofs, seed) for seed in range(RACERS)]
    try:
        for seed in range(RACERS, RACERS + KILLS):
            enough, deadline = count.stat().st_size + 4, time.monotonic() + PATIENCE_S
            while count.stat().st_size < enough:
                if time.monotonic() > deadline:
                    sys.exit("nobody leases any more")
                time.sleep(rng.uniform(0.0, 0.01))
            place = rng.randrange(RACERS)
            os.kill(racers[place], signal.SIGKILL)
            if os.waitpid(racers[place], 0)[1] != signal.SIGKILL:
                sys.exit("a racer ended by itself")
            racers[place] = fork(proofs, seed)
    finally:
        for racer in racers:
            os.kill(racer, signal.SIGKILL)
            os.waitpid(racer, 0)
    print(count.stat().st_size)


def main() -> None:
    proofs, what = Path(sys.argv[1]), sys.argv[2]
    if what == "race":
        race(proofs)
        return
    with pool().lease(int(sys.argv[3])):
        print(os.getpid(), flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main()
