#!/usr/bin/env python3
"""Makes aes-xts-digests.inc: the digests that tests/unit/xts_digest.h defines, from AES-XTS in Python.

Not here: the definition; the tests that compare. Run by hand, when the definition changes; it takes a minute:
    tests/vectors/make-aes-xts-digests.py >tests/vectors/aes-xts-digests.inc
Read more: tests/unit/xts_digest.h.
"""
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from aes_xts import xts_units  # noqa: E402

UNITS = [(3, length) for length in range(16, 4097, 16)]
STEALING = [(1, length) for length in [*range(16, 601), *range(603, 4096, 97)]]


class Stream:
    def __init__(self):
        self.x = 88172645463325252

    def number(self):
        x = self.x
        x ^= x >> 12
        x ^= x << 25 & (1 << 64) - 1
        x ^= x >> 27
        self.x = x
        return x * 2685821657736338717 % (1 << 64)

    def bytes(self, n):
        return bytes(self.number() >> 32 & 255 for _ in range(n))

    def dun(self, i):
        dun = self.number() | self.number() << 64
        if i % 4:
            dun |= (1 << (0, 32, 64, 128)[i % 4]) - 1
            dun -= i // 4 % 2
        return dun


def digest(cases, key_len):
    stream, chain = Stream(), bytes(32)
    for i, (n, length) in enumerate(cases):
        key, dun, text = stream.bytes(key_len), stream.dun(i), stream.bytes(n * length)
        chain = hashlib.sha256(chain + xts_units(key, dun, length, text)).digest()
    return chain.hex()


def main():
    print("/* AES-XTS at every length: see tests/unit/xts_digest.h. Made by make-aes-xts-digests.py. */")
    for cases, what in ((UNITS, ""), (STEALING, "STEALING_")):
        for key_len in (32, 64):
            print(f'#define AES_{key_len * 4}_XTS_{what}DIGEST "{digest(cases, key_len)}"', flush=True)


if __name__ == "__main__":
    main()
