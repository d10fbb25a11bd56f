"""A minimal reader of ext4 images: where things lie, so that tests can look at ciphertext and damage it precisely.

Not here: journals, checksums, anything that writes on its own; this is no file system and trusts its input.
Read more: Linux Documentation/filesystems/ext4/.
"""
import stat
import struct
from collections import namedtuple

Extent = namedtuple("Extent", "lblk count pblk unwritten")
Entry = namedtuple("Entry", "name ino type offset")  # offset: bytes in the image

ENCRYPT_FL, INDEX_FL, EXTENTS_FL, INLINE_FL = 0x800, 0x1000, 0x80000, 0x10000000
ROOT = 2


class Volume:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.raw = f.read()
        self.parse()

    def parse(self):
        sb = self.raw[1024:2048]
        (self.n_inodes, self.n_blocks) = struct.unpack_from("<II", sb, 0)
        (self.first_data, log_block) = struct.unpack_from("<II", sb, 20)
        self.block_size = 1024 << log_block
        (self.per_group,) = struct.unpack_from("<I", sb, 32)
        (self.inodes_per_group,) = struct.unpack_from("<I", sb, 40)
        (self.inode_size,) = struct.unpack_from("<H", sb, 88)
        (self.compat, self.incompat, self.ro_compat) = struct.unpack_from("<3I", sb, 92)
        self.uuid = sb[104:120]
        self.hash_seed = struct.unpack_from("<4I", sb, 0xEC)
        self.hash_version = sb[0xFC]
        (self.flags,) = struct.unpack_from("<I", sb, 0x160)
        self.desc_size = struct.unpack_from("<H", sb, 254)[0] if self.incompat & 0x80 else 32
        self.desc_at = (self.first_data + 1) * self.block_size
        self.n_groups = -(-(self.n_blocks - self.first_data) // self.per_group)

    def block(self, number, count=1):
        return self.raw[number * self.block_size:(number + count) * self.block_size]

    def inode_table(self, group):
        """Byte offset of the group's inode table."""
        at = self.desc_at + group * self.desc_size
        (table,) = struct.unpack_from("<I", self.raw, at + 8)
        if self.desc_size >= 64:
            table |= struct.unpack_from("<I", self.raw, at + 0x28)[0] << 32
        return table * self.block_size

    def inode(self, number):
        return Inode(self, number)

    def walk(self, number=ROOT, path=b"", name=lambda inode, stored: stored):
        """Yield (path, inode) below a directory; name(directory, stored) makes the names."""
        here = self.inode(number)
        for entry in here.entries():
            child = self.inode(entry.ino)
            where = path + b"/" + name(here, entry.name)
            yield where, child
            if child.is_dir:
                yield from self.walk(entry.ino, where, name)

    def find(self, path, name=lambda inode, stored: stored):
        inode = self.inode(ROOT)
        for part in path.strip(b"/").split(b"/"):
            hit = [e for e in inode.entries() if name(inode, e.name) == part]
            if not hit:
                raise FileNotFoundError(path)
            inode = self.inode(hit[0].ino)
        return inode


class Inode:
    def __init__(self, volume, number):
        self.v, self.number = volume, number
        group, index = divmod(number - 1, volume.inodes_per_group)
        self.at = volume.inode_table(group) + index * volume.inode_size
        self.raw = volume.raw[self.at:self.at + volume.inode_size]
        (self.mode,) = struct.unpack_from("<H", self.raw, 0)
        self.size = struct.unpack_from("<I", self.raw, 4)[0] | struct.unpack_from("<I", self.raw, 108)[0] << 32
        (self.links,) = struct.unpack_from("<H", self.raw, 26)
        (self.blocks, self.flags) = struct.unpack_from("<II", self.raw, 28)
        (self.file_acl,) = struct.unpack_from("<I", self.raw, 104)
        self.is_dir, self.is_reg, self.is_link = (t(self.mode) for t in (stat.S_ISDIR, stat.S_ISREG, stat.S_ISLNK))

    @property
    def encrypted(self):
        return bool(self.flags & ENCRYPT_FL)

    def extents(self):
        if not self.flags & EXTENTS_FL:
            return list(self._indirect())
        return list(self._extent_node(self.raw[40:100]))

    def _extent_node(self, node):
        magic, n, _, depth = struct.unpack_from("<4H", node)
        assert magic == 0xF30A, f"inode {self.number}: no extent node"
        for i in range(n):
            at = 12 + 12 * i
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, at)
                yield from self._extent_node(self.v.block(low | high << 32))
            else:
                lblk, count, high, low = struct.unpack_from("<IHHI", node, at)
                unwritten = count > 32768
                yield Extent(lblk, count - 32768 if unwritten else count, low | high << 32, unwritten)

    def _indirect(self):
        pointers = struct.unpack_from("<15I", self.raw, 40)
        per = self.v.block_size // 4
        at = [0]

        def walk(block, depth):
            if depth == 0:
                if block:
                    yield Extent(at[0], 1, block, False)
                at[0] += 1
            elif not block:
                at[0] += per ** depth
            else:
                for child in struct.unpack(f"<{per}I", self.v.block(block)):
                    yield from walk(child, depth - 1)

        for block, depth in zip(pointers, (0,) * 12 + (1, 2, 3)):
            yield from walk(block, depth)

    def data(self):
        """The bytes as stored, in whole blocks; holes and unwritten extents are zeros."""
        size = self.v.block_size
        out = bytearray(-(-self.size // size) * size)
        for e in self.extents():
            if not e.unwritten:
                out[e.lblk * size:(e.lblk + e.count) * size] = self.v.block(e.pblk, e.count)
        return bytes(out[:-(-self.size // size) * size])

    def symlink(self):
        """What a symbolic link stores, i_size bytes."""
        if self.blocks - (self.v.block_size // 512 if self.file_acl else 0) == 0:
            return self.raw[40:100][:self.size]
        return self.data()[:self.size]

    def entries(self):
        """The directory's entries without "." and "..", in the order on the medium."""
        size = self.v.block_size
        for e in self.extents():
            for i in range(e.count):
                start = (e.pblk + i) * size
                at = 0
                while at + 12 <= size:
                    ino, rec, length, kind = struct.unpack_from("<IHBB", self.v.raw, start + at)
                    rec = rec or size
                    name = self.v.raw[start + at + 8:start + at + 8 + length]
                    if ino and length and name not in (b".", b".."):
                        yield Entry(name, ino, kind, start + at)
                    at += rec

    def xattr_entries(self):
        """(index, name, value, offset of the value in the image) of every xattr in the inode body and its block."""
        places = []
        if self.v.inode_size > 128:
            (extra,) = struct.unpack_from("<H", self.raw, 128)
            start = 128 + extra
            if self.raw[start:start + 4] == b"\x00\x00\x02\xea":
                places.append((self.at + start + 4, self.at + start + 4, self.at + self.v.inode_size))
        if self.file_acl:
            start = self.file_acl * self.v.block_size
            places.append((start + 32, start, start + self.v.block_size))
        raw = self.v.raw
        for at, base, end in places:
            while at + 16 <= end and raw[at:at + 4] != bytes(4):
                length, index, offset, inum, size = raw[at], raw[at + 1], *struct.unpack_from("<HII", raw, at + 2)
                if not inum:
                    yield index, raw[at + 16:at + 16 + length], raw[base + offset:base + offset + size], base + offset
                at += (16 + length + 3) & ~3

    def context_at(self):
        """(bytes of the encryption context, its offset in the image), or None."""
        return next(((value, at) for index, name, value, at in self.xattr_entries() if (index, name) == (9, b"c")), None)

    def is_indexed(self):
        return bool(self.flags & INDEX_FL)
