#!/usr/bin/env python3
# tests/vectors/make-known.py: prints crypto/known.inc: the known answers, computed by the slow reference.
# Not here: who asks for them, and the question in words (crypto/known.c).
# Read more: tests/vectors/SOURCES.
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.dont_write_bytecode = True
import aes_xts  # noqa: E402
import reference  # noqa: E402

N, LEN, ODD = 34, 592, 1173
FIRST = (5 << 64) + (1 << 64) - 3
KEY = bytes((7 * i + 1) & 255 for i in range(64))
TEXT = bytes((i + (i >> 8) * 3) & 255 for i in range(N * LEN + ODD))


def cts(key):
    return lambda iv, data: reference.cts_encrypt(key, iv, data)


def essiv(key):
    cipher = aes_xts.AES(key)
    return lambda iv, data: reference.cbc_encrypt(cipher, reference.essiv(key, iv), data)


CIPHERS = [
    ("INL_CIPHER_AES_256_XTS", lambda iv, data: aes_xts.xts(KEY, iv, data), True),
    ("INL_CIPHER_AES_128_XTS", lambda iv, data: aes_xts.xts(KEY[:32], iv, data), True),
    ("INL_CIPHER_AES_128_CBC_ESSIV", essiv(KEY[:16]), False),
    ("INL_CIPHER_AES_256_CTS", cts(KEY[:32]), True),
    ("INL_CIPHER_AES_128_CTS", cts(KEY[:16]), True),
]


def answer(encrypt, steals):
    out = b"".join(encrypt((FIRST + i).to_bytes(32, "little")[:16], TEXT[i * LEN:(i + 1) * LEN]) for i in range(N))
    if steals:
        out += encrypt(FIRST.to_bytes(32, "little")[:16], TEXT[N * LEN:])
    return hashlib.sha256(out).digest()


def main():
    print("/* Made by tests/vectors/make-known.py. */")
    for name, encrypt, steals in CIPHERS:
        digest = answer(encrypt, steals)
        print(f"[{name}] = {{")
        for at in range(0, 32, 8):
            print("\t" + " ".join(f"0x{b:02x}," for b in digest[at:at + 8]))
        print("},")


if __name__ == "__main__":
    main()
