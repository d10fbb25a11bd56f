#!/usr/bin/env python3
"""tests/lib/aes_xts.py against the vectors of others, and the digests that are made with it.

Not here: the library's own answers to the same vectors (tests/unit/test_crypto.c).
Read more: tests/vectors/SOURCES; tests/unit/xts_digest.h.
"""
import importlib.util
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = os.path.join(HERE, "..", "vectors")
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import aes_xts  # noqa: E402
import tap  # noqa: E402

AES_128, AES_256 = 32, 64  # bytes of both halves of a key


def read(name):
    with open(os.path.join(VECTORS, name), encoding="ascii") as f:
        return f.read()


def vectors(name):
    """(name, key, iv, text, ciphertext) of each line of C."""
    text = re.sub(r"/\*.*?\*/", "", read(name), flags=re.DOTALL)
    text = re.sub(r"\s+", " ", re.sub(r'"\s+"', "", text))
    rows = re.findall(r'\{ "([^"]*)", "([^"]*)", "([^"]*)", (?:"([^"]*)"|NULL), "([^"]*)" \},', text)
    tap.equal(len(rows), text.count("{"), f"{name}: vectors that were understood")
    for title, key, iv, plain, sealed in rows:
        key, iv, plain, sealed = map(bytes.fromhex, (key, iv, plain, sealed))
        yield title, key, iv + bytes(16 - len(iv)), plain or bytes(i & 255 for i in range(len(sealed))), sealed


def check(name, key_lens, whole):
    seen = set()
    for title, key, iv, plain, sealed in vectors(name):
        tap.equal((len(key) in key_lens, len(sealed) % 16 == 0), (True, whole), f"{name}, {title}: sizes")
        tap.equal(aes_xts.xts(key, iv, plain).hex(), sealed.hex(), f"{name}, {title}")
        tap.equal(aes_xts.xts(key, iv, sealed, decrypt=True).hex(), plain.hex(), f"{name}, {title}, decrypted")
        tap.equal(title in seen, False, f"{name}, {title}: there twice")
        seen.add(title)


@tap.test
def aes_128():
    """AES-128-XTS: whole blocks"""
    check("aes-128-xts.inc", [AES_128], True)


@tap.test
def aes_256():
    """AES-256-XTS: whole blocks"""
    check("aes-xts.inc", [AES_256], True)


@tap.test
def stealing():
    """AES-XTS of either key: ciphertext stealing"""
    check("aes-xts-stealing.inc", [AES_128, AES_256], False)


@tap.test
def back():
    """Every length from 16 to 100 bytes there and back"""
    key = bytes(range(64))
    for length in range(16, 101):
        plain = bytes(i * 7 & 255 for i in range(length))
        tap.equal(aes_xts.xts(key, bytes(16), aes_xts.xts(key, bytes(16), plain), decrypt=True), plain, f"{length} bytes")


@tap.test
def carries():
    """Units one behind the other: their numbers carry into every byte, and 0 follows the largest"""
    key, text = bytes(range(32)), bytes(48)
    for bits in range(8, 129, 8):
        first = (1 << bits) - 1
        numbers = [first, (first + 1) % (1 << 128), (first + 2) % (1 << 128)]
        wanted = b"".join(aes_xts.xts(key, n.to_bytes(16, "little"), text[:16]) for n in numbers)
        tap.equal(aes_xts.xts_units(key, first, 16, text), wanted, f"{bits} bits")
        tap.equal(aes_xts.xts_units(key, first, 16, wanted, decrypt=True), text, f"{bits} bits, decrypted")


@tap.test
def digests():
    """aes-xts-digests.inc is what its maker makes (the half of it that is quick)"""
    spec = importlib.util.spec_from_file_location("maker", os.path.join(VECTORS, "make-aes-xts-digests.py"))
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    known = dict(re.findall(r'#define (\w+) "(\w+)"', read("aes-xts-digests.inc")))
    tap.equal(maker.digest(maker.STEALING, AES_128), known["AES_128_XTS_STEALING_DIGEST"])
    tap.equal(maker.digest(maker.STEALING, AES_256), known["AES_256_XTS_STEALING_DIGEST"])


if __name__ == "__main__":
    tap.main()
