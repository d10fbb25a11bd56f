#!/usr/bin/env python3
# tests/tools/test_dun.py: data unit numbers of the library against Python's integers: adding, merging, every wrap.
# Not here: what happens to merged I/O (tests/unit/test_queue.c).
# Read more: inlay/block.h, "crypt contexts".
import ctypes
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap  # noqa: E402

LIB = ctypes.CDLL(os.path.join(os.environ["INLAY_BUILD"], "libinlay.so.0"))
DUN = ctypes.c_uint64 * 4
WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16]


class Config(ctypes.Structure):
    _fields_ = [("mode", ctypes.c_int), ("unit", ctypes.c_uint32), ("dun_bytes", ctypes.c_uint32), ("type", ctypes.c_int)]


class Context(ctypes.Structure):
    _fields_ = [("use", ctypes.c_void_p), ("dun", DUN)]


LIB.inl_dun_add.argtypes = [DUN, ctypes.c_uint64]
LIB.inl_dun_add.restype = None
LIB.inl_ctx_mergeable.argtypes = [ctypes.POINTER(Context), ctypes.c_uint64, ctypes.POINTER(Context)]
LIB.inl_ctx_mergeable.restype = ctypes.c_bool
LIB.inl_key_put.argtypes = [ctypes.c_void_p]
LIB.inl_key_evict.argtypes = [ctypes.c_void_p]
LIB.inl_dev_close.argtypes = [ctypes.c_void_p]
LIB.inl_dev_open.argtypes = [ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p]
LIB.inl_key_start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]


def limbs(number):
    return DUN(*(number >> 64 * i & (1 << 64) - 1 for i in range(4)))


def number_of(dun):
    return sum(limb << 64 * i for i, limb in enumerate(dun))


def interesting(rng, bits=256):
    """Numbers near the powers of two, where carries happen, and any others."""
    if rng.random() < 0.7:
        return ((1 << rng.randrange(bits + 1)) + rng.randrange(-70, 70)) % (1 << bits)
    return rng.getrandbits(bits)


@tap.test
def adding():
    """inl_dun_add is addition modulo 2^256"""
    rng = random.Random(1)
    carried = 0
    for _ in range(20000):
        start, n = interesting(rng), interesting(rng, 64)
        dun = limbs(start)
        LIB.inl_dun_add(dun, n)
        tap.equal(number_of(dun), (start + n) % (1 << 256), f"{start:#x} + {n:#x}")
        carried += (start ^ start + n) >> 64 != 0
    if carried < 1000:
        tap.fail(f"only {carried} carries from one limb to the next")


def new_use(dev, dun_bytes, unit):
    key, use = ctypes.c_void_p(), ctypes.c_void_p()
    config = Config(1, unit, dun_bytes, 1)
    tap.equal(LIB.inl_key_new(ctypes.byref(config), bytes(range(64)), ctypes.c_size_t(64), ctypes.byref(key)), 0)
    tap.equal(LIB.inl_key_start(dev, key, ctypes.byref(use)), 0)
    LIB.inl_key_put(key)
    return use


@tap.test
def merging():
    """inl_ctx_mergeable: the same use, the next number, no wrap of the key's width; at every width"""
    dev, rng, yes, wraps = ctypes.c_void_p(), random.Random(2), 0, 0
    tap.equal(LIB.inl_dev_open(b"ram(1M)", 0, None, ctypes.byref(dev)), 0)
    for width in WIDTHS:
        unit = rng.choice([512, 4096, 65536])
        use, other = new_use(dev, width, unit), new_use(dev, width, unit)
        for _ in range(4000):
            first = interesting(rng, 8 * width)
            if rng.random() < 0.4:
                first = (1 << 8 * width) - rng.randrange(1, 9)
            n = rng.randrange(1, 9)
            second = (first + n + (rng.randrange(-1, 2) if rng.random() < 0.3 else 0)) % (1 << 256)
            if rng.random() < 0.3:
                second %= 1 << 8 * width
            mine = rng.random() < 0.9
            a, b = Context(use, limbs(first)), Context(use if mine else other, limbs(second))
            expected = mine and second == first + n and second < 1 << 8 * width
            tap.equal(LIB.inl_ctx_mergeable(ctypes.byref(a), n * unit, ctypes.byref(b)), expected,
                      f"width {width}: {first:#x} + {n} units, {second:#x}, same use: {mine}")
            yes += expected
            wraps += first + n >= 1 << 8 * width
        tap.equal(LIB.inl_key_evict(use), 0)
        tap.equal(LIB.inl_key_evict(other), 0)
    LIB.inl_dev_close(dev)
    if yes < 1000 or wraps < 1000:
        tap.fail(f"{yes} that merge and {wraps} that wrap are too few")


if __name__ == "__main__":
    tap.main()
