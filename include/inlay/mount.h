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
 * Start serving, in threads. The caller should have blocked the signals that it waits for: threads inherit that.
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

/* inl_set_policy on a directory; root, or its owner: -EACCES. */
INL_API int inl_mounted_set_policy(int fd, const struct inl_policy *policy);

#ifdef __cplusplus
}
#endif
#endif
