"""A process that leases fake GPUs again and again: started by test_gpu_pool.py, never imported.

    python gpu_competitor.py PROOFS (compete SEED | hold N)

``compete``: on each lease it proves for itself that it is alone. Its proof is an O_EXCL file
with its pid, which it removes before it gives the lease back; a file that is there already is
fine only if its owner is dead. A double lease is appended to PROOFS/double. ``hold`` prints its
pid once it has N, and sleeps.
"""

import os
import random
import sys
import time
from pathlib import Path

from sandboxes.gpu_pool import GpuPool
from sandboxes.gpus import Gpu, Listing

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


def main() -> None:
    proofs, what, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if what == "compete":
        compete(proofs, number)
    with pool().lease(number):
        print(os.getpid(), flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main()
