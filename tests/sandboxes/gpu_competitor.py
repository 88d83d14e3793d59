"""A program that leases fake GPUs again and again. test_gpu_pool.py starts it; nobody imports it.

    python gpu_competitor.py PROOFS (race | hold N)

``race`` forks RACERS processes that lease random numbers of GPUs. KILLS times it waits until four
more GPUs were leased, kills a random racer and forks another. Then it prints how many GPUs were
leased in all, and ends. Each racer checks that it alone has its GPUs: for each GPU it links a file
that names it (pid, start time) into PROOFS, and removes the file before it releases the lease. If
the file exists already, its owner must be dead; if not, the double lease is recorded in
PROOFS/double. ``hold`` prints its pid once it has leased N GPUs, and sleeps.
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
    """Return a process's start time, or "dead". A pid may be reused, but not with the same time.

    A dying process counts as dead: the kernel sets PF_EXITING, after which no line of the program
    runs any more, and then frees the process's locks while its state may still be R.
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
    whole.write_text(me)  # complete before it is linked: a kill must not leave an empty proof
    while True:
        try:
            os.link(whole, proof)
            break
        except FileExistsError:
            try:
                pid, _, since = proof.read_text().partition(" ")
            except FileNotFoundError:  # possible only if leases are not exclusive
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
    gpu_pool._QUEUE_PAUSE_S = 0.005  # shorter: forty processes then lease more often
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
