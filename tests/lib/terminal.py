"""Programs on a terminal of their own, with somebody who types.

Not here: what is typed, and what should be shown (the tests).
Read more: pty(7).
"""
import os
import pty
import select
import time


def on_terminal(args, typed, timeout=30):
    """Run the command on a terminal of its own, typing one line for each prompt that ends in ": ".

    Returns (exit code, what the terminal showed)."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(args[0], args)
    shown, at, left = b"", 0, list(typed)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if not select.select([fd], [], [], 0.2)[0]:
            if left and shown[at:].rstrip(b" ").endswith(b":"):
                at = len(shown)
                os.write(fd, left.pop(0).encode())
            continue
        try:
            more = os.read(fd, 4096)
        except OSError:
            break
        if not more:
            break
        shown += more
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()
