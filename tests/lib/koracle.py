#!/usr/bin/env python3
"""The running kernel as an oracle: make, fill and read fscrypt directories through its own ioctls.

Not here: the tree that is written (trees.py); a judge that is independent of the kernel (reference.py).
Read more: Linux Documentation/filesystems/fscrypt.rst, include/uapi/linux/fscrypt.h, whose numbers these are.

Needs root, a loop device and a kernel with ext4 and fscrypt; `koracle.py available` exits 0 when all three are
there, 77 when not. A key is raw bytes on standard input, 16 to 64 of them. A NAME of 32 hex digits is the identifier of
a key for v2 policies, one of 16 digits the descriptor for v1 policies.

  koracle.py available
  koracle.py mount IMAGE DIR            loop mount
  koracle.py umount DIR
  koracle.py add-key DIR [--v1] < KEY   prints the key's name
  koracle.py remove-key DIR NAME
  koracle.py key-status DIR NAME        absent | present | incompletely-removed
  koracle.py set-policy DIR NAME [--contents N] [--names N] [--flags N] [--log2-unit N]
  koracle.py get-policy PATH            version contents names flags log2-unit name
  koracle.py nonce PATH
"""
import argparse
import fcntl
import hashlib
import os
import struct
import subprocess
import sys
import tempfile


def ioc(direction, number, size):
    return (direction << 30) | (size << 16) | (ord("f") << 8) | number


SET_POLICY = ioc(2, 19, 12)
GET_POLICY_EX = ioc(3, 22, 9)
ADD_KEY = ioc(3, 23, 80)
REMOVE_KEY = ioc(3, 24, 64)
KEY_STATUS = ioc(3, 26, 128)
GET_NONCE = ioc(2, 27, 16)

PAD = {4: 0, 8: 1, 16: 2, 32: 3}
DIRECT_KEY, LBLK_64, LBLK_32 = 4, 8, 16


def call(path, request, buffer):
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, request, buffer, True)
    finally:
        os.close(fd)
    return buffer


def specifier(name):
    """struct fscrypt_key_specifier, 40 bytes."""
    raw = bytes.fromhex(name)
    return struct.pack("<II32s", {8: 1, 16: 2}[len(raw)], 0, raw)


def descriptor(raw):
    """The customary name of a key for v1 policies."""
    return hashlib.sha512(hashlib.sha512(raw).digest()).digest()[:8].hex()


def add_key(path, raw, v1=False):
    spec = specifier(descriptor(raw)) if v1 else struct.pack("<II32s", 2, 0, b"")
    arg = bytearray(spec + struct.pack("<I36x", len(raw)) + raw)
    call(path, ADD_KEY, arg)
    return descriptor(raw) if v1 else bytes(arg[8:24]).hex()


def remove_key(path, name):
    call(path, REMOVE_KEY, bytearray(specifier(name) + bytes(24)))


def key_status(path, name):
    arg = call(path, KEY_STATUS, bytearray(specifier(name) + bytes(88)))
    return {1: "absent", 2: "present", 3: "incompletely-removed"}[struct.unpack_from("<I", arg, 64)[0]]


def set_policy(path, name, contents=1, names=4, flags=3, log2_unit=0):
    raw = bytes.fromhex(name)
    if len(raw) == 8:
        policy = struct.pack("<BBBB8s", 0, contents, names, flags, raw)
    else:
        policy = struct.pack("<BBBBB3s16s", 2, contents, names, flags, log2_unit, bytes(3), raw)
    call(path, SET_POLICY, bytearray(policy))


def get_policy(path):
    arg = call(path, GET_POLICY_EX, bytearray(struct.pack("<Q", 24) + bytes(24)))
    if arg[8] == 0:
        _, contents, names, flags, raw = struct.unpack_from("<BBBB8s", arg, 8)
        return 0, contents, names, flags, 0, raw.hex()
    version, contents, names, flags, log2_unit, _, raw = struct.unpack_from("<BBBBB3s16s", arg, 8)
    return version, contents, names, flags, log2_unit, raw.hex()


def nonce(path):
    return bytes(call(path, GET_NONCE, bytearray(16))).hex()


def mount(image, directory):
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)


def umount(directory):
    subprocess.run(["umount", directory], check=True)


def mkfs(image, size, *options):
    """A sparse file of `size` bytes with an ext4 that may hold encrypted directories; more options for mke2fs."""
    with open(image, "wb") as f:
        f.truncate(size)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "encrypt", *options, image],
                   check=True, stdout=subprocess.DEVNULL)


def available():
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as work:
        image, directory = os.path.join(work, "i"), os.path.join(work, "m")
        os.mkdir(directory)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            mkfs(image, 16 << 20)
        except (OSError, subprocess.CalledProcessError):
            return False
        if subprocess.run(["mount", "-o", "loop", image, directory], check=False, **quiet).returncode:
            return False
        try:
            add_key(directory, bytes(range(1, 65)))
            return True
        except OSError:
            return False
        finally:
            umount(directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb")
    parser.add_argument("args", nargs="*")
    parser.add_argument("--v1", action="store_true")
    parser.add_argument("--contents", type=int, default=1)
    parser.add_argument("--names", type=int, default=4)
    parser.add_argument("--flags", type=lambda s: int(s, 0), default=3)
    parser.add_argument("--log2-unit", type=int, default=0)
    o = parser.parse_args()
    try:
        if o.verb == "available":
            sys.exit(0 if available() else 77)
        elif o.verb == "mount":
            mount(*o.args)
        elif o.verb == "umount":
            umount(*o.args)
        elif o.verb == "add-key":
            print(add_key(o.args[0], sys.stdin.buffer.read(), o.v1))
        elif o.verb == "remove-key":
            remove_key(*o.args)
        elif o.verb == "key-status":
            print(key_status(*o.args))
        elif o.verb == "set-policy":
            set_policy(o.args[0], o.args[1], o.contents, o.names, o.flags, o.log2_unit)
        elif o.verb == "get-policy":
            print(*get_policy(o.args[0]))
        elif o.verb == "nonce":
            print(nonce(o.args[0]))
        else:
            parser.error("unknown verb " + o.verb)
    except OSError as error:
        sys.exit(f"koracle: {o.verb}: {error}")


if __name__ == "__main__":
    main()
