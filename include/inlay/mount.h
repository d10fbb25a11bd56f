/*
 * inlay/mount.h: a volume as a live file system: served through FUSE until it is unmounted.
 * Not here: the volume (inlay/volume.h); `inlay mount` (doc/inlay.1).
 * Read more: ARCHITECTURE.md, "The life of a request".
 *
 * In a library of its own, libinlay-fuse: who only reads images needs no FUSE.
 *
 * Who may do what, the kernel decides (default_permissions, with POSIX ACLs). The volume belongs to the mount while it is
 * served: names and attributes are cached by the kernel for long, so nobody else changes it.
 */
#ifndef INLAY_MOUNT_H
#define INLAY_MOUNT_H

#include <inlay/volume.h>

#ifdef __cplusplus
extern "C" {
#endif

struct inl_mount;

struct inl_mount_options {
	const char *source;    /* what mount(8) shows as the device */
	const char *options;   /* as after -o: of fusermount3(1), and no_writeback; NULL: none */
	struct inl_keyring *keys; /* with which the volume was opened: keys can come and go; NULL: they cannot */
	bool read_only;
	unsigned n_threads;    /* that serve; 0: as many as are good */
	unsigned commit;       /* seconds from a change to its being durable, at most, without fsync; 0: 5 */

	/*
	 * What `inlay status` shows, in words of the caller's: called when somebody asks, from a thread that serves.
	 *
	 *   json   in which form
	 *   text   for free(), *len bytes
	 *
	 * Returns: 0 or -errno. NULL: nobody can ask.
	 */
	int (*report)(void *arg, bool json, char **text, size_t *len);
	void *arg;
};

/*
 * Mount a volume on a directory: when this returns, programs can use it, and are answered once inl_mount_serve runs. The
 * volume must outlive the mount.
 *
 * Returns: 0; -EINVAL (an option); -ENOENT, -ENOTDIR, ... of the directory; -EPERM, -ENODEV (no FUSE here); -ENOMEM.
 */
INL_API int inl_mount_new(struct inl_volume *vol, const char *dir, const struct inl_mount_options *options,
			  struct inl_diag *diag, struct inl_mount **out);

/*
 * Start serving, in threads. The caller should have blocked the signals that it waits for: threads inherit that. SIGURG
 * calls them to what is asked of them between two requests: a handler of the caller's for it must not have SA_RESTART.
 *
 * Returns: 0, and the first answer was given; -errno: inl_mount_free it.
 */
INL_API int inl_mount_start(struct inl_mount *mount, struct inl_diag *diag);

/* Wait until it is unmounted, by whomever. */
INL_API void inl_mount_wait(struct inl_mount *mount);

/*
 * Unmount. What programs have written is written to the volume before; those that still have files open get errors from
 * then on. For any thread that does not serve; inl_mount_wait then returns.
 */
INL_API void inl_mount_end(struct inl_mount *mount);

/* After inl_mount_wait, or instead of inl_mount_start. The volume is the caller's again. NULL is fine. */
INL_API void inl_mount_free(struct inl_mount *mount);

/* What has been asked of a mount since it began. */
struct inl_mount_counters {
	uint64_t requests;		      /* of all kinds */
	uint64_t reads, writes;		      /* of data */
	uint64_t bytes_read, bytes_written;
	uint64_t errors;		      /* reads, writes and syncs that failed */
	uint64_t n_inodes;		      /* held in memory now */
	uint64_t n_open;		      /* files and directories open now */
	uint64_t n_orphans;		      /* removed, and still in use, now */
	uint64_t reserved[7];
};
INL_API void inl_mount_counters(const struct inl_mount *mount, struct inl_mount_counters *counters);

/* Who keeps a key that is to go: a process that has a file open which it encrypts. */
struct inl_holder {
	uint64_t ino;	  /* of the file */
	pid_t pid;	  /* 0: a process that the server may not look at */
	char command[17]; /* its name */
	char *path;	  /* of the file, with the mount's directory; NULL: not known */
};

/*
 * Those who hold files of this key. For callbacks of a mount, too.
 *
 *   list   for inl_holders_free; NULL where *n is 0
 *
 * Returns: 0; -ENOMEM.
 */
INL_API int inl_mount_holders(struct inl_mount *mount, const struct inl_key_spec *key, struct inl_holder **list,
			      unsigned *n);
INL_API void inl_holders_free(struct inl_holder *list, unsigned n);

/* ---- talking to a mount ------------------------------------------------------------------------------------------ */

/*
 * These are ioctls on any file or directory below a mount, for whoever may open it; fd is that.
 *
 * Returns: 0; -ENOTTY (no mount of Inlay); -EACCES (report: only for root and whoever mounted); other -errno.
 */
INL_API int inl_mounted_counters(int fd, struct inl_mount_counters *counters);

/* The process that serves it. */
INL_API int inl_mounted_server(int fd, pid_t *pid);

/* text: for free(), NUL-terminated */
INL_API int inl_mounted_report(int fd, bool json, char **text, size_t *len);

/*
 * Make durable what was changed: all of it, as syncfs(2) would if the kernel told the server of it.
 */
INL_API int inl_mounted_sync(int fd);

/* inl_set_policy on a directory; root, or its owner: -EACCES; -ENOKEY also if the user has not added that key. */
INL_API int inl_mounted_set_policy(int fd, const struct inl_policy *policy);

/* Where the mounts of Inlay are that the system lists: i = 0, 1, ... until -ENOENT. path: for free(). */
INL_API int inl_mounted_nth(unsigned i, char **path);

/* ---- keys of a mount --------------------------------------------------------------------------------------------- */

/*
 * These are asked of the server through a socket beside the mount (doc/socket.md), or by ioctls where that cannot be
 * reached. What users may is as on Linux: everybody adds and removes keys of their own.
 *
 *   path   the mount, or what is in it
 *
 * Returns: 0; -ENOTTY (no mount of Inlay); -EACCES; -ENOENT, ... of the path; -ECONNREFUSED (nobody serves it any more).
 */

/*
 * Add a raw master key, as this user's.
 *
 *   key        len bytes, INL_MASTER_KEY_MIN .. INL_MASTER_KEY_MAX
 *   defaults   directories that this user makes in directories that are not encrypted are encrypted with it from now on
 *   spec       what policies of version 2 call it
 *
 * Returns: also -EINVAL (length); -EDQUOT; -EOPNOTSUPP (the mount cannot have keys; or defaults, and no socket).
 */
INL_API int inl_mounted_add_key(const char *path, const uint8_t *key, size_t len, bool defaults,
				struct inl_key_spec *spec);

struct inl_mounted_key {
	struct inl_key_status status;
	bool others; /* of a removal: other users claim it, so it stays */
};

/*
 * Remove this user's claim to a key. With the last one the key goes: this returns when nothing of it is left but what is
 * held (status.n_busy inodes). Once more tries again.
 *
 *   all_users   every claim; for root: -EACCES
 *
 * Returns: also -ENOKEY (there is no such key; this user does not claim it).
 */
INL_API int inl_mounted_remove_key(const char *path, const struct inl_key_spec *spec, bool all_users,
				   struct inl_mounted_key *key);

INL_API int inl_mounted_key_status(const char *path, const struct inl_key_spec *spec, struct inl_mounted_key *key);

/* The keys that are not absent: i = 0, 1, ... until -ENODATA. */
INL_API int inl_mounted_known_key(const char *path, unsigned i, struct inl_key_spec *spec,
				  struct inl_mounted_key *key);

/* As inl_mounted_report, of a mount that one may not look into. */
INL_API int inl_mounted_report_at(const char *path, bool json, char **text, size_t *len);

#ifdef __cplusplus
}
#endif
#endif
