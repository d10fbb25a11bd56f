"""A volume, decrypted in pure Python: what ext4.py finds on the medium, by the standards of reference.py.

Not here: either of the two. Nothing is replayed: for volumes that were closed. Slow.
Read more: tests/lib/ext4.py, tests/lib/reference.py.
"""
import ext4
import reference as r

DIR_INDEX, UNSIGNED_HASH = 0x20, 2


class Reader:
    def __init__(self, image, key_files):
        self.v = ext4.Volume(image)
        self.masters = []
        for path in key_files:
            with open(path, "rb") as f:
                self.masters.append(f.read())
        self.cache = {}

    def inode(self, inode):
        if inode.number not in self.cache:
            context = r.parse_context(inode.context_at()[0])
            named = r.identifier if context.version == 2 else r.descriptor
            master = next(m for m in self.masters if named(m) == context.key)
            self.cache[inode.number] = r.Inode(context, master, inode.number, self.v.uuid, self.v.block_size)
        return self.cache[inode.number]

    def real_name(self, directory, stored):
        return self.inode(directory).name_decrypt(stored) if directory.encrypted else stored

    def nokey_name(self, directory, stored):
        if not directory.encrypted:
            return stored
        indexed = self.v.compat & DIR_INDEX and (directory.is_indexed() or directory.size == self.v.block_size)
        if not indexed:
            return r.nokey_name(stored)
        assert self.v.hash_version == 1, "half-MD4"
        return r.nokey_name(stored, r.half_md4(stored, self.v.hash_seed, bool(self.v.flags & UNSIGNED_HASH)))

    def contents(self, inode):
        raw, out = inode.data(), b""
        written = {e.lblk + i for e in inode.extents() if not e.unwritten for i in range(e.count)}
        size = self.v.block_size
        for at in range(0, len(raw), size):
            block = raw[at:at + size]
            out += self.inode(inode).contents(at, block) if at // size in written and inode.encrypted else block
        return out[:inode.size]

    def target(self, inode):
        raw = inode.symlink()
        return self.inode(inode).symlink_decrypt(raw) if inode.encrypted else raw
