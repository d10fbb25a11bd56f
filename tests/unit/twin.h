/*
 * tests/unit/twin.h: what the twin does to a file system, whoever does it, the kernel below a mount or Inlay on an image;
 * and what the files of the twin share.
 * Not here: how results are compared (tests/kernel/test_twin.py).
 * Read more: HACKING.md, "Tests".
 */
#ifndef INLAY_TESTS_TWIN_H
#define INLAY_TESTS_TWIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TWIN_PATH 2048 /* bytes of a path from the root, "" being the root */

struct twin_time {
	int64_t sec;
	uint32_t nsec;
};

struct twin_stat {
	uint64_t ino, size, blocks;
	bool encrypted;
	uint32_t marks; /* TWIN_MARKS */
	uint32_t mode, nlink, uid, gid, rdev_major, rdev_minor;
	struct twin_time atime, mtime, ctime;
};

enum twin_fallocate { TWIN_ALLOCATE, TWIN_ALLOCATE_KEEP, TWIN_PUNCH, TWIN_ZERO, TWIN_ZERO_KEEP, TWIN_N_FALLOCATE };
enum twin_rename { TWIN_RENAME, TWIN_NOREPLACE, TWIN_EXCHANGE, TWIN_WHITEOUT, TWIN_WHITEOUT_NOREPLACE };

/* Of EXT4_*_FL those that can be seen of what cannot be opened: immutable, append-only, no dump. */
#define TWIN_IMMUTABLE 0x10u
#define TWIN_APPEND    0x20u
#define TWIN_NODUMP    0x40u
#define TWIN_MARKS     0x70u

/* An encryption policy, as FS_IOC_SET_ENCRYPTION_POLICY has it. */
struct twin_policy {
	uint8_t version; /* 1 or 2, or none that there is */
	uint8_t contents_mode, filenames_mode, flags, log2_unit, reserved[3];
	uint8_t key[16]; /* the name of the key: 8 or 16 bytes, the rest zero */
};

/*
 * Everything returns 0, a count, or -errno as Linux has them. An object is what a path led to, and stays that when its
 * names go. Nothing follows a symbolic link. Names end with a NUL.
 */
struct twin_side {
	int (*open)(const char *target, bool read_only);
	int (*close)(void);

	int (*get)(const char *path, void **obj);
	void (*put)(void *obj);

	/* Of what is made from here on. Nothing else is about it: what a directory has for what is made in it counts. */
	void (*set_umask)(uint32_t mask);
	/* mode with its type, no symbolic links */
	int (*make)(void *dir, const char *name, uint32_t mode, uint32_t uid, uint32_t gid, unsigned rdev_major,
		    unsigned rdev_minor);
	int (*symlink)(void *dir, const char *name, const char *target);
	int (*link)(void *obj, void *dir, const char *name);
	int (*unlink)(void *dir, const char *name, bool is_dir);
	int (*rename)(void *dir, const char *name, void *new_dir, const char *new_name, enum twin_rename how);

	int64_t (*write)(void *obj, uint64_t offset, const void *buf, size_t len);
	int64_t (*read)(void *obj, uint64_t offset, void *buf, size_t len);
	/* The next range that is no hole; -ENXIO: none */
	int (*next_data)(void *obj, uint64_t offset, uint64_t *start, uint64_t *end);
	int (*truncate)(void *obj, uint64_t size);
	int (*fallocate)(void *obj, enum twin_fallocate how, uint64_t offset, uint64_t len);

	int (*stat)(void *obj, struct twin_stat *st);
	int (*chmod)(void *obj, uint32_t mode);
	int (*chown)(void *obj, uint32_t uid, uint32_t gid);
	/* EXT4_*_FL of a file or directory, to be seen and to be set */
	int (*get_flags)(void *obj, uint32_t *flags);
	int (*set_flags)(void *obj, uint32_t flags);
	int (*utimes)(void *obj, struct twin_time atime, struct twin_time mtime);

	/* value NULL: remove. flags: XATTR_CREATE, XATTR_REPLACE */
	int (*xattr_set)(void *obj, const char *name, const void *value, size_t len, int flags);
	int64_t (*xattr_get)(void *obj, const char *name, void *buf, size_t size);
	int (*xattrs)(void *obj, void (*each)(const char *name, const void *value, size_t len, void *arg), void *arg);

	int64_t (*readlink)(void *obj, char *buf, size_t size);
	/* Without "." and ".." */
	int (*list)(void *obj, void (*each)(const char *name, unsigned type, void *arg), void *arg);

	/* version: of the policies that are to use it, which will call it `name` */
	int (*add_key)(const uint8_t *key, size_t len, unsigned version, uint8_t name[16]);
	int (*set_policy)(void *obj, const struct twin_policy *policy);
	/* Of a directory, or a regular file that could be opened; -ENODATA: not encrypted */
	int (*get_policy)(void *obj, struct twin_policy *policy);

	/* Whose rights count, where there are any */
	int (*set_user)(uint32_t uid);

	/* FITRIM */
	int (*trim)(uint64_t offset, uint64_t len, uint64_t min_len, uint64_t *trimmed);

	int (*fsync)(void *obj);
	int (*sync)(void);
};

extern const struct twin_side tw_kernel, tw_inlay;

/* ---- twin_tree.c: what is there, and choices among it ------------------------------------------------------------ */

#define N_ENTRIES  400u
#define N_HELD	   4u
#define TW_BUF_LEN (1u << 20)

extern const struct twin_side *tw_side;
extern uint64_t tw_dice;
extern bool tw_old_inodes;
extern uint8_t tw_buf[TW_BUF_LEN];

struct entry {
	char *path;
	uint32_t type; /* S_IFMT */
};

/* Names that begin with '~' are made and removed in crowds, and are not listed here. */
extern struct entry tw_entries[N_ENTRIES];
extern unsigned tw_n_entries;

struct held {
	void *obj; /* NULL: none is held */
	uint32_t type;
};
extern struct held tw_held[N_HELD];

struct names {
	char **names;
	size_t n, room;
};

/* Types of entries, as a set. */
enum { TW_REG = 1, TW_DIR = 2, TW_LNK = 4, TW_OTHER = 8, TW_ANY = 15 };

/* A name in a directory, there or not. */
struct place {
	void *dir;
	char name[300];
	char path[TWIN_PATH];
};

/* Something to work on: a name's, or what is held. */
struct target {
	void *obj;
	const char *path; /* "": of what is held none is known */
	bool is_held;
	uint32_t type;
};

uint64_t tw_rng64(void);
uint32_t tw_rng(uint32_t below);
uint64_t tw_hash_bytes(uint64_t hash, const void *data, size_t len);
/* A path, on one line and not too long. */
void tw_show(const char *path);
void tw_add_entry(const char *path, uint32_t type);
struct entry *tw_find_entry(const char *path);
void tw_remove_entry(const char *path);
void tw_move_entries(const char *from, const char *to);
void tw_collect(const char *name, unsigned type, void *arg);
int tw_compare_names(const void *a, const void *b);
int tw_list_sorted(void *dir, struct names *names);
void tw_free_names(struct names *names);
void tw_die(const char *what, const char *path, int err);
/* Depth first, in the order of the bytes of names. */
void tw_walk(const char *path, void (*each)(const char *path, void *obj, const struct twin_stat *st));
/* One that is there, of these kinds; the root, "", counts as a directory. NULL: there is none. */
const char *tw_some_path(unsigned kinds);
void tw_some_name(char *name);
const char *tw_some_dir(void);
/* A directory below the same one of the root's as this path: where encrypted, mostly with the same policy. */
const char *tw_near_dir(const char *path);
/* place->name is given. */
int tw_open_place(struct place *place, const char *dir);

/* new: mostly a name that is not there; old: mostly one that is. */
void tw_new_place(struct place *place);
void tw_old_place(struct place *place, unsigned kinds);
void tw_close_place(struct place *place);
bool tw_is_there(const char *path);
/* Says which on standard output. False: there is none of these kinds. */
bool tw_open_target(struct target *target, unsigned kinds);
void tw_close_target(struct target *target);
void tw_fill_buf(size_t len);
uint32_t tw_some_id(void);
uint64_t tw_some_offset(void);
size_t tw_some_len(void);

/* ---- twin_ops.c: the operations ---------------------------------------------------------------------------------- */

struct op {
	const char *name;
	int64_t (*fn)(void);
	unsigned weight, weight_crowded; /* while there are few names, and many */
	bool crypt;			 /* only where there are policies */
};

const struct op *tw_some_op(void);

/* ---- twin_crypt.c: policies and keys ----------------------------------------------------------------------------- */

extern unsigned tw_n_policies;
extern bool tw_locked; /* no key is given */

/* "VERSION:FLAGS:LOG2_UNIT:KEY:KEY_LEN": one more policy that directories can have. False: it is none. */
bool tw_parse_policy(const char *text);
/* As twin_script.c says. */
bool tw_script_policy(const char *text, struct twin_policy *policy);
/* Give the keys, unless it is locked. */
int tw_add_keys(void);
/* A directory of the root for each policy, where it is not there. */
void tw_make_vaults(void);
int64_t tw_op_vault(void);
int64_t tw_op_set_policy(void);
/* How an object is encrypted, on standard output. */
int tw_show_policy(void *obj, const struct twin_stat *st);

/* ---- twin_script.c ----------------------------------------------------------------------------------------------- */

/* What standard input says, a result for each line. Closes the side; returns an exit status. */
int tw_script(void);

#endif
