/*
 * serve/serve.h: what the files of serve/ share: the mount, its nodes, its workers.
 * Not here: what callers may know (inlay/mount.h).
 * Read more: ARCHITECTURE.md, "The life of a request".
 *
 * A *node* is what the kernel names by a 64-bit number: generation << 32 | inode number, so that a number that is used
 * again is another node, and nothing needs to be remembered of an inode that the kernel knows. There is state for those
 * in use by a request, open, or removed while the kernel still knows them; and for some that were used last.
 */
#ifndef INLAY_SERVE_SERVE_H
#define INLAY_SERVE_SERVE_H

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

#include <inlay/mount.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#define INL_REQUEST_MAX  (1u << 20) /* bytes of data in one request */
/* Of inl_stat.flags: as linux/fs.h and e2fsprogs have them. */
#define INL_FL_IMMUTABLE 0x10u
#define INL_FL_APPEND    0x20u

#define INL_FOREVER 86400.0 /* seconds: nobody but the kernel changes the volume */

struct inl_node {
	uint64_t id;
	struct inl_inode *inode; /* a reference */
	unsigned users;          /* requests and handles */
	unsigned writers;        /* handles that may write: the kernel may have what was not written yet */
	bool removed;            /* without a name */
	bool orphan;             /* removed, and the kernel knows it: kept until it forgets it */
	_Atomic unsigned listed; /* keys.changes when the kernel last began to keep what the directory lists */
	struct inl_node *hash_next;
	struct inl_node *newer, *older; /* while nobody uses it */
};

#define INL_NODE_BUCKETS 4096u
#define INL_TOP_BUCKETS	 1024u

/* Where the encrypted begins: tops.c. */
struct inl_tops {
	pthread_mutex_t lock;
	struct inl_top *buckets[INL_TOP_BUCKETS];
	struct inl_top *newest, *oldest;
	unsigned n;
};

/* A master key by both of its names, one or two: it serves policies of both versions. */
struct inl_key_names {
	struct inl_key_spec spec[2];
};

/* With which key a user's new directories are encrypted. */
struct inl_default {
	uid_t uid;
	struct inl_key_spec key;
};

/* What is done to keys while the volume is in use: lock.c. */
struct inl_keys {
	pthread_mutex_t lock;	  /* one change at a time */
	pthread_rwlock_t marking; /* shared: what is made can be opened; exclusive: keys are marked */
	bool supported;		  /* the volume has the feature */
	struct inl_keyring *ring; /* of the volume; NULL: without keys for ever */
	struct inl_key_names *unfinished; /* lock; removed, and not completely when that was done */
	unsigned n_unfinished;
	atomic_bool finishing;	/* somebody will look at those */
	atomic_uint changes;	/* keys have come or gone: what was listed may be listed differently */
	pthread_mutex_t defaults_lock;
	struct inl_default *defaults;
	unsigned n_defaults;
};

struct inl_nodes {
	pthread_mutex_t lock;
	struct inl_volume *vol;
	struct inl_node *buckets[INL_NODE_BUCKETS];
	struct inl_node *newest, *oldest; /* idle ones */
	unsigned n_idle, n, n_orphans;
};

/* A file or a directory that is open: fuse_file_info.fh. */
struct inl_open {
	struct inl_node *node;
	bool writes;
	bool holds; /* its key: inl_inode_hold_key */
	struct inl_open *next, **at; /* of the mount; nodes.lock */

	pthread_mutex_t lock; /* of a directory, the rest */
	struct inl_dir *dir;
	uint64_t pos; /* after the entry before `ahead` */
	int failed;   /* an error that is still to be told */
#define INL_POS_NOWHERE UINT64_MAX
	bool has_ahead;
	struct inl_dirent ahead; /* read, and had no room in the answer */
};

/* A thread that serves. */
struct inl_worker {
	struct inl_mount *mount;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	bool serves; /* lock; its thread can be called */
	int fd; /* of its own, cloned: what is read from it is answered there */
	uint8_t *request;
	uint8_t *answer;		  /* INL_REQUEST_MAX bytes, aligned; by inl_worker_answer() */
	size_t request_used, answer_used; /* bytes that may hold what programs wrote or read: its own thread */
	atomic_uint turn;		  /* the last one that it took: inl_workers_turn */
	atomic_bool waits;		  /* for a request */
};

#define INL_WORKERS_MAX 64u

/* What is done by a thread that serves nobody: it may wait for requests to be served. The first member of what it is about. */
struct inl_job {
	struct inl_job *next;
	void (*run)(struct inl_mount *mount, struct inl_job *job); /* frees it */
};

/* Such a thread. */
struct inl_lane {
	struct inl_mount *mount;
	pthread_t thread;
	bool started, stop; /* mount->lock, and the rest */
	pthread_cond_t wake;
	struct inl_job *first, **end; /* first come, first served */
};

struct inl_mount {
	struct inl_volume *vol;
	struct fuse_session *session;
	char *dir;
	uint32_t block_size;
	int fd; /* of the session */
	bool read_only, writeback, mounted;
	bool others;	/* may use it: allow_other */
	dev_t dev;      /* of the mount */
	bool hands_off; /* what is mounted on the directory is not ours (any more) */
	unsigned commit;
	uid_t owner; /* who mounted */
	int (*report)(void *arg, bool json, char **text, size_t *len);
	void *arg;
	struct inl_nodes nodes;
	struct inl_open *opens; /* nodes.lock */

	struct inl_worker workers[INL_WORKERS_MAX];
	unsigned n_workers;
	atomic_uint turn; /* inl_workers_turn */
	struct inl_keys keys;
	struct inl_tops tops;
	struct inl_socket *socket; /* NULL: nobody listens */
	struct inl_gate *gate;

	pthread_mutex_t lock; /* until report_lock */
	pthread_cond_t wake;
	unsigned n_serving;
	bool asked_to_end, stop;
	pthread_t committer;
	bool has_committer;
	struct inl_lane flusher, locker;
	pthread_mutex_t report_lock;              /* the rest */
	char *report_text;
	size_t report_len;
	uint32_t report_id;

	_Atomic uint64_t finished; /* requests, and what the flusher did */
	_Atomic uint64_t requests, reads, writes, bytes_read, bytes_written, errors;
};

/* ---- node.c ------------------------------------------------------------------------------------------------------ */

void inl_nodes_init(struct inl_nodes *nodes, struct inl_volume *vol);

/* Let go of all: no request is under way, and nothing is open. */
void inl_nodes_done(struct inl_nodes *nodes);

/*
 * The node of a number, for a request or a handle.
 *
 * Returns: 0; -ESTALE (no such inode any more); -EIO; ...
 */
int inl_node_get(struct inl_nodes *nodes, uint64_t id, struct inl_node **out);
void inl_node_put(struct inl_nodes *nodes, struct inl_node *node);

/* Another use of a node that is in use. */
void inl_node_hold(struct inl_nodes *nodes, struct inl_node *node);

/* A name of an inode was removed: if it was the last one, it is kept until the kernel forgets it. It is taken over. */
void inl_node_removed(struct inl_nodes *nodes, struct inl_inode *inode);

/* The kernel does not know it any more. */
void inl_node_forget(struct inl_nodes *nodes, uint64_t id);

/* Its number, of what stat says. */
uint64_t inl_node_id(const struct inl_stat *st);

/* A handle begins or ends to write. */
void inl_node_writes(struct inl_nodes *nodes, struct inl_node *node, bool begins);
bool inl_node_is_written(struct inl_nodes *nodes, const struct inl_node *node);

/* Let go of those that nobody uses and `which` is true of. */
void inl_nodes_drop(struct inl_nodes *nodes, bool (*which)(struct inl_inode *inode, const void *arg), const void *arg);

/* The numbers of all of which the kernel may have something unwritten; for free(). NULL, and *n 0: no memory. */
uint64_t *inl_nodes_written(struct inl_nodes *nodes, unsigned *n);

/* Found and put in one scope. */
struct inl_node_use {
	struct inl_nodes *nodes;
	struct inl_node *node;
};
static inline void inl_node_use_end(struct inl_node_use *use)
{
	if (use->node)
		inl_node_put(use->nodes, use->node);
}
#define INL_NODE_SCOPED __attribute__((cleanup(inl_node_use_end)))

/* The same, begun: *use is put at the end of the scope. */
static inline int inl_node_use(struct inl_mount *mount, uint64_t id, struct inl_node_use *use)
{
	int err;

	use->nodes = &mount->nodes;
	err = inl_node_get(&mount->nodes, id, &use->node);
	if (err)
		use->node = NULL;
	return err;
}

/* ---- channel.c: between libfuse and /dev/fuse -------------------------------------------------------------------- */

int inl_channel_set(struct inl_mount *mount);

/* The worker whose thread this is. Never NULL where a request is served. */
struct inl_worker *inl_worker_current(void);
void inl_worker_become(struct inl_worker *worker);

/* This thread answers a request that the worker has read. NULL: no longer. */
void inl_answer_for(const struct inl_worker *worker);

int inl_worker_init(struct inl_worker *worker, struct inl_mount *mount);
void inl_worker_done(struct inl_worker *worker);
void *inl_worker_buf(struct inl_worker *worker); /* where it reads requests into */

/* Memory of this thread for an answer of up to INL_REQUEST_MAX bytes; it is wiped when keys go. */
uint8_t *inl_worker_answer(size_t size);

/* What passed through it is wiped. By its own thread. */
void inl_worker_wipe(struct inl_worker *worker);

/* What libfuse does not hand on of the request that is being served. */
bool inl_request_kills_privileges(fuse_req_t req); /* the kernel wants set-ID bits gone (setattr, write) */

/* ---- mount.c: those that serve ----------------------------------------------------------------------------------- */

/*
 * When this returns, every request is over that was being served when it was called, and what had passed through the
 * workers until then is wiped. Not in a thread that serves.
 */
void inl_workers_turn(struct inl_mount *mount);

/* ---- lane.c: threads that serve nobody --------------------------------------------------------------------------- */

int inl_lane_start(struct inl_mount *mount, struct inl_lane *lane);

/* After what it has to do. */
void inl_lane_stop(struct inl_mount *mount, struct inl_lane *lane);

/* False: it has stopped. */
bool inl_lane_add(struct inl_mount *mount, struct inl_lane *lane, struct inl_job *job);

/* ---- flush.c: what the kernel has not written yet ---------------------------------------------------------------- */

/* A request that is served when the kernel has written a file back: the first member of what it is about. */
struct inl_flush {
	struct inl_job job; /* first */
	fuse_req_t req;
	struct inl_node *node;     /* held */
	struct inl_worker *worker; /* that read the request */
	void (*fn)(struct inl_flush *flush);
};

/*
 * Have the kernel write the node's file back, if it may have something unwritten, and then call fn, which answers; then
 * flush is freed. In the flusher's thread, as a request must not wait for other requests; at once if there is nothing
 * to wait for.
 */
void inl_flush_then(fuse_req_t req, struct inl_node *node, struct inl_flush *flush,
		    void (*fn)(struct inl_flush *flush));

/* All files, now. Not in a thread that serves. */
void inl_flush_all(struct inl_mount *mount);

/* ---- tops.c: where the encrypted begins -------------------------------------------------------------------------- */

void inl_tops_init(struct inl_tops *tops);
void inl_tops_done(struct inl_tops *tops);

/*
 * The kernel is told of an inode by its name in a directory, whose number is `parent`: noted if the inode is encrypted
 * and the directory is not. Returns 0 or -errno: then the kernel must not be told.
 */
int inl_top_note(struct inl_mount *mount, struct inl_inode *dir, uint64_t parent, const char *name,
		 struct inl_inode *inode);

/* A directory that the kernel knows becomes encrypted. */
int inl_top_note_unnamed(struct inl_mount *mount, uint64_t id, const struct inl_key_spec *key);

/*
 * The kernel forgets what it knows below those of this key and nobody uses. Not in a thread that serves.
 *
 * Returns: 0; -ENOMEM: not all of it.
 */
int inl_tops_void(struct inl_mount *mount, const struct inl_key_spec *key);

/* ---- lock.c: keys that come and go ------------------------------------------------------------------------------- */

void inl_keys_init(struct inl_keys *keys, struct inl_keyring *ring, const struct inl_volume *vol);
void inl_keys_done(struct inl_keys *keys);

#define INL_NOBODY ((uid_t)-1) /* a key that is given is nobody's claim */

/* Both wait for requests: not in a thread that serves. As inl_keyring_claim and inl_keyring_unclaim. */
struct inl_taken {
	bool others;	 /* have claims: the key stays */
	unsigned n_busy; /* inodes that keep it until they are closed */
};
int inl_keys_give(struct inl_mount *mount, const uint8_t *key, size_t len, uid_t uid);
int inl_keys_take(struct inl_mount *mount, const struct inl_key_spec *spec, uid_t uid, bool all,
		  struct inl_taken *taken);

/* A handle has let go of its key: if that was removed, and this was the last one, the rest goes, too. */
void inl_keys_released(struct inl_mount *mount, const struct inl_key_spec *spec);

/* With which key what a user makes in directories that are not encrypted is encrypted. */
int inl_keys_set_default(struct inl_mount *mount, uid_t uid, const struct inl_key_spec *spec);
bool inl_keys_default(struct inl_mount *mount, uid_t uid, struct inl_key_spec *spec);

static inline bool inl_key_spec_equal(const struct inl_key_spec *a, const struct inl_key_spec *b)
{
	return a->version == b->version &&
	       !memcmp(a->bytes, b->bytes, a->version == 1 ? INL_KEY_DESCRIPTOR_SIZE : INL_KEY_IDENTIFIER_SIZE);
}

/* ---- socket.c: the socket beside a mount ------------------------------------------------------------------------- */

/* Without one the mount serves all the same. */
int inl_socket_start(struct inl_mount *mount);
void inl_socket_stop(struct inl_mount *mount);

/* control.c: what was reported may name what is locked now. */
void inl_report_wipe(struct inl_mount *mount);

/* ---- answers ----------------------------------------------------------------------------------------------------- */

struct inl_mount *inl_mount_of(fuse_req_t req);

/* err: as the library returns it; what the kernel would not expect becomes what Linux says. Never 0. */
void inl_reply_error(fuse_req_t req, int err);

/* err, or success without more. */
void inl_reply_status(fuse_req_t req, int err);

void inl_stat_convert(uint32_t block_size, const struct inl_stat *st, struct stat *out);
int inl_entry_fill(struct inl_mount *mount, struct inl_inode *inode, struct fuse_entry_param *entry);

/* ---- the requests ------------------------------------------------------------------------------------------------ */

/* names.c */
void inl_serve_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void inl_serve_forget(fuse_req_t req, fuse_ino_t id, uint64_t n);
void inl_serve_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void inl_serve_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void inl_serve_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void inl_serve_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void inl_serve_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void inl_serve_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void inl_serve_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void inl_serve_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		      unsigned flags);
void inl_serve_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t parent, const char *name);
void inl_serve_readlink(fuse_req_t req, fuse_ino_t id);

/* attr.c */
void inl_serve_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void inl_serve_setattr(fuse_req_t req, fuse_ino_t id, struct stat *attr, int which, struct fuse_file_info *fi);
void inl_serve_statfs(fuse_req_t req, fuse_ino_t id);
void inl_serve_setxattr(fuse_req_t req, fuse_ino_t id, const char *name, const char *value, size_t size, int flags);
void inl_serve_getxattr(fuse_req_t req, fuse_ino_t id, const char *name, size_t size);
void inl_serve_listxattr(fuse_req_t req, fuse_ino_t id, size_t size);
void inl_serve_removexattr(fuse_req_t req, fuse_ino_t id, const char *name);

/* file.c */
void inl_serve_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void inl_serve_release(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void inl_serve_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi);
void inl_serve_write(fuse_req_t req, fuse_ino_t id, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi);
void inl_serve_fsync(fuse_req_t req, fuse_ino_t id, int data_only, struct fuse_file_info *fi);
void inl_serve_fallocate(fuse_req_t req, fuse_ino_t id, int mode, off_t offset, off_t len, struct fuse_file_info *fi);
void inl_serve_lseek(fuse_req_t req, fuse_ino_t id, off_t offset, int whence, struct fuse_file_info *fi);
void inl_serve_copy(fuse_req_t req, fuse_ino_t from_id, off_t from, struct fuse_file_info *from_fi, fuse_ino_t to_id,
		    off_t to, struct fuse_file_info *to_fi, size_t len, int flags);

static inline struct inl_open *inl_open_of(const struct fuse_file_info *fi)
{
	return (struct inl_open *)(uintptr_t)fi->fh;
}

/*
 * A handle on a node, which it holds, and with it the key.
 *
 *   must   without the key it cannot be opened; else it may come later
 *
 * Returns: 0; as inl_inode_hold_key; -ENOMEM.
 */
int inl_open_new(struct inl_mount *mount, struct inl_node *node, bool writes, bool must, struct inl_open **out);
void inl_open_free(struct inl_mount *mount, struct inl_open *open);

/* Set-ID bits go when somebody writes or changes the owner: as Linux, who asks is in the request. */
int inl_kill_privileges(fuse_req_t req, struct inl_inode *inode);

/* dir.c */
void inl_serve_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void inl_serve_releasedir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void inl_serve_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi);
void inl_serve_readdirplus(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi);

/* control.c: one request that is an ioctl */
struct inl_control {
	fuse_req_t req;
	struct inl_mount *mount;
	struct inl_node *node;
	struct inl_inode *inode; /* of node */
	void *arg;		 /* where the caller's memory has it */
	const void *in;
	size_t in_size;
};

/* fn: 0, and it is answered or will be; or what is to be answered. The last row has none. */
struct inl_control_row {
	unsigned cmd;
	int (*fn)(const struct inl_control *control);
	bool needs_feature; /* of volumes that can have encrypted directories: else -EOPNOTSUPP */
	bool looks;	    /* into the caller's memory: in a thread of its own */
};
extern const struct inl_control_row inl_fscrypt_controls[];

/* ---- ask.c: looking into the memory of whoever asks -------------------------------------------------------------- */

#define INL_ASK_IN_MAX 128u /* bytes */

struct inl_gate *inl_gate_new(void);

/* Waits for those inside. NULL is fine. */
void inl_gate_close(struct inl_gate *gate);

/*
 * Have fn serve the request in a thread that may look. control->in is copied, the node held meanwhile.
 *
 * Returns: 0: it will be answered; -EAGAIN (too many ask); -EINVAL; -ENOMEM.
 */
int inl_ask(const struct inl_control *control, int (*fn)(const struct inl_control *control));

/* The worker that has read the request that this thread serves. */
struct inl_worker *inl_control_worker(void);

/*
 * In such a thread: read from the caller's memory, `at` bytes behind the argument; write there.
 *
 * Returns: 0; -EFAULT (there is none); -EPERM (not ours to look at: `inlay unlock` and `inlay encrypt` do without);
 *          -ENOTCONN: the mount is gone, to be returned without a look at anything of it.
 */
int inl_peek(const struct inl_control *control, size_t at, void *to, size_t len);
int inl_poke(const struct inl_control *control, size_t at, const void *from, size_t len);

/* Returns 0. */
int inl_control_reply(const struct inl_control *control, const void *out, size_t len);

/*
 * inl_set_policy, for whoever asks: -EACCES, -ENOKEY (no claim to the key).
 *
 *   ready   what is encrypted with it can be used; else as Linux, which does not look
 */
int inl_control_set_policy(const struct inl_control *control, const struct inl_policy *policy, bool ready);

void inl_serve_ioctl(fuse_req_t req, fuse_ino_t id, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
		     const void *in, size_t in_size, size_t out_size);

#endif
