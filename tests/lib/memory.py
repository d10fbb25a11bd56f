"""What is in the memory of a process, and in files: looked through for things that should not be there.

Not here: what is looked for (the tests).
Read more: proc_pid_mem(5), proc_pid_maps(5); Linux Documentation/admin-guide/mm/pagemap.rst, PAGEMAP_SCAN.

A process under AddressSanitizer has maps of terabytes with little in them, so the kernel is asked which pages there are.
memfd_secret(2) is what nobody can read, root neither: what is in it is not found here, and not by others.
"""
import ctypes
import fcntl
import os
import struct

PAGEMAP_SCAN = 0xc0606610
PRESENT, SWAPPED = 1 << 3, 1 << 4
N_REGIONS = 4096
PIECE = 4 << 20
SANITIZED = 1 << 40  # bytes that only a process with shadow memory maps


def _maps(pid):
    """(start, end, name) of what the process may read and the kernel keeps for it."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as f:
        for line in f:
            words = line.split(None, 5)
            start, _, end = words[0].partition("-")
            name = words[5].strip() if len(words) > 5 else ""
            if name not in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
                yield int(start, 16), int(end, 16), name


def is_sanitized(pid):
    return sum(end - start for start, end, _ in _maps(pid)) > SANITIZED


def _regions(pagemap, start, end):
    """The parts of it that have pages."""
    vector = (ctypes.c_uint64 * (3 * N_REGIONS))()
    while start < end:
        arg = bytearray(struct.pack("<12Q", 96, 0, start, end, 0, ctypes.addressof(vector), N_REGIONS, 0, 0, 0,
                                    PRESENT | SWAPPED, PRESENT | SWAPPED))
        n_found = fcntl.ioctl(pagemap, PAGEMAP_SCAN, arg)
        for i in range(n_found):
            yield vector[3 * i], vector[3 * i + 1]
        walked, = struct.unpack_from("<Q", arg, 32)
        if walked <= start:
            return
        start = walked


def _pages(pid):
    """(address, bytes, name) of all memory that can be read, in pieces."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for start, end, name in _maps(pid):
            tail, last = b"", None
            for at, to in _regions(pagemap, start, end):
                while at < to:
                    try:
                        piece = os.pread(mem.fileno(), min(PIECE, to - at), at)
                    except OSError:
                        piece = b""
                    if not piece:
                        at += 4096  # what cannot be read, as secret memory
                        continue
                    # A thing may lie across two pieces, where these follow each other.
                    before = tail if last == at else b""
                    yield at - len(before), before + piece, name
                    at += len(piece)
                    tail, last = piece[-256:], at


def find(pid, things):
    """{name: places} of those things (a dictionary of bytes, up to 256 long) that are in the process, which goes on."""
    found = {}
    for address, data, name in _pages(pid):
        for what, thing in things.items():
            at = data.find(thing)
            if at >= 0:
                found.setdefault(what, []).append(f"{address + at:x} {name}".strip())
    return found


def n_bytes(pid):
    """How much find() reads."""
    return sum(len(data) for _, data, _ in _pages(pid))


def find_in_file(path, things):
    """The same of a file, which may have holes."""
    found, tail = {}, b""
    with open(path, "rb") as f:
        while data := f.read(PIECE):
            for what, thing in things.items():
                if thing in tail + data:
                    found.setdefault(what, []).append(path)
            tail = data[-256:]
    return found


def resident(pid):
    """Bytes."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def n_open(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


# ---- at the end of a process ----------------------------------------------------------------------------------------------

TRACEME, CONT, SETOPTIONS = 0, 7, 0x4200
O_TRACEEXIT, O_EXITKILL, EVENT_EXIT = 0x40, 1 << 20, 6
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _ptrace(request, pid, data=0):
    if _libc.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def at_exit(argv, stdin, things):
    """Run a program that reads stdin (bytes); it is stopped when it is about to end, with all that it has in memory.

    Returns (exit code, standard output, what was found as by find())."""
    read_end, write_end = os.pipe()
    out = os.memfd_create("out")
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(read_end, 0)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.close(write_end)
            _ptrace(TRACEME, 0)
            os.execv(argv[0], argv)
        finally:
            os._exit(127)
    os.close(read_end)
    os.write(write_end, stdin)
    os.close(write_end)
    found, first = {}, True
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            break
        signal, event = os.WSTOPSIG(status), status >> 16
        if first:
            _ptrace(SETOPTIONS, pid, O_TRACEEXIT | O_EXITKILL)
            first, signal = False, 0
        elif event == EVENT_EXIT:
            found, signal = find(pid, things), 0
        _ptrace(CONT, pid, signal)
    os.lseek(out, 0, os.SEEK_SET)
    with os.fdopen(out, "rb") as f:
        return os.waitstatus_to_exitcode(status), f.read(), found
