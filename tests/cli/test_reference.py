#!/usr/bin/env python3
"""Known answers for tests/lib/reference.py: a judge must be judged first.

Not here: the library's own vectors (tests/unit/test_crypto.c).
Read more: the source of each vector stands beside it.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import reference as r  # noqa: E402
import tap  # noqa: E402

MASTER = bytes(range(1, 0x41))
NONCE = bytes(range(16))
UUID = bytes.fromhex("00112233445566778899aabbccddeeff")


def hexes(text):
    return bytes.fromhex(text)


def inode(flags=0, version=2, contents=1, names=4, log2_unit=0):
    return r.Inode(r.Context(version, contents, names, flags, log2_unit, bytes(16), NONCE), MASTER, 12, UUID)


@tap.test
def aes():
    """AES-128 and AES-256 (FIPS 197, appendix C)"""
    plain = hexes("00112233445566778899aabbccddeeff")
    for key, wanted in ((bytes(range(16)), "69c4e0d86a7b0430d8cdb78070b4c55a"),
                        (bytes(range(32)), "8ea2b7ca516745bfeafc49904b496089")):
        cipher = r.AES(key)
        tap.equal(cipher.encrypt(plain).hex(), wanted)
        tap.equal(cipher.decrypt(hexes(wanted)), plain)


@tap.test
def xts():
    """XTS-AES-128 (IEEE 1619, vectors 1, 2 and 4)"""
    tap.equal(r.xts(bytes(32), bytes(16), bytes(32)).hex(),
              "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e")
    tap.equal(r.xts(b"\x11" * 16 + b"\x22" * 16, hexes("33" * 5) + bytes(11), b"\x44" * 32).hex(),
              "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0")
    key = hexes("2718281828459045235360287471352631415926535897932384626433832795")
    plain = bytes(range(256)) * 2
    out = r.xts(key, bytes(16), plain)
    tap.equal(out[:16].hex(), "27a7479befa1d476489f308cd4cfa6e2")
    tap.equal(r.xts(key, bytes(16), out, True), plain)


@tap.test
def cbc():
    """CBC-AES-128 (NIST SP 800-38A, F.2.1)"""
    cipher = r.AES(hexes("2b7e151628aed2a6abf7158809cf4f3c"))
    plain = hexes("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    out = r.cbc_encrypt(cipher, bytes(range(16)), plain)
    tap.equal(out.hex(), "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2")
    tap.equal(r.cbc_decrypt(cipher, bytes(range(16)), out), plain)


@tap.test
def cts():
    """CBC-CS3 (RFC 3962, appendix B: 17, 31, 32, 47, 64 bytes), and every length there and back"""
    key = b"chicken teriyaki"
    text = b"I would like the General Gau's Chicken, please, and wonton soup."
    for length, wanted in (
            (17, "c6353568f2bf8cb4d8a580362da7ff7f97"),
            (31, "fc00783e0efdb2c1d445d4c8eff7ed2297687268d6ecccc0c07b25e25ecfe5"),
            (32, "39312523a78662d5be7fcbcc98ebf5a897687268d6ecccc0c07b25e25ecfe584"),
            (47, "97687268d6ecccc0c07b25e25ecfe584b3fffd940c16a18c1b5549d2f838029e39312523a78662d5be7fcbcc98ebf5"),
            (64, "97687268d6ecccc0c07b25e25ecfe58439312523a78662d5be7fcbcc98ebf5a8"
                 "4807efe836ee89a526730dbc2f7bc8409dad8bbb96c4cdc03bc103e1a194bbd8")):
        tap.equal(r.cts_encrypt(key, bytes(16), text[:length]).hex(), wanted, f"{length} bytes")
    for length in range(16, 256):
        plain = bytes(i * 7 & 255 for i in range(length))
        tap.equal(r.cts_decrypt(key, bytes(16), r.cts_encrypt(key, bytes(16), plain)), plain, f"{length} bytes")


@tap.test
def siphash():
    """SipHash-2-4 (the paper's appendix A, and the first of its reference vectors)"""
    tap.equal(r.siphash24(bytes(range(16)), bytes(range(15))), 0xA129CA6149BE45E5)
    tap.equal(r.siphash24(bytes(range(16)), b""), 0x726FDB47DD0E0E31)


@tap.test
def hkdf():
    """HKDF-SHA512: the key identifier in the test of google/fscryptctl (test.py)"""
    tap.equal(r.identifier(b"a" * 32 + b"1" * 32).hex(), "912ae510a458723a839a9fad701538ac")


@tap.test
def contents():
    """Contents: documented known answers of every IV method, v1 and ESSIV"""
    wanted = (
        (inode(), "7d7f037e7866ebac38b5f612f2fe8ee971722d935da2ab1a45048c74c07560fb"),
        (inode(r.LBLK_64), "87fdf2971fa7f2a05c19373166dc9efffc05d7da218905a0748e34ea00adc452"),
        (inode(r.LBLK_32), "062653fbfde520c69d9e9a64a7e03d437416d0713f4a03aab2a5a3ad91713763"),
        (inode(version=1), "9765ac6609b75a7ea04322aeddb86a4631bfd66581a72290240d0247a879aad6"),
        (inode(contents=5, names=6), "9243c626df244c8f2a1d9fa3d7f74f7d329668047a9c4b101d386ca2a027066b"))
    for one, known in wanted:
        out = one.contents(0, bytes(4096), decrypt=False)
        tap.equal(out[:32].hex(), known)
        tap.equal(one.contents(0, out), bytes(4096))
    hashed = r.siphash24(r.derive(MASTER, 7, b"", 16), (12).to_bytes(8, "little")) & 0xFFFFFFFF
    tap.equal(hashed, 0xB1D67186, "hashed inode number")


@tap.test
def names():
    """Names: documented known answers at padding 4 and 32; the dirhash key"""
    tap.equal(inode(3).name_encrypt(b"hello").hex(), "5cb2a7682a675ad009cc5401ce96209cb11b1123ab7c7f65ba62df02ba11140c")
    tap.equal(inode(0).name_encrypt(b"hello").hex(), "b11b1123ab7c7f65ba62df02ba11140c")
    tap.equal(r.derive(MASTER, 5, NONCE, 16).hex(), "56a94d5d52f8532a98e25757f4979543")
    for length in range(1, 256):
        name = bytes(1 + i % 255 for i in range(length))
        stored = inode(3).name_encrypt(name)
        tap.equal(len(stored), min(255, -(-max(length, 16) // 32) * 32), f"{length} bytes")
        tap.equal(inode(3).name_decrypt(stored), name)


tap.main()
