"""The ioctls of fscrypt as the tool fscryptctl issues them: what it puts behind the pointer, and what comes back.

Not here: the kernel as an oracle (koracle.py); scenarios of them (tests/mount/test_mount_ioctls.py).
Read more: Linux Documentation/filesystems/fscrypt.rst, include/uapi/linux/fscrypt.h, whose numbers these are.

fcntl.ioctl() copies the buffer, as long as the number of the request says or a little longer, into a place of its own.
Here the pointer is that of the memory that has all of it: the key behind a struct fscrypt_add_key_arg, the policy behind
its first bytes.
"""
import contextlib
import ctypes
import errno
import os
import struct
import traceback

SET_POLICY = 0x800c6613
GET_PWSALT = 0x40106614
GET_POLICY = 0x400c6615
GET_POLICY_EX = 0xc0096616
ADD_KEY = 0xc0506617
REMOVE_KEY = 0xc0406618
REMOVE_KEY_ALL_USERS = 0xc0406619
KEY_STATUS = 0xc080661a
GET_NONCE = 0x8010661b

DESCRIPTOR, IDENTIFIER = 1, 2
FILES_BUSY, OTHER_USERS = 1, 2
ABSENT, PRESENT, INCOMPLETE = 1, 2, 3
SPECIFIER_SIZE, ADD_SIZE, REMOVE_SIZE, STATUS_SIZE = 40, 80, 64, 128

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class Refused(OSError):
    """What an ioctl, or a step in another process, came to; str() is the name of the error."""

    def __str__(self):
        return errno.errorcode.get(self.errno, str(self.errno))


def raw(fd, request, buffer):
    """ioctl on the very memory of a bytearray, which may be longer than the request says."""
    memory = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    if _libc.ioctl(fd, request, ctypes.addressof(memory)) < 0:
        raise Refused(ctypes.get_errno(), "ioctl")
    return buffer


def at(fd, request, address):
    """ioctl with whatever address: one that is not mapped, for example."""
    if _libc.ioctl(fd, request, address) < 0:
        raise Refused(ctypes.get_errno(), "ioctl")


@contextlib.contextmanager
def opened(where):
    """A file descriptor, as it is or of a path."""
    if isinstance(where, int):
        yield where
        return
    fd = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def call(where, request, buffer):
    with opened(where) as fd:
        return raw(fd, request, buffer)


# ---- what goes in ------------------------------------------------------------------------------------------------------


def specifier(name, kind=None, reserved=0):
    """name: 8 bytes for a descriptor, 16 for an identifier."""
    kind = {0: IDENTIFIER, 8: DESCRIPTOR, 16: IDENTIFIER}[len(name)] if kind is None else kind
    return struct.pack("<II32s", kind, reserved, name)


def policy_v1(name, contents=1, names=4, flags=3, version=0):
    return struct.pack("<BBBB8s", version, contents, names, flags, name)


def policy_v2(name, contents=1, names=4, flags=3, version=2, log2_unit=0, reserved=b""):
    return struct.pack("<BBBBB3s16s", version, contents, names, flags, log2_unit, reserved, name)


# ---- the ioctls --------------------------------------------------------------------------------------------------------


def add_key(where, key, name=b"", **how):
    """Returns the name that the key has: the identifier, where none was given.

    how: kind, reserved of the specifier; size, key_id, flags, tail (reserved fields) of the rest; guard: the key ends where
    memory ends, and what is behind it must not be touched."""
    spec = specifier(name, how.get("kind"), how.get("reserved", 0))
    size = how.get("size", len(key))
    arg = spec + struct.pack("<III28s", size, how.get("key_id", 0), how.get("flags", 0), how.get("tail", b"")) + key
    buffer = bytearray(arg)
    call(where, ADD_KEY, buffer)
    kind, = struct.unpack_from("<I", buffer)
    if buffer[ADD_SIZE:] != key or buffer[40:ADD_SIZE] != arg[40:ADD_SIZE]:
        raise AssertionError("ADD_ENCRYPTION_KEY has changed what is input only")
    return bytes(buffer[8:8 + (16 if kind == IDENTIFIER else 8)])


def set_policy(where, policy):
    before = bytes(policy)
    if bytes(call(where, SET_POLICY, bytearray(policy))) != before:
        raise AssertionError("SET_ENCRYPTION_POLICY has changed its argument")


def get_policy_ex(where, room=24):
    """The bytes of the policy. room: the size that the caller says to have."""
    canary = b"\xa5" * 40
    buffer = call(where, GET_POLICY_EX, bytearray(struct.pack("<Q", room) + canary))
    size, = struct.unpack_from("<Q", buffer)
    if buffer[8 + size:] != canary[size:]:
        raise AssertionError("GET_ENCRYPTION_POLICY_EX has written behind the policy")
    return bytes(buffer[8:8 + size])


def get_policy_old(where):
    return bytes(call(where, GET_POLICY, bytearray(12)))


def get_nonce(where):
    return bytes(call(where, GET_NONCE, bytearray(16)))


def get_pwsalt(where):
    return bytes(call(where, GET_PWSALT, bytearray(16)))


def key_status(where, name, kind=None, reserved=0, tail=b""):
    """(status, flags, user_count)"""
    buffer = bytearray(specifier(name, kind, reserved) + struct.pack("<24s64x", tail))
    call(where, KEY_STATUS, buffer)
    status, flags, users = struct.unpack_from("<III", buffer, 64)
    if any(buffer[76:]):
        raise AssertionError("GET_ENCRYPTION_KEY_STATUS: reserved fields that are not zero")
    return status, flags, users


def remove_key(where, name, all_users=False, kind=None, reserved=0, tail=b""):
    """The flags that say what is left."""
    buffer = bytearray(specifier(name, kind, reserved) + struct.pack("<I20s", 0, tail))
    call(where, REMOVE_KEY_ALL_USERS if all_users else REMOVE_KEY, buffer)
    return struct.unpack_from("<I", buffer, SPECIFIER_SIZE)[0]


# ---- in words ----------------------------------------------------------------------------------------------------------


def policy_words(policy):
    if not policy or policy[0] not in (0, 2):
        return policy.hex()
    if policy[0] == 0:
        _, contents, names, flags, name = struct.unpack("<BBBB8s", policy)
        return f"v1:{contents}:{names}:{flags}:{name.hex()}"
    _, contents, names, flags, log2_unit, reserved, name = struct.unpack("<BBBBB3s16s", policy)
    return f"v2:{contents}:{names}:{flags}:{log2_unit}:{name.hex()}" + (":" + reserved.hex() if any(reserved) else "")


def status_words(status):
    state, flags, users = status
    word = {ABSENT: "absent", PRESENT: "present", INCOMPLETE: "incomplete"}.get(state, str(state))
    return f"{word},self={flags & 1},users={users}" + (f",flags={flags:#x}" if flags & ~1 else "")


def removal_words(flags):
    words = [word for bit, word in ((FILES_BUSY, "busy"), (OTHER_USERS, "others")) if flags & bit]
    return ",".join(words + ([hex(flags & ~3)] if flags & ~3 else [])) or "0"


# ---- by another user -----------------------------------------------------------------------------------------------------


def unshare(flags):
    if _libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


def become(uid, dumpable=True, namespace=False, no_new_privs=False):
    """This process is that user's from now on; None: whose it has been.

    dumpable: a program that was started by the user is, and one that has changed its user is not: then others of that user
    may not read its memory. namespace: in a user namespace of its own, where it is root."""
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    if namespace:
        unshare(CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {uid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as f:
                f.write(text)
    if no_new_privs:
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if not dumpable:
        _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def enter_mount_namespace():
    unshare(CLONE_NEWNS)


def enter_pid_namespace():
    """The rest is done by a child, the first process of a new namespace of process numbers."""
    unshare(CLONE_NEWPID)
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        os._exit(0)


def said_by(function, *args):
    """What a function returns as a string, or the name of its error."""
    try:
        return str(function(*args))
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))


def in_child(function, *args, uid=None, pid_namespace=False, **how):
    """said_by() in a process of its own, of another user if uid is given. how: as for become()."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        said = "died"
        try:
            if pid_namespace:
                enter_pid_namespace()
            become(uid, **how)
            said = said_by(function, *args)
        except BaseException:  # pylint: disable=broad-except
            said = "died: " + traceback.format_exc()
        finally:
            os.write(write_end, said.encode(errors="surrogateescape")[:60000])
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as f:
        said = f.read().decode(errors="surrogateescape")
    os.waitpid(pid, 0)
    if said.startswith("died") or not said:
        raise AssertionError(said)
    return said
