"""The system-call filter: a classic-BPF program, assembled here by hand.

Why: bubblewrap brings no filter (measured: ``Seccomp: 0``), and the shared kernel is the
largest attack surface of a sandbox. The filter denies calls that training code never needs and
kernel exploits often use; all others pass. It does not protect against every kernel bug.

Denied calls fail with EPERM, so that a program sees an ordinary refusal. ``clone3``
fails with ENOSYS, because its flags lie in memory that a filter cannot read, and every
libc then falls back to ``clone``. Calls newer than this table also get ENOSYS: a list of
denied calls becomes outdated, and programs must cope with old kernels anyway. Other ABIs
(32-bit, x32) are refused entirely: they would reach the same calls by other numbers.

It is assembled by hand and not by libseccomp, because the program is 200 instructions, and a
sandbox whose safety needs a shared library will one day run without it. Docker has its own.
"""

import platform
import struct
from functools import cache

# struct sock_filter { u16 code; u8 jt; u8 jf; u32 k; }, codes from linux/bpf_common.h.
_LOAD, _JEQ, _JGT, _JGE, _JSET, _RET = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_EPERM = 0x00050000 | 1
_ENOSYS = 0x00050000 | 38
# struct seccomp_data { int nr; u32 arch; u64 ip; u64 args[6]; }, little-endian.
_NR, _ARCH = 0, 4

_X32_BIT = 0x40000000
_NEWEST = 466
"""The newest call considered for this table (Linux 6.16, futex_requeue and after are 456+)."""

# Any new namespace: MNT, CGROUP, UTS, IPC, USER, PID, NET. CLONE_NEWTIME (0x80) lies in
# the exit-signal byte of clone and means nothing there; unshare is denied whole.
_NEW_NAMESPACE = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000
_NEW_NAMESPACE |= 0x10000000 | 0x20000000 | 0x40000000

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16

# name: (x86_64, aarch64), from asm/unistd_64.h and asm-generic/unistd.h. None: no such call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # mounts and roots
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # namespaces
    "unshare": (272, 97),
    "setns": (308, 268),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    # the kernel itself
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "create_module": (174, None),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "memfd_secret": (447, 447),
    "lookup_dcookie": (212, 18),
    "syslog": (103, 116),
    "acct": (163, 89),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "nfsservctl": (180, 42),
    "_sysctl": (156, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "vhangup": (153, 58),
    # keys, handles, quotas: not namespaced, or ways around path checks
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # the machine's name and clock
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
}
# Allowed or denied by their arguments: (x86_64, aarch64).
_CLONE, _CLONE3, _SOCKET, _SOCKETPAIR = (56, 220), (435, 435), (41, 198), (53, 199)
_IOCTL, _PERSONALITY = (16, 29), (135, 92)

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Return whether there is a filter for this processor."""
    return platform.machine() in _AUDIT_ARCH


@cache
def program(machine: str | None = None) -> bytes:
    """Return the filter in the form that ``bwrap --seccomp`` reads from a descriptor."""
    machine = machine or platform.machine()
    column = 0 if machine == "x86_64" else 1
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, _AUDIT_ARCH[machine]),
        (_RET, 0, 0, _EPERM),
        (_LOAD, 0, 0, _NR),
    ]
    if machine == "x86_64":
        code += [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, _EPERM)]
    code += [(_JGT, 0, 1, _NEWEST), (_RET, 0, 0, _ENOSYS)]
    # Pairs of compare and return, so that no jump is longer than the possible 255. The
    # length costs nothing: since 5.11 the kernel keeps a bitmap of calls that always pass.
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            code += [(_JEQ, 0, 1, number), (_RET, 0, 0, _EPERM)]
    code += [(_JEQ, 0, 1, _CLONE3[column]), (_RET, 0, 0, _ENOSYS)]
    code += _when(
        _CLONE[column],
        [_argument(0), (_JSET, 0, 1, _NEW_NAMESPACE), (_RET, 0, 0, _EPERM), (_RET, 0, 0, _ALLOW)],
    )
    # These would type into the harness's terminal. --new-session already takes the controlling
    # terminal away; this is a second protection.
    code += _when(_IOCTL[column], _compared(1, (_TIOCSTI, _TIOCLINUX), _EPERM, _ALLOW))
    # 0 is plain Linux, 0xffffffff a query. Other values can turn off address randomisation.
    code += _when(_PERSONALITY[column], _compared(0, (0, 0xFFFFFFFF), _ALLOW, _EPERM))
    code += _when(_SOCKETPAIR[column], _compared(0, (_AF_UNIX,), _ALLOW, _EPERM))
    # Other families are old kernel code with a history of exploits (AF_ALG, AF_PACKET), or reach
    # a hypervisor (AF_VSOCK). Of netlink only NETLINK_ROUTE: getifaddrs needs it, and through
    # getifaddrs also gloo and NCCL, which a single-GPU script may well start.
    netlink = [(_JEQ, 0, 3, _AF_NETLINK), _argument(2), (_JEQ, 0, 1, 0), (_RET, 0, 0, _ALLOW)]
    code += _when(
        _SOCKET[column],
        [
            *_compared(0, (_AF_UNIX, _AF_INET, _AF_INET6), _ALLOW, _EPERM)[:-1],
            *netlink,
            (_RET, 0, 0, _EPERM),
        ],
    )
    code.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _argument(index: int) -> _Instruction:
    # The low half only: every argument checked here is a 32-bit int in the kernel, which
    # ignores the high half. If we compared both, garbage there would hide a denied value.
    return (_LOAD, 0, 0, 16 + 8 * index)


def _when(number: int, body: list[_Instruction]) -> list[_Instruction]:
    """Run ``body``, which always returns, for this call; skip it for others."""
    return [(_JEQ, 0, len(body), number), *body]


def _compared(index: int, values: tuple[int, ...], found: int, other: int) -> list[_Instruction]:
    """Answer ``found`` if the argument is one of ``values``, and ``other`` if it is none."""
    code = [_argument(index)]
    for value in values:
        code += [(_JEQ, 0, 1, value), (_RET, 0, 0, found)]
    return [*code, (_RET, 0, 0, other)]
