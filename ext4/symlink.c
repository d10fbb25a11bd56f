/*
 * ext4/symlink.c: where the target of a symbolic link is stored, plain and encrypted.
 * Not here: decryption of targets (fscrypt/symlink.c), following them (path.c).
 * Read more: Linux Documentation/filesystems/ext4/ifork.rst, "Symbolic Links".
 */
#include "ext4/change.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>


/* What is stored, i_size bytes: in i_block (less than 60), in the inode and an attribute (inline), or in block 0. */
static int read_stored(struct inl_inode *inode, uint8_t *buf, struct inl_diag *diag)
{
	size_t got = 0;
	int err;

	if (inl_is_fast_symlink(inode)) {
		memcpy(buf, inode->raw.i_block, inode->size);
		return 0;
	}
	if (inl_is_inline(inode)) {
		err = inl_data_read(inode, 0, buf, inode->size, &got, diag);
	} else {
		/* Not by way of inl_data_read: an encrypted target is no contents, its block is read as it is. */
		struct inl_run run;
		struct inl_block *block;

		err = inl_map(inode, 0, &run, diag);
		if (!err && run.kind != INL_EXTENT_DATA)
			err = -EUCLEAN;
		if (!err)
			err = inl_block_get(inode->vol, run.pblk - run.lblk, &block);
		if (err)
			return inl_diag_set(diag, err, "the target of symbolic link %u cannot be read", inode->ino);
		memcpy(buf, inl_block_bytes(block), inode->size);
		inl_block_put(block);
		got = inode->size;
	}
	return err ? err : got == inode->size ? 0 : -EUCLEAN;
}

struct read_arg {
	struct inl_inode *inode;
	uint8_t *buf;
	struct inl_diag *diag;
};

static int read_in_op(struct inl_handle *op, void *arg)
{
	struct read_arg *read = arg;

	return read_stored(read->inode, read->buf, read->diag);
}

static int decode(struct inl_inode *inode, const uint8_t *stored, char *buf, size_t size, size_t *len,
		  struct inl_diag *diag)
{
	size_t n = inode->size;

	if (inode->encrypted)
		return inl_symlink_decode(inode->crypt, stored, n, buf, size, len, diag);
	if (memchr(stored, 0, n))
		return inl_diag_set(diag, -EUCLEAN, "symbolic link %u is damaged: a NUL in its target", inode->ino);
	if (n > size)
		return -ERANGE;
	memcpy(buf, stored, n);
	*len = n;
	return 0;
}

int inl_readlink(struct inl_inode *inode, char *buf, size_t size, size_t *len, struct inl_diag *diag)
{
	struct read_arg read = { .inode = inode, .diag = diag };
	uint8_t *stored;
	int err;

	if (!S_ISLNK(inode->type))
		return inl_diag_set(diag, -EINVAL, "is not a symbolic link");
	if (inode->encrypted && !inode->crypt)
		return inl_inode_unlock(inode, diag);
	if (!inode->size || inode->size > inode->vol->block_size)
		return inl_diag_set(diag, -EUCLEAN, "symbolic link %u is damaged: impossible length", inode->ino);
	stored = malloc(inode->size);
	if (!stored)
		return -ENOMEM;
	read.buf = stored;
	err = inl_op_look(inode->vol, read_in_op, &read);
	if (!err)
		err = decode(inode, stored, buf, size, len, diag);
	free(stored);
	return err;
}
