/*
 * inlay/volume.h: a file system on a device: open it, walk it, read it.
 * Not here: devices (inlay/block.h), keys and policies (inlay/fscrypt.h).
 * Read more: ARCHITECTURE.md, "The life of a read".
 *
 * Threads: a volume may be used from any number of threads; one inode cursor (struct inl_dir) from one at a time.
 *
 * A volume opened with INL_VOLUME_WRITE is changed in operations: each happens whole or not at all. inl_fsync and
 * inl_sync make durable what was done before; a crash at any instant leaves a volume that Linux, e2fsck and Inlay bring
 * back to a state in which all of that is whole.
 */
#ifndef INLAY_VOLUME_H
#define INLAY_VOLUME_H

#include <inlay/block.h>
#include <inlay/fscrypt.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct inl_volume;
struct inl_inode;

/* ---- open, describe ---------------------------------------------------------------------------------------------- */

enum inl_volume_flags {
	/*
	 * Open a truncated image too: what lies beyond its end fails with -EIO when read. And one whose journal is
	 * damaged: replayed as far as it can be trusted; inl_volume_info says so.
	 */
	INL_VOLUME_DAMAGED = 1,

	/*
	 * Open for writing: the device must be. A journal that was not replayed is replayed to the device, inodes that
	 * a crash left behind are removed, and the volume is marked as in use until inl_volume_close. Not together with
	 * INL_VOLUME_DAMAGED.
	 */
	INL_VOLUME_WRITE = 2,
};

/*
 * Open the ext4 (ext3, ext2) file system on a device. A journal that was not replayed is replayed in memory. When the
 * primary superblock or its group descriptors are bad, a backup is used, and inl_volume_info says so.
 *
 *   dev    remains the caller's; closed after the volume
 *   keys   remains the caller's; freed after the volume; keys may be added at any time. NULL: none
 *
 * Returns: 0; -EINVAL (not ext4; flags); -EUCLEAN (damaged); -EOPNOTSUPP (a feature that is refused, by name);
 *          -EIO; -ENOMEM; with INL_VOLUME_WRITE also -EROFS (the device, or a feature, by name, that Inlay only reads;
 *          a volume marked as having errors, or without its primary superblock: e2fsck first), -EBUSY (in use
 *          elsewhere).
 */
INL_API int inl_volume_open(struct inl_dev *dev, struct inl_keyring *keys, unsigned flags, struct inl_diag *diag,
			    struct inl_volume **out);

/*
 * Close. All inodes must be put. NULL is fine. Of a volume that was written: what was changed is made durable and the
 * volume marked as clean.
 *
 * Returns: 0, or why not all of it is on the medium: -EIO, -ENOSPC of the device. The volume is closed all the same.
 */
INL_API int inl_volume_close(struct inl_volume *vol);

enum inl_access { INL_ACCESS_RW, INL_ACCESS_RO, INL_ACCESS_REFUSED };

struct inl_volume_info {
	char label[17];
	uint8_t uuid[16];
	uint32_t block_size;   /* bytes */
	uint64_t n_blocks, n_free_blocks;
	uint32_t n_inodes, n_free_inodes;
	uint32_t inode_size;
	uint64_t backup_superblock; /* block number of the backup in use, 0: the primary */
	bool journal_replayed;	    /* in memory: the volume was not cleanly unmounted */
	uint32_t journal_blocks;    /* how many blocks are read from the journal instead of their place */
	uint32_t journal_transactions;
	bool journal_damaged;	    /* with INL_VOLUME_DAMAGED: what was in it is lost, in part or whole: an older state is seen */
	bool truncated;		    /* with INL_VOLUME_DAMAGED: the device ends before the file system does */
	bool has_errors;	    /* the file system is marked as having errors */
	bool has_journal;	    /* without one a crash while it is written may damage it */
	bool writable;		    /* opened for writing, and no error has ended that */
	int error;		    /* 0, or the negative errno that has */
	uint32_t n_orphans;	    /* inodes that were removed or shortened at the open, as a crash had left them to be */
	enum inl_access access;	    /* what its features allow Inlay: never REFUSED on an open volume */
};
INL_API void inl_volume_info(const struct inl_volume *vol, struct inl_volume_info *info);

/* One row per feature that is set on this volume. */
struct inl_feature {
	const char *name; /* "metadata_csum", or "FEATURE_I31" style for an unknown one; lives as long as the volume */
	enum inl_access access;
	const char *why;  /* "" where access is RW */
};
INL_API bool inl_volume_feature(const struct inl_volume *vol, unsigned i, struct inl_feature *feature);

/* One row per encryption policy in use. */
struct inl_policy_use {
	struct inl_policy policy;
	uint64_t n_inodes;
	bool key_given;
	int status; /* 0; -ENOKEY; -ENOPKG (cipher not available); -EINVAL (policy that Linux would not accept) */
};

/*
 * Count the policies in use by looking at every inode. Damaged contexts are counted apart.
 *
 *   each        called per policy, most used first; a non-zero return ends the walk and is returned
 *   n_damaged   encrypted inodes whose context is missing or damaged; may be NULL
 */
INL_API int inl_volume_policies(struct inl_volume *vol, int (*each)(const struct inl_policy_use *use, void *arg), void *arg,
				uint64_t *n_damaged, struct inl_diag *diag);

/* ---- inodes ------------------------------------------------------------------------------------------------------ */

#define INL_ROOT_INO 2

/*
 * Get an inode by number.
 *
 * Returns: 0; -ENOENT (not in use); -EUCLEAN (out of range, damaged, wrong checksum); -EIO; -ENOMEM.
 */
INL_API int inl_inode_get(struct inl_volume *vol, uint64_t ino, struct inl_diag *diag, struct inl_inode **out);
INL_API void inl_inode_put(struct inl_inode *inode); /* NULL is fine */

struct inl_time {
	int64_t sec;
	uint32_t nsec;
};

struct inl_stat {
	uint64_t ino;
	uint32_t mode; /* type and permissions, as st_mode */
	uint32_t nlink, uid, gid;
	uint64_t size; /* bytes; of a symlink the length of its target as inl_readlink gives it now */
	uint64_t blocks; /* of 512 bytes */
	uint32_t rdev_major, rdev_minor;
	uint32_t generation;
	uint32_t flags; /* EXT4_*_FL: FS_IOC_GETFLAGS */
	struct inl_time atime, mtime, ctime, crtime; /* crtime: {0, 0} where the inode has no room for it */
};
INL_API int inl_inode_stat(struct inl_inode *inode, struct inl_stat *st, struct inl_diag *diag);

/* How an inode is encrypted. */
struct inl_inode_crypt {
	bool encrypted;
	struct inl_policy policy;
	uint8_t nonce[INL_FILE_NONCE_SIZE];
	uint32_t data_unit_size; /* bytes */
	int status;		 /* 0: unlocked; -ENOKEY; -ENOPKG; -EINVAL (policy); -EUCLEAN (context missing or damaged) */
};
INL_API void inl_inode_crypt(struct inl_inode *inode, struct inl_inode_crypt *crypt);

/*
 * The policy of an encrypted inode, for which no key is needed: cheap.
 *
 *   policy   NULL: only whether it has one
 *
 * Returns: false: it is not encrypted, or its context is damaged.
 */
INL_API bool inl_inode_policy(struct inl_inode *inode, struct inl_policy *policy);

/*
 * Have the inode's key ready, as inl_read and friends do by themselves: to learn early, and in words, why it cannot be
 * read.
 *
 * Returns: 0 (also for one that is not encrypted); -ENOKEY, -ENOPKG, -EINVAL, -EUCLEAN as inl_inode_crypt.status;
 * -ENOMEM; -EIO.
 */
INL_API int inl_inode_unlock(struct inl_inode *inode, struct inl_diag *diag);

/*
 * The inode is in use by somebody who has opened it: it is unlocked, and stays so until it is released, also when its master
 * key is removed and evicted meanwhile (inlay/fscrypt.h). Counted. To be released before it is put. Of a volume that is
 * opened for reading only each object of an inode is held by itself.
 *
 * The last release of an inode whose master key was evicted wipes its key at once; the last such inode completes the
 * removal.
 *
 * Returns: 0 (also for one that is not encrypted); -ENOKEY (also if the key is being removed and nobody else holds the inode);
 *          others as inl_inode_unlock.
 * Threads: any, not in callbacks.
 */
INL_API int inl_inode_hold_key(struct inl_inode *inode, struct inl_diag *diag);
INL_API void inl_inode_release_key(struct inl_inode *inode);

/* A run of the block map. INLINE: the contents are in the inode itself. */
enum inl_extent_kind { INL_EXTENT_HOLE, INL_EXTENT_UNWRITTEN, INL_EXTENT_DATA, INL_EXTENT_INLINE };
struct inl_extent {
	enum inl_extent_kind kind;
	uint64_t offset; /* bytes in the file: the offset asked for */
	uint64_t len;	 /* bytes from there to the end of the run, or of the file if that comes first */
	uint64_t phys;	 /* bytes on the device of offset; DATA and UNWRITTEN only */
};

/*
 * What lies at an offset.
 *
 * Returns: 0; -ENXIO (at or beyond the end); -EINVAL (a device, FIFO or socket); -EUCLEAN; -EIO.
 */
INL_API int inl_inode_extent(struct inl_inode *inode, uint64_t offset, struct inl_extent *extent, struct inl_diag *diag);

/*
 * Read from a regular file. Holes and unwritten extents are zeros.
 *
 *   got    bytes read: less than len only at the end of the file; 0 at or beyond it
 *
 * Returns: 0; -ENOKEY, -ENOPKG, -EINVAL before any I/O on a file that cannot be decrypted; -EISDIR; -EUCLEAN; -EIO.
 *          On failure *got is untouched and the content of buf is undefined.
 * Fastest with offset, len and buf aligned to the block size and len of 128 KiB to 1 MiB.
 */
INL_API int inl_read(struct inl_inode *inode, uint64_t offset, void *buf, size_t len, size_t *got, struct inl_diag *diag);

#define INL_SYMLINK_MAX 65536 /* bytes: no target of any block size is longer */

/*
 * The target of a symbolic link; of an encrypted one without its key the no-key form, as Linux shows it.
 *
 *   len    bytes of target; not NUL-terminated if size is exactly len
 *
 * Returns: 0; -EINVAL (no symlink); -ERANGE (size too small); -ENOPKG; -EUCLEAN; -EIO.
 */
INL_API int inl_readlink(struct inl_inode *inode, char *buf, size_t size, size_t *len, struct inl_diag *diag);

/*
 * Extended attributes. The encryption context is not among them; POSIX ACLs are in the form that setxattr(2) takes.
 *
 *   each   called per attribute with its full name ("user.comment"); a non-zero return ends the walk and is returned
 */
INL_API int inl_xattrs(struct inl_inode *inode, int (*each)(const char *name, const void *value, size_t len, void *arg),
		       void *arg, struct inl_diag *diag);

/* ---- directories ------------------------------------------------------------------------------------------------- */

#define INL_NAME_MAX 255

struct inl_dirent {
	uint64_t ino;
	uint64_t pos;	     /* where it is (inl_dir_seek) */
	uint8_t type;	     /* DT_* of dirent.h, DT_UNKNOWN where the volume does not keep it */
	bool nokey;	     /* the name is a no-key name: the directory's key is not there */
	int status;	     /* 0, or -EUCLEAN: name is the best that could be made of a damaged entry, for messages only */
	uint16_t len;	     /* bytes of name */
	char name[INL_NAME_MAX + 1]; /* NUL-terminated; never '/' inside, never empty, when status is 0 */
};

/*
 * Iterate over a directory ("." and ".." are left out), in bounded memory. Names may be made, removed and renamed
 * meanwhile: one that is there all the time is met once, one that comes or goes meanwhile at most once (again, if it
 * comes back). What is told of an entry is what was so when its block was read, which may be some entries ago. An
 * iterator is used by one thread at a time; a directory may have any number of them.
 *
 * The order is that of Linux: by hash in a volume with dir_index, where the directory has one block or an index. Else,
 * and where the index is damaged, or names are casefolded and not encrypted, it is the order on the medium. In a
 * directory whose index is damaged names may be met twice or not at all if others are made meanwhile.
 */
struct inl_dir;
INL_API int inl_dir_open(struct inl_inode *inode, struct inl_diag *diag, struct inl_dir **out);
INL_API void inl_dir_close(struct inl_dir *dir); /* NULL is fine */

/*
 * The next entry.
 *
 * Returns: 1 (an entry), 0 (the end), -EUCLEAN or -EIO (a block that could not be read; the next call goes on behind
 * it).
 */
INL_API int inl_dir_next(struct inl_dir *dir, struct inl_dirent *entry, struct inl_diag *diag);

/*
 * Where the iteration stands, and back to there: on the same iterator, or on another one of the same directory, as long
 * as the volume is open, whatever happens to the directory meanwhile. After a seek come the entries that were still to
 * come at the time of the tell. A block that cannot be read then is an error of inl_dir_next, as ever.
 *
 * A position is 0 (the begin), or from INL_DIR_POS_FIRST to INL_DIR_POS_LAST; what is below the first is taken for the
 * begin, so that whoever serves "." and ".." has positions for them. By hash the position of an entry is, as in Linux,
 * (hash >> 1) << 32 | minor hash, and what is told is at most that of the entry that comes next. Names with the same hash have the same position: a seek goes in front of all
 * of them, and none is lost, but those that came before the tell come again. So do not seek where the iterator stands
 * already: inl_dirent.pos == inl_dir_tell says that the entry would come again.
 */
#define INL_DIR_POS_FIRST UINT64_C(8)
#define INL_DIR_POS_LAST  (UINT64_C(0x7fffffff) << 32) /* the end */
INL_API uint64_t inl_dir_tell(const struct inl_dir *dir);
INL_API void inl_dir_seek(struct inl_dir *dir, uint64_t pos);

/*
 * Look one name up: a real name where the directory is plain or its key is there, else a no-key name.
 *
 *   name   len bytes; neither "." nor ".."
 *
 * Returns: 0; -ENOENT; -ENAMETOOLONG; -ENOTDIR; -ENOKEY (locked, and the name is no no-key name); -ENOPKG; -EUCLEAN;
 * -EIO; of a volume that is written -EPERM (not encrypted as its directory is).
 */
INL_API int inl_lookup(struct inl_inode *dir, const char *name, size_t len, uint64_t *ino, struct inl_diag *diag);

/* What ".." of a directory names; of the root the root. -ENOTDIR; -EUCLEAN; -EIO. */
INL_API int inl_parent(struct inl_inode *dir, uint64_t *ino, struct inl_diag *diag);

/*
 * Walk a path from the root. "." and ".." work, symbolic links inside are followed within the volume (an absolute
 * target starts at the volume's root; at most 40).
 *
 *   follow   follow a symbolic link in the last place too
 *
 * Returns: as inl_lookup and inl_inode_get; -ELOOP.
 */
INL_API int inl_path(struct inl_volume *vol, const char *path, bool follow, struct inl_diag *diag, struct inl_inode **out);

/* ---- changing ---------------------------------------------------------------------------------------------------- */

/*
 * All of these return -EROFS on a volume that is not open for writing, or whose journal was aborted by an error of the
 * device (what was not durable by then is lost, and nothing is acknowledged any more); -ENOSPC, -EUCLEAN, -EIO, -ENOMEM
 * as ever. Each happens whole or not at all, except where it says so. No permissions are checked: who has the device has
 * the volume. Times are set as Linux sets them.
 *
 * What is made in an encrypted directory inherits its policy, with a nonce of its own. Removing needs no key. Whatever
 * else writes a name into an encrypted directory, or contents of an encrypted file, returns -ENOKEY without the key,
 * -ENOPKG without the cipher, before anything is written. And nothing comes into an encrypted directory that is not
 * encrypted with the same policy: -EXDEV (inl_link, inl_rename); what somebody has put there in another way is refused:
 * -EPERM (inl_lookup, inl_path; inl_rmdir and inl_rename of directories and symbolic links).
 */

/*
 * Encrypt what will be in an empty directory: FS_IOC_SET_ENCRYPTION_POLICY, whose order of errors this has.
 *
 *   policy   version 1 or 2; inl_policy_check
 *   nonce    as inl_attr.nonce
 *
 * Returns: 0 (also if it has this policy already); -EROFS; -EOPNOTSUPP (the volume has not the feature encrypt); -EEXIST
 *          (it has another policy); -ENOTDIR; -ENOENT (it was removed); -ENOTEMPTY; -EINVAL (no policy that Linux accepts);
 *          -ENOKEY (the key was not added: version 2; or is too short); -ENOPKG (no such cipher here); -EPERM (the root).
 */
INL_API int inl_set_policy(struct inl_inode *dir, const struct inl_policy *policy, const uint8_t *nonce,
			   struct inl_diag *diag);

/*
 * The same, as Linux does it for whoever may name any key: the key and the ciphers need not be there. What is made in the
 * directory then has -ENOKEY or -ENOPKG.
 */
INL_API int inl_set_policy_unready(struct inl_inode *dir, const struct inl_policy *policy, struct inl_diag *diag);

#define INL_PW_SALT_SIZE 16

/*
 * The salt of a volume: FS_IOC_GET_ENCRYPTION_PWSALT. Made when it is asked for first. For e4crypt(8), which makes keys of
 * passphrases with it; nothing here uses it.
 *
 * Returns: 0; -EOPNOTSUPP (the volume has not the feature encrypt); -EROFS (there is none yet); -EIO, ...
 */
INL_API int inl_volume_pw_salt(struct inl_volume *vol, uint8_t salt[INL_PW_SALT_SIZE], struct inl_diag *diag);

/* What a new inode is like. */
struct inl_attr {
	uint32_t mode; /* type and permissions, as st_mode */
	uint32_t uid, gid;
	uint32_t rdev_major, rdev_minor; /* devices */
	uint32_t umask;			 /* with INL_ATTR_INHERIT: permissions that the program does not give */
	struct inl_time atime, mtime, ctime, crtime;
	/*
	 * Of what becomes encrypted: INL_FILE_NONCE_SIZE bytes, of which its keys are derived. NULL: random, as it should be.
	 * Two inodes, or two contents, under one nonce and master key lose what encryption promises.
	 */
	const uint8_t *nonce;
};

/* Which fields of an inl_attr are meant. */
enum inl_attr_which {
	INL_ATTR_MODE = 1, /* the permissions; the type cannot be changed */
	INL_ATTR_UID = 2,
	INL_ATTR_GID = 4,
	INL_ATTR_ATIME = 8,
	INL_ATTR_MTIME = 16,
	INL_ATTR_CTIME = 32,
	INL_ATTR_CRTIME = 64,
	INL_ATTR_TIMES = 8 | 16 | 32 | 64,
	INL_ATTR_INHERIT = 256, /* inl_create, inl_symlink */
	INL_ATTR_TOUCH = 512, /* inl_setattr: the times are those of a change, not chosen: append-only files have them, too */
};

/*
 * Make a file of any type but symbolic links.
 *
 *   name   len bytes: 1 to 255, neither "." nor "..", no '/' and no NUL
 *   attr   mode, owner, device number; times where which says so, the current time where not
 *   which  INL_ATTR_*TIME bits, INL_ATTR_INHERIT; the rest is always taken
 *   out    may be NULL
 *
 * Mode and group are what attr says; with INL_ATTR_INHERIT they are what they would be if a program of Linux had asked
 * for that mode. A default ACL of the directory is inherited: a directory has it too, and what is made has it as its
 * access ACL, less what the mode does not give (the mode becomes what is left of both). Where there is none, attr->umask
 * is taken off the mode. What is made in a set-group-ID directory has the directory's group, and a directory becomes
 * set-group-ID too; on a volume whose default mount options have bsdgroups everything has the directory's group. Of a
 * directory's mode the bits for set-user-ID and set-group-ID are left out, as mkdir(2) does it. Whether a program may
 * make a set-group-ID file with a group that it is not in is up to the caller, as are all permissions.
 *
 * Returns: 0; -EEXIST; -ENOTDIR; -ENAMETOOLONG; -EINVAL (name, type); -ENOENT (dir was removed); -EMLINK (too many
 *          subdirectories, without dir_nlink); -ENOSPC (blocks, inodes, or the index of the directory is full; no room
 *          for an ACL); -EUCLEAN also of a damaged ACL; -EOPNOTSUPP (an ACL in an inode of its own).
 */
INL_API int inl_create(struct inl_inode *dir, const char *name, size_t len, const struct inl_attr *attr, unsigned which,
		       struct inl_diag *diag, struct inl_inode **out);

/*
 * Make a symbolic link; target: target_len bytes without NUL, 1 .. block size - 1, encrypted block size - 3. Its mode is
 * 0777 in any case, and it has no ACL: INL_ATTR_INHERIT matters to its group. -ENAMETOOLONG; else as inl_create.
 */
INL_API int inl_symlink(struct inl_inode *dir, const char *name, size_t len, const char *target, size_t target_len,
			const struct inl_attr *attr, unsigned which, struct inl_diag *diag, struct inl_inode **out);

/* Make another name of an inode. -EPERM (a directory); -EMLINK (65,000 links); -EEXIST; -ENOENT (removed already); -EXDEV. */
INL_API int inl_link(struct inl_inode *inode, struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag);

/*
 * Remove a name, and with the last one the inode, when nobody has it any more. An encrypted directory without its key:
 * name is a no-key name. -ENOENT; -EISDIR (inl_unlink); -ENOTDIR, -ENOTEMPTY, -EBUSY (the root) (inl_rmdir).
 */
INL_API int inl_unlink(struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag);
INL_API int inl_rmdir(struct inl_inode *dir, const char *name, size_t len, struct inl_diag *diag);

/*
 * The same, of a directory or of anything else, by one who still has something to do with it.
 *
 *   gone   what had the name, as of inl_inode_get: without another name it goes when it is put
 */
INL_API int inl_remove(struct inl_inode *dir, const char *name, size_t len, bool is_dir, struct inl_diag *diag,
		       struct inl_inode **gone);

enum inl_rename_flags {
	INL_RENAME_NOREPLACE = 1, /* -EEXIST if the new name is there */
	INL_RENAME_EXCHANGE = 2,  /* both must be there, and change places; not with others */
	INL_RENAME_WHITEOUT = 4,  /* the old name is left to a whiteout */
};

/*
 * Rename, over what is there under the new name: rename(2), renameat2(2).
 *
 * A whiteout is what overlay file systems take for "not there": a character device 0:0 without permissions. It is made
 * as root would make it: user and group 0, in a set-group-ID directory its group, an ACL where the directory has a
 * default one; inl_setattr gives it to somebody else. In an encrypted directory its name is encrypted. Renaming one name
 * of an inode to another changes nothing, and leaves no whiteout.
 *
 * Returns: 0; -ENOENT; -EEXIST; -EISDIR, -ENOTDIR, -ENOTEMPTY (what is there cannot be replaced by this);
 *          -EINVAL (a directory into itself or below; flags); -EMLINK; -EXDEV; -ENOSPC also of inodes, for a whiteout.
 */
INL_API int inl_rename(struct inl_inode *dir, const char *name, size_t len, struct inl_inode *new_dir,
		       const char *new_name, size_t new_len, unsigned flags, struct inl_diag *diag);

/* Change attributes; ctime becomes the current time unless it is given. */
INL_API int inl_setattr(struct inl_inode *inode, const struct inl_attr *attr, unsigned which, struct inl_diag *diag);

/* Of inl_stat.flags, what FS_IOC_GETFLAGS shows; of regular files without 0x20000000. */
#define INL_FLAGS_VISIBLE 0x725bdfffu

/*
 * Set the flags of a file or directory: FS_IOC_SETFLAGS, chattr(1).
 *
 *   flags   EXT4_*_FL: all that it is to have, and those that are visible and cannot be set as they are
 *
 * Set or cleared are those of chattr's letters a A c d D i P s S t T u x, 0x00400000, and j on a volume with a journal.
 * The rest stays as it is, also the form of the map (e), which Linux would convert, and case (F), which is -EOPNOTSUPP to
 * change. Immutable (i) and append-only (a) are honoured: -EPERM from whatever changes such an inode or its names, and
 * takes names from such a directory or makes them in an immutable one; an append-only file can be written at its end.
 * The others are kept for Linux (of S and D nothing is durable before a sync). Who may set i, a and j is up to the caller.
 * What is immutable has that flag taken away before, or while, others change.
 *
 * Returns: 0; -ENOTTY (neither file nor directory); -EROFS; -EOPNOTSUPP (no such flag; not of this type; DAX with what it
 *          does not go with); -EPERM (immutable, and is to remain that).
 */
INL_API int inl_set_flags(struct inl_inode *inode, uint32_t flags, struct inl_diag *diag);

/*
 * Write to a regular file.
 *
 *   done   bytes written; less than len when the volume became full or the file as large as it can be
 *
 * Returns: 0 if anything was written; -ENOSPC; -EFBIG; -EISDIR; -EINVAL (no regular file); -EPERM (immutable; append-only,
 *          and offset is not its end); -EIO. Not atomic.
 * Fastest with offset and len multiples of the block size and len of 128 KiB to 1 MiB.
 */
INL_API int inl_write(struct inl_inode *inode, uint64_t offset, const void *buf, size_t len, size_t *done,
		      struct inl_diag *diag);

/*
 * The same with data that a page cache took over before, in pages. Of an append-only file it may contain what is there
 * already, unchanged. Whoever keeps that cache says in inl_setattr when the file was changed: times stay as they are.
 */
INL_API int inl_write_back(struct inl_inode *inode, uint64_t offset, const void *buf, size_t len, size_t *done,
			   struct inl_diag *diag);

/*
 * Make a regular file this long. Longer: with a hole. -EFBIG; -EISDIR; -EINVAL. A crash, or -EIO, may leave it to the
 * next open to finish; until then it is not written any more (-EIO).
 */
INL_API int inl_truncate(struct inl_inode *inode, uint64_t size, struct inl_diag *diag);

enum inl_fallocate_flags { /* as fallocate(2) */
	INL_FALLOC_KEEP_SIZE = 1,
	INL_FALLOC_PUNCH_HOLE = 2, /* with KEEP_SIZE */
	INL_FALLOC_ZERO_RANGE = 16,
};

/*
 * fallocate(2) on a regular file. Not atomic: what was done remains when the volume becomes full. -EOPNOTSUPP:
 * unwritten blocks need extents.
 */
INL_API int inl_fallocate(struct inl_inode *inode, unsigned flags, uint64_t offset, uint64_t len, struct inl_diag *diag);

/*
 * Get one attribute by its full name; POSIX ACLs in the form that setxattr(2) takes.
 *
 *   len    of the value; buf may be NULL with size 0, to learn it
 *
 * Returns: 0; -ENODATA; -ERANGE (size too small, or the name is too long); -EINVAL (nothing behind the prefix);
 *          -EOPNOTSUPP (no such prefix).
 */
INL_API int inl_xattr_get(struct inl_inode *inode, const char *name, void *buf, size_t size, size_t *len,
			  struct inl_diag *diag);

enum inl_xattr_flags { INL_XATTR_CREATE = 1, INL_XATTR_REPLACE = 2 };

/*
 * Set an attribute; value NULL: remove it. An access ACL changes the mode as Linux does; one that says no more than the
 * mode is not kept.
 *
 * Returns: as setxattr(2): 0; -EEXIST, -ENODATA (flags; or nothing to remove, except for ACLs); -ENOSPC (no room for
 *          it); -ERANGE (name too long); -E2BIG (value: 65,536 bytes at most); -EINVAL (not an ACL; flags; nothing
 *          behind
 *          the prefix); -EPERM (user.* on what is no file or directory; immutable or append-only); -EACCES (a default
 *          ACL
 *          of what is no directory); -EOPNOTSUPP (prefix; a symbolic link has no ACL; an old value in an inode of its
 *          own).
 */
INL_API int inl_xattr_set(struct inl_inode *inode, const char *name, const void *value, size_t len, unsigned flags,
			  struct inl_diag *diag);

/*
 * Make durable: all that was done to this inode (and, as it happens, all that was done before), or to the volume.
 *
 * Returns: 0; -EIO, -ENOSPC of the device. After an error nothing is acknowledged any more: the volume is read-only.
 */
INL_API int inl_fsync(struct inl_inode *inode, struct inl_diag *diag);
INL_API int inl_sync(struct inl_volume *vol, struct inl_diag *diag);

/*
 * For a volume that is to come out the same, byte for byte, whenever it is made of the same things. From here on its clock
 * stands, what would be random follows from a seed, and commits come by amount alone. Nonces must be given
 * (inl_attr.nonce, inl_set_policy): -EINVAL without. From one thread, before anything is changed.
 *
 * Returns: 0; -EROFS; -EINVAL (no time).
 */
INL_API int inl_volume_fix(struct inl_volume *vol, struct inl_time now, const uint8_t seed[32]);

/* What the journal of a volume that is written has done; all zero where there is none. */
struct inl_volume_journal {
	uint32_t n_blocks;   /* it has room for */
	uint32_t n_used;     /* of those, what a crash now would have replayed */
	uint64_t n_commits;  /* since the volume was opened */
	uint64_t n_logged;   /* blocks of metadata that were committed */
};
INL_API void inl_volume_journal(struct inl_volume *vol, struct inl_volume_journal *journal);

/*
 * Discard free blocks: FITRIM. Commits first, so that what was freed before counts. Others may use the volume meanwhile.
 *
 *   offset, len   bytes of the volume; len may reach beyond its end
 *   min_len       runs of fewer bytes are left alone
 *   trimmed       bytes that were discarded
 *
 * Returns: 0; -EROFS; -EINVAL (an offset beyond the end, less than a block, min_len larger than a group); -EOPNOTSUPP (the
 *          device cannot; where nothing is to be discarded it is not asked); -EIO. After an error some have been.
 */
INL_API int inl_trim(struct inl_volume *vol, uint64_t offset, uint64_t len, uint64_t min_len, uint64_t *trimmed,
		     struct inl_diag *diag);

/* What is free now. Blocks that become free only with the next commit count. */
struct inl_volume_space {
	uint64_t n_blocks, n_free_blocks;
	uint32_t n_inodes, n_free_inodes;
	uint64_t n_overhead_blocks; /* of n_blocks, those that can never hold a file: tables, bitmaps, the journal */
	uint64_t n_reserved_blocks; /* of those free, what Linux keeps for root; nothing here does */
};
INL_API void inl_volume_space(const struct inl_volume *vol, struct inl_volume_space *space);

#ifdef __cplusplus
}
#endif
#endif
