"""A slow reference of fscrypt in pure Python, written from public standards: a judge besides the kernel and the library.

Not here: AES and XTS themselves (aes_xts.py); where ext4 keeps contexts, names and blocks (ext4.py). Never used for real
keys: nothing is wiped or constant-time.
Read more: NIST SP 800-38A with its CTS addendum, RFC 5869, the SipHash paper, Linux
Documentation/filesystems/fscrypt.rst.
"""
import base64
import hashlib
import hmac
import struct
from collections import namedtuple

from aes_xts import AES, blocks, xor, xts

# ---- modes of operation ----------------------------------------------------------------------------------------------


def cbc_encrypt(cipher, iv, data):
    out = []
    for block in blocks(data):
        iv = cipher.encrypt(xor(block, iv))
        out.append(iv)
    return b"".join(out)


def cbc_decrypt(cipher, iv, data):
    out = []
    for block in blocks(data):
        out.append(xor(cipher.decrypt(block), iv))
        iv = block
    return b"".join(out)


def cts_encrypt(key, iv, data):
    """CBC with ciphertext stealing, CS3: the last two blocks always change places; one block alone is plain CBC."""
    cipher = AES(key)
    if len(data) <= 16:
        return cbc_encrypt(cipher, iv, data)
    tail = len(data) % 16 or 16
    whole = cbc_encrypt(cipher, iv, data + bytes(16 - tail))
    return whole[:-32] + whole[-16:] + whole[-32:-32 + tail]


def cts_decrypt(key, iv, data):
    cipher = AES(key)
    if len(data) <= 16:
        return cbc_decrypt(cipher, iv, data)
    tail = len(data) % 16 or 16
    head, last, stolen = data[:-16 - tail], data[-16 - tail:-tail], data[-tail:]
    mixed = cipher.decrypt(last)
    before = stolen + mixed[tail:]
    chain = head[-16:] if head else iv
    return cbc_decrypt(cipher, iv, head) + xor(cipher.decrypt(before), chain) + xor(mixed[:tail], stolen)


def essiv(key, iv):
    """The IV of CBC-ESSIV: the plain IV under AES-256 with the hash of the key."""
    return AES(hashlib.sha256(key).digest()).encrypt(iv)


# ---- derivation ------------------------------------------------------------------------------------------------------


def hkdf_sha512(ikm, info, length, salt=bytes(64)):
    prk = hmac.new(salt, ikm, hashlib.sha512).digest()
    out, block = b"", b""
    for i in range(1, 256):
        if len(out) >= length:
            break
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha512).digest()
        out += block
    return out[:length]


def derive(master, ctx, extra, length):
    return hkdf_sha512(master, b"fscrypt\0" + bytes([ctx]) + extra, length)


def identifier(master):
    return derive(master, 1, b"", 16)


def descriptor(master):
    return hashlib.sha512(hashlib.sha512(master).digest()).digest()[:8]


def siphash24(key, data):
    """SipHash-2-4, 64 bits."""
    mask = (1 << 64) - 1
    k0, k1 = struct.unpack("<2Q", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rol(x, n):
        return ((x << n) | (x >> (64 - n))) & mask

    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & mask
            v[1] = rol(v[1], 13) ^ v[0]
            v[0] = rol(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = rol(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = rol(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = rol(v[1], 17) ^ v[2]
            v[2] = rol(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (m,) in struct.iter_unpack("<Q", padded):
        v[3] ^= m
        rounds(2)
        v[0] ^= m
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


# ---- policies, contexts ----------------------------------------------------------------------------------------------

XTS, CTS, CBC128, CTS128 = 1, 4, 5, 6
KEY_SIZE = {XTS: 64, CTS: 32, CBC128: 16, CTS128: 16}
DIRECT_KEY, LBLK_64, LBLK_32 = 4, 8, 16

Context = namedtuple("Context", "version contents names flags log2_unit key nonce")


def parse_context(raw):
    if len(raw) == 28 and raw[0] == 1:
        return Context(1, raw[1], raw[2], raw[3], 0, raw[4:12], raw[12:28])
    if len(raw) == 40 and raw[0] == 2 and raw[5:8] == bytes(3):
        return Context(2, raw[1], raw[2], raw[3], raw[4], raw[8:24], raw[24:40])
    raise ValueError(f"no context: {raw.hex()}")


def pack_context(c):
    if c.version == 1:
        return bytes([1, c.contents, c.names, c.flags]) + c.key + c.nonce
    return bytes([2, c.contents, c.names, c.flags, c.log2_unit, 0, 0, 0]) + c.key + c.nonce


class Inode:
    """The encryption of one inode: its context, the master key, its number, the volume's UUID and block size."""

    def __init__(self, context, master, ino=0, uuid=bytes(16), block_size=4096):
        self.c, self.master, self.ino, self.uuid = context, master, ino, uuid
        self.unit = 1 << context.log2_unit if context.log2_unit else block_size

    def key(self, mode):
        size = KEY_SIZE[mode]
        c, mode_byte = self.c, bytes([mode])
        if c.version == 1:
            if c.flags & DIRECT_KEY:
                return self.master[:size]
            cipher = AES(c.nonce)
            return b"".join(cipher.encrypt(b) for b in blocks(self.master[:size]))
        if c.flags & DIRECT_KEY:
            return derive(self.master, 3, mode_byte, size)
        if c.flags & LBLK_64:
            return derive(self.master, 4, mode_byte + self.uuid, size)
        if c.flags & LBLK_32:
            return derive(self.master, 6, mode_byte + self.uuid, size)
        return derive(self.master, 2, c.nonce, size)

    def iv(self, index, size=16):
        if self.c.flags & DIRECT_KEY:
            iv = struct.pack("<Q", index) + self.c.nonce
        elif self.c.flags & LBLK_64:
            iv = struct.pack("<II", index, self.ino)
        elif self.c.flags & LBLK_32:
            hashed = siphash24(derive(self.master, 7, b"", 16), struct.pack("<Q", self.ino))
            iv = struct.pack("<I", (hashed + index) & 0xFFFFFFFF)
        else:
            iv = struct.pack("<Q", index)
        return (iv + bytes(size))[:size]

    def _unit(self, index, data, decrypt):
        key, iv = self.key(self.c.contents), self.iv(index)
        if self.c.contents == XTS:
            return xts(key, iv, data, decrypt)
        if self.c.contents == CBC128:
            cipher, iv = AES(key), essiv(key, iv)
            return cbc_decrypt(cipher, iv, data) if decrypt else cbc_encrypt(cipher, iv, data)
        raise NotImplementedError(f"contents mode {self.c.contents}")

    def contents(self, offset, data, decrypt=True):
        """Whole data units that begin at a byte offset of the file."""
        assert offset % self.unit == 0 and len(data) % self.unit == 0
        return b"".join(self._unit((offset + i) // self.unit, data[i:i + self.unit], decrypt)
                        for i in range(0, len(data), self.unit))

    def name_encrypt(self, name, limit=255):
        pad = 4 << (self.c.flags & 3)
        length = min(limit, -(-max(len(name), 16) // pad) * pad)
        return cts_encrypt(self.key(self.c.names), self.iv(0), name + bytes(length - len(name)))

    def name_decrypt(self, stored):
        return cts_decrypt(self.key(self.c.names), self.iv(0), stored).split(b"\0")[0]

    def symlink_decrypt(self, raw):
        return self.name_decrypt(symlink_ciphertext(raw))


def symlink_ciphertext(raw):
    (length,) = struct.unpack_from("<H", raw)
    return raw[2:2 + length]


# ---- names without the key -------------------------------------------------------------------------------------------


def nokey_name(stored, dirhash=(0, 0)):
    raw = struct.pack("<II", *dirhash) + stored[:149]
    if len(stored) > 149:
        raw += hashlib.sha256(stored[149:]).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def half_md4(name, seed=None, unsigned=False):
    """The hash of ext4's indexed directories: (major, minor)."""
    mask = 0xFFFFFFFF
    buf = list(seed) if seed and any(seed) else [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476]

    def words(part):
        pad = len(part) | len(part) << 8
        pad |= pad << 16
        out, value = [], pad & mask
        for i, byte in enumerate(part[:32]):
            value = ((byte if unsigned or byte < 128 else byte - 256) + (value << 8)) & mask
            if i % 4 == 3:
                out.append(value)
                value = pad & mask
        if len(out) < 8:
            out.append(value)
        return (out + [pad & mask] * 8)[:8]

    def one(f, a, b, c, d, x, s):
        t = (a + f(b, c, d) + x) & mask
        return ((t << s) | (t >> (32 - s))) & mask

    rounds = (
        (lambda x, y, z: z ^ (x & (y ^ z)), 0, (3, 7, 11, 19), range(8)),
        (lambda x, y, z: (x & y) + ((x ^ y) & z), 0x5A827999, (3, 5, 9, 13), (1, 3, 5, 7, 0, 2, 4, 6)),
        (lambda x, y, z: x ^ y ^ z, 0x6ED9EBA1, (3, 9, 11, 15), (3, 7, 2, 6, 1, 5, 0, 4)),
    )
    while True:
        x = words(name)
        a, b, c, d = buf
        for f, k, shifts, order in rounds:
            for i, w in enumerate(order):
                t = one(f, a, b, c, d, x[w] + k, shifts[i % 4])
                a, b, c, d = d, t, b, c
        buf = [(p + q) & mask for p, q in zip(buf, (a, b, c, d))]
        name = name[32:]
        if not name:
            break
    major = buf[1] & ~1
    if major == 0xFFFFFFFE:
        major = 0xFFFFFFFC
    return major, buf[2]
