/*
 * tests/unit/test_attr.c: attributes of inodes, set and given to new ones; symbolic links.
 * Not here: names (test_namei.c); extended attributes (test_xattr.c).
 * Read more: ext4/attr.c.
 */
#include "namei_rig.h"
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static bool newer(struct inl_time a, struct inl_time b)
{
	return a.sec != b.sec || a.nsec != b.nsec;
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static int64_t clamp(int64_t sec, int64_t max)
{
	return sec < INT32_MIN ? INT32_MIN : sec > max ? max : sec;
}

/* As they are read back, by Inlay and by the kernel. */
static void test_time_range(void **state)
{
	static const int64_t secs[] = { 0, 1, -1, INT32_MAX, INT32_MAX + 1ll, INT32_MIN, INT32_MIN - 1ll, UINT32_MAX, UINT32_MAX + 1ll,
					0x17fffffffll, 0x180000000ll, 0x27fffffffll, 0x280000000ll, 0x37ffffffell, 0x37fffffffll,
					0x380000000ll, INT64_MAX, INT64_MIN };
	static const char *const options[] = { "-I 256", "-I 128 -O ^metadata_csum" };

	needs_tools();
	for (size_t o = 0; o < COUNT(options); o++) {
		int64_t max = o ? INT32_MAX : 0x37fffffff;
		struct disk disk;

		run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 %s a.img", options[o]);
		disk_open(&disk, "a.img");
		for (size_t i = 0; i < COUNT(secs); i++) {
			struct inl_attr attr = { .mode = S_IFREG | 0644, .atime = { secs[i], 1 }, .mtime = { secs[i], 999999999 },
						 .ctime = { secs[i], 123456789 }, .crtime = { secs[i], 42 } };
			struct inl_inode *root = get(disk.vol, "/"), *inode;
			int64_t sec = clamp(secs[i], max);
			bool inside = sec == secs[i] && sec != max && sec != INT32_MIN && !o;
			struct inl_stat st;
			char name[16];

			snprintf(name, sizeof(name), "%zu", i);
			if (i & 1) {
				assert_int_equal(inl_create(root, name, strlen(name), &attr, INL_ATTR_TIMES, NULL, &inode), 0);
			} else {
				assert_int_equal(inl_create(root, name, strlen(name), &attr, 0, NULL, &inode), 0);
				assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_TIMES, NULL), 0);
			}
			assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
			assert_int_equal(st.atime.sec, sec);
			assert_int_equal(st.mtime.sec, sec);
			assert_int_equal(st.ctime.sec, sec);
			assert_int_equal(st.crtime.sec, o ? 0 : sec);
			assert_int_equal(st.atime.nsec, inside ? 1 : 0);
			assert_int_equal(st.mtime.nsec, inside ? 999999999 : 0);
			assert_int_equal(st.ctime.nsec, inside ? 123456789 : 0);
			inl_inode_put(inode);
			inl_inode_put(root);
		}
		disk_close(&disk);
		fsck("a.img");
		if (!has_kernel)
			continue;
		run("mount -o loop,ro a.img mnt");
		for (size_t i = 0; i < COUNT(secs); i++) {
			struct statx stx;
			char path[32];

			snprintf(path, sizeof(path), "mnt/%zu", i);
			assert_int_equal(statx(AT_FDCWD, in_dir(path), 0, STATX_ALL, &stx), 0);
			assert_int_equal(stx.stx_mtime.tv_sec, clamp(secs[i], max));
			assert_int_equal(stx.stx_ctime.tv_sec, clamp(secs[i], max));
			if (!o)
				assert_int_equal(stx.stx_btime.tv_sec, clamp(secs[i], max));
		}
		run("umount mnt");
	}
}

static void test_setattr(void **state)
{
	struct inl_attr attr = { .mode = S_IFDIR | 07751, .uid = 0x12345678, .gid = 0x9abcdef0 };
	struct inl_inode *inode;
	struct inl_stat before, st;
	struct disk disk;

	needs_tools();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/f", S_IFREG | 0644, 0, 0), 0);
	assert_int_equal(make_symlink(disk.vol, "f", "/l"), 0);
	inode = get(disk.vol, "/f");
	assert_int_equal(inl_inode_stat(inode, &before, NULL), 0);
	usleep(1000);
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_MODE, NULL), 0);
	assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
	assert_int_equal(st.mode, S_IFREG | 07751);
	assert_int_equal(st.uid, 0);
	assert_true(newer(before.ctime, st.ctime));
	assert_false(newer(before.mtime, st.mtime));
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_UID | INL_ATTR_CTIME, NULL), 0);
	assert_int_equal(inl_inode_stat(inode, &st, NULL), 0);
	assert_int_equal(st.ctime.sec, 0);
	assert_int_equal(st.uid, attr.uid);
	assert_int_equal(st.gid, 0);
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_GID, NULL), 0);
	inl_inode_put(inode);
	inode = get(disk.vol, "/l");
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_MODE, NULL), -EOPNOTSUPP);
	assert_int_equal(inl_setattr(inode, &attr, INL_ATTR_UID, NULL), 0);
	inl_inode_put(inode);
	disk_close(&disk);
	fsck("a.img");
	disk_open(&disk, "a.img");
	st = stat_of(disk.vol, "/f");
	assert_int_equal(st.uid, attr.uid);
	assert_int_equal(st.gid, attr.gid);
	assert_int_equal(st.mode, S_IFREG | 07751);
	assert_int_equal(stat_of(disk.vol, "/l").uid, attr.uid);
	disk_close(&disk);
}

/* chmod and an access ACL, against the kernel's own. */
static void test_chmod_acl(void **state)
{
	static const uint8_t acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 5, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
				       16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255 };
	static const uint32_t modes[] = { 0700, 0070, 07007, 0777, 0, 0640 };
	struct disk disk;

	needs_kernel();
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 a.img && mount -o loop a.img mnt && cd mnt && "
	    "for i in 0 1 2 3 4 5; do touch a$i b$i; done");
	for (unsigned i = 0; i < COUNT(modes); i++) {
		for (char c = 'a'; c <= 'b'; c++) {
			char path[16];

			snprintf(path, sizeof(path), "mnt/%c%u", c, i);
			if (setxattr(in_dir(path), "system.posix_acl_access", acl, sizeof(acl), 0)) {
				run("umount mnt");
				print_message("skipped: the kernel has no ACLs\n");
				skip();
			}
			if (c == 'b')
				assert_int_equal(chmod(in_dir(path), modes[i]), 0);
		}
	}
	run("umount mnt");
	disk_open(&disk, "a.img");
	for (unsigned i = 0; i < COUNT(modes); i++) {
		struct inl_attr attr = { .mode = modes[i] };
		uint8_t got[128], want[128];
		size_t len, len2;
		struct inl_inode *a, *b;
		char path[16];

		snprintf(path, sizeof(path), "/a%u", i);
		a = get(disk.vol, path);
		path[1] = 'b';
		b = get(disk.vol, path);
		assert_int_equal(inl_setattr(a, &attr, INL_ATTR_MODE, NULL), 0);
		assert_int_equal(inl_raw_xattr_get(a, 2, "", got, sizeof(got), &len, NULL), 0);
		assert_int_equal(inl_raw_xattr_get(b, 2, "", want, sizeof(want), &len2, NULL), 0);
		assert_int_equal(len, len2);
		assert_memory_equal(got, want, len);
		assert_int_equal(a->raw.i_mode, b->raw.i_mode);
		inl_inode_put(a);
		inl_inode_put(b);
	}
	disk_close(&disk);
	fsck("a.img");
}

/* An ACL that has no room: nothing has been made, and nothing is lost. */
static void test_inherit_full(void **state)
{
	static const uint8_t acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 5, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
				       16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255 };
	struct inl_attr attr = { .mode = S_IFREG | 0666, .umask = 077 };
	struct inl_volume_space before, after;
	struct inl_inode *dir, *file;
	uint64_t ino, at = 0;
	struct disk disk;
	static char zeros[1 << 16];
	size_t n, len;

	needs_tools();
	run("rm -f a.img && truncate -s 4M a.img && mke2fs -Fq -t ext4 -b 1024 -I 128 a.img");
	disk_open(&disk, "a.img");
	assert_int_equal(make(disk.vol, "/d", S_IFDIR | 0755, 0, 0), 0);
	assert_int_equal(make(disk.vol, "/big", S_IFREG | 0644, 0, 0), 0);
	dir = get(disk.vol, "/d");
	file = get(disk.vol, "/big");
	assert_int_equal(inl_xattr_set(dir, "system.posix_acl_default", acl, sizeof(acl), 0, NULL), 0);
	while (!inl_write(file, at, zeros, sizeof(zeros), &n, NULL))
		at += n;
	inl_volume_space(disk.vol, &before);
	assert_int_equal(before.n_free_blocks, 0);
	for (unsigned i = 0; i < 3; i++) {
		attr.mode = i == 1 ? S_IFDIR | 0777 : S_IFREG | 0666;
		assert_int_equal(inl_create(dir, "f", 1, &attr, INL_ATTR_INHERIT, NULL, NULL), -ENOSPC);
		assert_int_equal(inl_lookup(dir, "f", 1, &ino, NULL), -ENOENT);
		inl_volume_space(disk.vol, &after);
		assert_memory_equal(&before, &after, sizeof(after));
	}
	assert_int_equal(inl_create(dir, "f", 1, &attr, 0, NULL, NULL), 0);
	assert_int_equal(stat_of(disk.vol, "/d/f").mode, S_IFREG | 0666);
	/* Where there is room again: what it inherits is as it was set, less what the mode does not give. */
	assert_int_equal(inl_truncate(file, 0, NULL), 0);
	attr.mode = S_IFREG | 0640;
	assert_int_equal(inl_create(dir, "g", 1, &attr, INL_ATTR_INHERIT, NULL, NULL), 0);
	assert_int_equal(stat_of(disk.vol, "/d/g").mode, S_IFREG | 0640);
	inl_inode_put(file);
	file = get(disk.vol, "/d/g");
	assert_int_equal(inl_xattr_get(file, "system.posix_acl_access", zeros, sizeof(zeros), &len, NULL), 0);
	assert_int_equal(len, sizeof(acl));
	assert_int_equal(zeros[4 + 2], 6);
	assert_int_equal(zeros[12 + 2], 7);
	assert_int_equal(zeros[28 + 2], 4);
	assert_int_equal(zeros[36 + 2], 0);
	inl_inode_put(file);
	inl_inode_put(dir);
	disk_close(&disk);
	fsck("a.img");
}

/* Devices, and flags that are inherited, as the kernel makes them. */
static void test_made_as_linux(void **state)
{
	static const struct {
		uint32_t mode;
		unsigned major, minor;
	} nodes[] = {
		{ S_IFCHR, 0, 0 }, { S_IFCHR, 1, 3 }, { S_IFBLK, 255, 255 }, { S_IFBLK, 256, 0 }, { S_IFCHR, 0, 256 }, { S_IFCHR, 0xfff, 0xfffff },
		{ S_IFBLK, 8, 0x12345 }, { S_IFIFO, 0, 0 }, { S_IFSOCK, 0, 0 }, { S_IFREG, 0, 0 }, { S_IFDIR, 0, 0 },
	};
	struct disk a, b;
	char path[32], target[200];

	needs_kernel();
	/* S sync, D dirsync, A noatime, d nodump */
	run("rm -f a.img && truncate -s 8M a.img && mke2fs -Fq -t ext4 -b 1024 a.img && mount -o loop a.img mnt && mkdir mnt/flags && "
	    "chattr +SDAd mnt/flags && umount mnt && cp a.img b.img && mount -o loop b.img mnt");
	disk_open(&a, "a.img");
	memset(target, 't', sizeof(target));
	for (unsigned i = 0; i < COUNT(nodes); i++) {
		snprintf(path, sizeof(path), "/flags/n%u", i);
		assert_int_equal(make(a.vol, path, nodes[i].mode | 0640, nodes[i].major, nodes[i].minor), 0);
		snprintf(path, sizeof(path), "mnt/flags/n%u", i);
		if (S_ISDIR(nodes[i].mode))
			assert_int_equal(mkdir(in_dir(path), 0640), 0);
		else
			assert_int_equal(mknod(in_dir(path), nodes[i].mode | 0640, makedev(nodes[i].major, nodes[i].minor)), 0);
	}
	for (unsigned len = 58; len < 63; len++) {
		target[len] = 0;
		snprintf(path, sizeof(path), "/flags/l%u", len);
		assert_int_equal(make_symlink(a.vol, target, path), 0);
		snprintf(path, sizeof(path), "mnt/flags/l%u", len);
		assert_int_equal(symlink(target, in_dir(path)), 0);
		target[len] = 't';
	}
	run("umount mnt");
	disk_close(&a);
	fsck("a.img");
	disk_open_keys(&a, "a.img", NULL, 0);
	disk_open_keys(&b, "b.img", NULL, 0);
	for (unsigned i = 0; i < COUNT(nodes) + 5; i++) {
		struct inl_inode *x, *y;

		snprintf(path, sizeof(path), i < COUNT(nodes) ? "/flags/n%u" : "/flags/l%u",
			 i < COUNT(nodes) ? i : i - (unsigned)COUNT(nodes) + 58);
		x = get(a.vol, path);
		y = get(b.vol, path);
		if (x->raw.i_flags != y->raw.i_flags)
			print_error("%s: flags %x, not %x\n", path, x->raw.i_flags, y->raw.i_flags);
		assert_int_equal(x->raw.i_flags, y->raw.i_flags);
		assert_int_equal(x->raw.i_mode, y->raw.i_mode);
		assert_int_equal(x->raw.i_blocks, y->raw.i_blocks);
		assert_int_equal(x->raw.i_size, y->raw.i_size);
		assert_int_equal(x->raw.i_links_count, y->raw.i_links_count);
		assert_int_equal(x->raw.i_extra_isize, y->raw.i_extra_isize);
		if (!(x->raw.i_flags & EXT4_FL_EXTENTS))
			assert_memory_equal(x->raw.i_block, y->raw.i_block, sizeof(x->raw.i_block));
		inl_inode_put(x);
		inl_inode_put(y);
	}
	disk_close(&a);
	disk_close(&b);
}

static void test_symlink_lengths(void **state)
{
	static const unsigned sizes[] = { 1024, 2048, 4096 };

	needs_tools();
	for (size_t s = 0; s < COUNT(sizes); s++) {
		static const unsigned lens[] = { 1, 59, 60, 61, 1022, 1023, 1024, 2047, 2048, 4095, 4096, 5000 };
		static char target[5001], got[5001];
		struct disk disk;
		struct inl_inode *inode;
		char path[16];
		size_t len;

		run("rm -f a.img && truncate -s 16M a.img && mke2fs -Fq -t %s -b %u a.img", s == 1 ? "ext3" : "ext4", sizes[s]);
		disk_open(&disk, "a.img");
		for (size_t i = 0; i < COUNT(lens); i++) {
			memset(target, 'a' + (int)i, lens[i]);
			target[lens[i]] = 0;
			snprintf(path, sizeof(path), "/%zu", i);
			assert_int_equal(make_symlink(disk.vol, target, path), lens[i] < sizes[s] ? 0 : -ENAMETOOLONG);
			if (lens[i] >= sizes[s])
				continue;
			inode = get(disk.vol, path);
			assert_int_equal(inl_readlink(inode, got, sizeof(got), &len, NULL), 0);
			assert_int_equal(len, lens[i]);
			assert_memory_equal(got, target, len);
			inl_inode_put(inode);
		}
		disk_close(&disk);
		fsck("a.img");
		for (size_t i = 0; has_kernel && i < COUNT(lens) && lens[i] < sizes[s]; i++) {
			run("mount -o loop,ro a.img mnt");
			snprintf(path, sizeof(path), "mnt/%zu", i);
			memset(target, 'a' + (int)i, lens[i]);
			assert_int_equal(readlink(in_dir(path), got, sizeof(got)), lens[i] < 4096 ? lens[i] : 4095);
			assert_memory_equal(got, target, lens[i]);
			run("umount mnt");
		}
		disk_open(&disk, "a.img");
		for (size_t i = 0; i < COUNT(lens) && lens[i] < sizes[s]; i++) {
			snprintf(path, sizeof(path), "/%zu", i);
			assert_int_equal(take(disk.vol, path, false), 0);
		}
		disk_close(&disk);
		fsck("a.img");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time_range),
		cmocka_unit_test(test_setattr),
		cmocka_unit_test(test_chmod_acl),
		cmocka_unit_test(test_inherit_full),
		cmocka_unit_test(test_made_as_linux),
		cmocka_unit_test(test_symlink_lengths),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
