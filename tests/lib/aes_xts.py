"""AES-128, AES-256 and XTS with ciphertext stealing in slow pure Python: a judge that shares nothing with the library.

Not here: the other modes of fscrypt (reference.py). Never used for real keys: nothing is wiped or constant-time.
Read more: FIPS 197, IEEE 1619-2018.
"""
import struct

# ---- AES (FIPS 197); the tables come out of the arithmetic of GF(2^8) ------------------------------------------------


def _gf_mul(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _make_sbox():
    inverse = [0] * 256
    for a in range(1, 256):
        if not inverse[a]:
            b = next(b for b in range(1, 256) if _gf_mul(a, b) == 1)
            inverse[a], inverse[b] = b, a
    box = []
    for a in range(256):
        x = inverse[a]
        box.append(x ^ 0x63 ^ (((x << 1) | x >> 7) & 255) ^ (((x << 2) | x >> 6) & 255)
                   ^ (((x << 3) | x >> 5) & 255) ^ (((x << 4) | x >> 4) & 255))
    return box


def _word(*b):
    return b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3]


def _ror8(w):
    return (w >> 8) | ((w & 255) << 24)


SBOX = _make_sbox()
INV_SBOX = [SBOX.index(i) for i in range(256)]
_TE = [[_word(_gf_mul(s, 2), s, s, _gf_mul(s, 3)) for s in SBOX]]
_TD = [[_word(_gf_mul(s, 14), _gf_mul(s, 9), _gf_mul(s, 13), _gf_mul(s, 11)) for s in INV_SBOX]]
for _i in range(3):
    _TE.append([_ror8(w) for w in _TE[-1]])
    _TD.append([_ror8(w) for w in _TD[-1]])


class AES:
    """One key: encrypt(block), decrypt(block) of 16 bytes."""

    def __init__(self, key):
        n = len(key) // 4
        self.rounds = n + 6
        words = list(struct.unpack(f">{n}I", key))
        rcon = 1
        for i in range(n, 4 * (self.rounds + 1)):
            t = words[i - 1]
            if i % n == 0:
                t = self._sub((t << 8 | t >> 24) & 0xFFFFFFFF) ^ (rcon << 24)
                rcon = _gf_mul(rcon, 2)
            elif n > 6 and i % n == 4:
                t = self._sub(t)
            words.append(words[i - n] ^ t)
        self.ek = words
        dk = list(words)
        for i in range(4, 4 * self.rounds):
            w = words[i]
            dk[i] = (_TD[0][SBOX[w >> 24]] ^ _TD[1][SBOX[w >> 16 & 255]]
                     ^ _TD[2][SBOX[w >> 8 & 255]] ^ _TD[3][SBOX[w & 255]])
        self.dk = [dk[4 * (self.rounds - i // 4) + i % 4] for i in range(len(dk))]

    @staticmethod
    def _sub(w):
        return _word(SBOX[w >> 24], SBOX[w >> 16 & 255], SBOX[w >> 8 & 255], SBOX[w & 255])

    def _crypt(self, block, k, tables, box, step):
        t0, t1, t2, t3 = tables
        s = [a ^ b for a, b in zip(struct.unpack(">4I", block), k)]
        at = 4
        for _ in range(self.rounds - 1):
            s = [t0[s[i] >> 24] ^ t1[s[(i + step) & 3] >> 16 & 255] ^ t2[s[(i + 2) & 3] >> 8 & 255]
                 ^ t3[s[(i - step) & 3] & 255] ^ k[at + i] for i in (0, 1, 2, 3)]
            at += 4
        return struct.pack(">4I", *(
            _word(box[s[i] >> 24], box[s[(i + step) & 3] >> 16 & 255], box[s[(i + 2) & 3] >> 8 & 255],
                  box[s[(i - step) & 3] & 255]) ^ k[at + i] for i in (0, 1, 2, 3)))

    def encrypt(self, block):
        return self._crypt(block, self.ek, _TE, SBOX, 1)

    def decrypt(self, block):
        return self._crypt(block, self.dk, _TD, INV_SBOX, -1)


# ---- XTS (IEEE 1619-2018, 5) -----------------------------------------------------------------------------------------


def xor(a, b):
    return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")


def blocks(data):
    return [data[i:i + 16] for i in range(0, len(data), 16)]


def _tweaks(cipher, iv, n):
    """n tweaks, one behind the other: the encrypted iv, times x in GF(2^128) from block to block (5.2)."""
    tweak, out = int.from_bytes(cipher.encrypt(iv), "little"), bytearray()
    for _ in range(n):
        out += tweak.to_bytes(16, "little")
        tweak <<= 1
        if tweak >> 128:
            tweak ^= (1 << 128) | 0x87
    return bytes(out)


def xts(key, iv, data, decrypt=False):
    """One data unit of at least 16 bytes. The key is both halves, the iv the 16 bytes of the data unit number.

    An incomplete last block is completed with the end of the result of the block before it (5.3.2, 5.4.2). Encryption
    spends the last tweak on the completed block; decryption has the same tweaks to undo and meets them in the other order."""
    half, tail = len(key) // 2, len(data) % 16
    whole, rest = data[:len(data) - tail], data[len(data) - tail:]
    tweaks = _tweaks(AES(key[half:]), iv, -(-len(data) // 16))
    cipher = AES(key[:half])
    one = cipher.decrypt if decrypt else cipher.encrypt

    def crypt(data, tweaks):
        return xor(b"".join(map(one, blocks(xor(data, tweaks)))), tweaks)

    if not tail:
        return crypt(whole, tweaks)
    if decrypt:
        tweaks = tweaks[:-32] + tweaks[-16:] + tweaks[-32:-16]
    out = crypt(whole, tweaks[:-16])
    stolen = crypt(rest + out[tail - 16:], tweaks[-16:])
    return out[:-16] + stolen + out[-16:][:tail]


def xts_units(key, dun, unit, data, decrypt=False):
    """Data units of unit bytes each. The first has the number dun: 128 bits, little-endian; 0 follows the largest."""
    out = []
    for at in range(0, len(data), unit):
        out.append(xts(key, dun.to_bytes(16, "little"), data[at:at + unit], decrypt))
        dun = (dun + 1) % (1 << 128)
    return b"".join(out)
