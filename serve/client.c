/*
 * serve/client.c: what a program asks of a mount that another one serves.
 * Not here: the answers (control.c).
 * Read more: inlay/mount.h.
 */
#include "serve/control.h"
#include "serve/protocol.h"
#include "serve/where.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fscrypt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

/* Who does not know the number says so in different ways. */
static int ask(int fd, unsigned long number, void *arg)
{
	if (!ioctl(fd, number, arg))
		return 0;
	return errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL ? -ENOTTY : -errno;
}

int inl_mounted_counters(int fd, struct inl_mount_counters *counters)
{
	return ask(fd, INL_IOC_COUNTERS, counters);
}

int inl_mounted_server(int fd, pid_t *pid)
{
	uint32_t number;
	int err = ask(fd, INL_IOC_SERVER, &number);

	if (!err)
		*pid = (pid_t)number;
	return err;
}

int inl_mounted_sync(int fd)
{
	return ioctl(fd, INL_IOC_SYNC) ? -errno : 0;
}

int inl_mounted_set_policy(int fd, const struct inl_policy *policy)
{
	struct inl_ioc_policy wire = {
		.version = policy->version,
		.contents_mode = policy->contents_mode,
		.filenames_mode = policy->filenames_mode,
		.flags = policy->flags,
		.log2_data_unit_size = policy->log2_data_unit_size,
	};

	memcpy(wire.reserved, policy->reserved, sizeof(wire.reserved));
	memcpy(wire.key, policy->key.bytes, sizeof(wire.key));
	return ioctl(fd, INL_IOC_POLICY, &wire) ? -errno : 0;
}

#define REPORT_MAX (64u << 20) /* more is nonsense: whoever serves may be anybody */

static bool is_sound(const struct inl_ioc_report *piece, uint64_t total, size_t len)
{
	return piece->total == total && total <= REPORT_MAX && piece->len <= sizeof(piece->bytes) &&
	       piece->len <= total - len;
}

static int fetch(int fd, bool json, struct inl_ioc_report *piece, char **text, size_t *len)
{
	uint64_t total = 0;
	int err;

	*text = NULL;
	*len = 0;
	*piece = (struct inl_ioc_report){ .json = json };
	do {
		piece->offset = *len;
		err = ask(fd, INL_IOC_REPORT, piece);
		if (!err && !*text) {
			total = piece->total <= REPORT_MAX ? piece->total : 0;
			*text = calloc(1, total + 1);
			err = *text ? 0 : -ENOMEM;
		}
		if (!err && !is_sound(piece, total, *len))
			err = -EIO;
		if (err)
			break;
		memcpy(*text + *len, piece->bytes, piece->len);
		*len += piece->len;
	} while (piece->len && *len < piece->total);
	if (err) {
		free(*text);
		*text = NULL;
	}
	return err;
}

int inl_mounted_report(int fd, bool json, char **text, size_t *len)
{
	struct inl_ioc_report *piece = malloc(sizeof(*piece));
	int err;

	if (!piece)
		return -ENOMEM;
	do
		err = fetch(fd, json, piece, text, len);
	while (err == -EAGAIN);
	free(piece);
	return err;
}

#define PATIENCE            20 /* seconds, with a server that does not answer */
#define PATIENCE_WITH_LOCKS 300

/* ---- the socket -------------------------------------------------------------------------------------------------- */

static void take_spec(struct inl_key_spec *spec, uint8_t version, const uint8_t bytes[INL_KEY_IDENTIFIER_SIZE])
{
	*spec = (struct inl_key_spec){ .version = version };
	memcpy(spec->bytes, bytes, sizeof(spec->bytes));
}

/* Nobody but who mounted, or root, is given a key. */
static bool is_server(int fd, uid_t owner)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) && (!who.uid || who.uid == owner);
}

static int connect_to(const struct sockaddr_un *address, uid_t owner)
{
	const struct timeval patience = { .tv_sec = PATIENCE };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (!connect(fd, (const struct sockaddr *)address, sizeof(*address)) && is_server(fd, owner))
		return fd;
	close(fd);
	return -ECONNREFUSED;
}

/* -ECONNREFUSED: nowhere; others: of the path. */
static int reach(const char *path)
{
	struct inl_where *where = malloc(sizeof(*where));
	struct sockaddr_un address;
	char folder[sizeof(address.sun_path)];
	int fd = -ECONNREFUSED, err = where ? inl_where(path, where) : -ENOMEM;

	for (unsigned i = 0; !err && fd == -ECONNREFUSED; i++) {
		if (inl_socket_place(where->dev, where->owner, i, &address, folder))
			break;
		if (inl_socket_folder_good(folder, where->owner))
			fd = connect_to(&address, where->owner);
	}
	free(where);
	return err ? err : fd;
}

/* Of a lock: the medium may be slow, and what was written is written back first. */
static void be_patient(int fd, const struct inl_wire_request *request)
{
	const struct timeval patience = { .tv_sec = PATIENCE_WITH_LOCKS };

	if (request->op == INL_WIRE_REMOVE)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
}

/* came: a descriptor that comes with the answer, or -1; NULL: none is wanted. */
static int converse(int fd, const struct inl_wire_request *request, struct inl_wire_answer *answer, int *came)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { answer, sizeof(*answer) };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *head;
	ssize_t n;

	if (came) {
		*came = -1;
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	/* Who is refused has an answer before it has asked. */
	if (send(fd, request, sizeof(*request), MSG_NOSIGNAL) != sizeof(*request) && errno != EPIPE)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	while ((n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	head = came && n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
		memcpy(came, CMSG_DATA(head), sizeof(*came));
	if (n != sizeof(*answer) || answer->magic != INL_WIRE_MAGIC || answer->version != INL_WIRE_VERSION)
		return n >= 0 ? -EPROTO : errno == EAGAIN ? -ETIMEDOUT : -errno;
	return answer->err > 0 || answer->err < -4095 ? -EPROTO : answer->err;
}

static void start_request(struct inl_wire_request *request, enum inl_wire_op op, const struct inl_key_spec *spec)
{
	memset(request, 0, sizeof(*request));
	request->magic = INL_WIRE_MAGIC;
	request->version = INL_WIRE_VERSION;
	request->op = op;
	if (spec) {
		request->spec_version = spec->version;
		memcpy(request->spec, spec->bytes, sizeof(request->spec));
	}
}

static int ask_socket(const char *path, const struct inl_wire_request *request, struct inl_wire_answer *answer,
		      int *came)
{
	int fd = reach(path), err;

	if (fd < 0)
		return fd;
	be_patient(fd, request);
	err = converse(fd, request, answer, came);
	close(fd);
	return err;
}

/* ---- without one ------------------------------------------------------------------------------------------------- */

static int open_path(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int add_by_ioctl(const char *path, const uint8_t *key, size_t len, struct inl_key_spec *spec)
{
	struct inl_ioc_key *arg = inl_secret_alloc(sizeof(*arg));
	int fd = open_path(path), err = !arg ? -ENOMEM : fd < 0 ? fd : 0;

	if (!err) {
		arg->len = (uint32_t)len;
		memcpy(arg->key, key, len);
		err = ioctl(fd, INL_IOC_KEY, arg) ? -errno : 0;
	}
	if (!err)
		take_spec(spec, 2, arg->identifier);
	if (fd >= 0)
		close(fd);
	inl_secret_free(arg);
	return err;
}

static void spec_to_wire(const struct inl_key_spec *spec, struct fscrypt_key_specifier *wire)
{
	wire->type = spec->version == 1 ? FSCRYPT_KEY_SPEC_TYPE_DESCRIPTOR : FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER;
	memcpy(wire->u.identifier, spec->bytes, sizeof(spec->bytes));
}

static int status_by_ioctl(const char *path, const struct inl_key_spec *spec, struct inl_mounted_key *key)
{
	struct fscrypt_get_key_status_arg arg = { 0 };
	int fd = open_path(path), err;

	if (fd < 0)
		return fd;
	spec_to_wire(spec, &arg.key_spec);
	err = ask(fd, FS_IOC_GET_ENCRYPTION_KEY_STATUS, &arg);
	close(fd);
	key->status.state = (enum inl_key_state)arg.status;
	key->status.claimed = arg.status_flags & FSCRYPT_KEY_STATUS_FLAG_ADDED_BY_SELF;
	key->status.n_claims = arg.user_count;
	return err;
}

static int known_by_ioctl(const char *path, unsigned i, struct inl_key_spec *spec, struct inl_mounted_key *key)
{
	struct inl_ioc_known arg = { .i = i };
	int fd = open_path(path), err;

	if (fd < 0)
		return fd;
	err = ask(fd, INL_IOC_KNOWN, &arg);
	close(fd);
	if (err)
		return err;
	take_spec(spec, 2, arg.identifier);
	*key = (struct inl_mounted_key){
		.status.state = (enum inl_key_state)arg.state,
		.status.n_busy = arg.n_busy,
		.status.n_claims = arg.n_claims,
		.status.claimed = arg.claimed,
	};
	return 0;
}

static int remove_by_ioctl(const char *path, const struct inl_key_spec *spec, bool all_users,
			   struct inl_mounted_key *key)
{
	struct fscrypt_remove_key_arg arg = { 0 };
	int fd = open_path(path), err;

	if (fd < 0)
		return fd;
	spec_to_wire(spec, &arg.key_spec);
	err = ask(fd, all_users ? FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS : FS_IOC_REMOVE_ENCRYPTION_KEY, &arg);
	close(fd);
	if (!err)
		err = status_by_ioctl(path, spec, key);
	key->others = arg.removal_status_flags & FSCRYPT_KEY_REMOVAL_STATUS_FLAG_OTHER_USERS;
	if (arg.removal_status_flags & FSCRYPT_KEY_REMOVAL_STATUS_FLAG_FILES_BUSY && !key->status.n_busy)
		key->status.n_busy = 1;
	return err;
}

/* ---- which there are --------------------------------------------------------------------------------------------- */

int inl_mounted_nth(unsigned i, char **path)
{
	struct inl_where *where = malloc(sizeof(*where));
	int err = where ? inl_where_nth(i, where) : -ENOMEM;

	if (!err)
		*path = strdup(where->point);
	if (!err && !*path)
		err = -ENOMEM;
	free(where);
	return err;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static void take_answer(const struct inl_wire_answer *answer, struct inl_mounted_key *key)
{
	*key = (struct inl_mounted_key){
		.status.state = (enum inl_key_state)answer->state,
		.status.n_busy = answer->n_busy,
		.status.n_claims = answer->n_claims,
		.status.claimed = answer->claimed,
		.others = answer->others,
	};
}

int inl_mounted_add_key(const char *path, const uint8_t *key, size_t len, bool defaults, struct inl_key_spec *spec)
{
	struct inl_wire_request *request;
	struct inl_wire_answer answer;
	int err;

	if (len < INL_MASTER_KEY_MIN || len > INL_MASTER_KEY_MAX)
		return -EINVAL;
	request = inl_secret_alloc(sizeof(*request));
	if (!request)
		return -ENOMEM;
	start_request(request, INL_WIRE_ADD, NULL);
	request->flags = defaults ? INL_WIRE_DEFAULT : 0;
	request->key_len = (uint32_t)len;
	memcpy(request->key, key, len);
	err = ask_socket(path, request, &answer, NULL);
	inl_secret_free(request);
	if (err == -ECONNREFUSED)
		return defaults ? -EOPNOTSUPP : add_by_ioctl(path, key, len, spec);
	if (err)
		return err;
	take_spec(spec, answer.spec_version, answer.spec);
	return 0;
}

int inl_mounted_remove_key(const char *path, const struct inl_key_spec *spec, bool all_users,
			   struct inl_mounted_key *key)
{
	struct inl_wire_request request;
	struct inl_wire_answer answer = { 0 };
	int err;

	*key = (struct inl_mounted_key){ 0 };
	start_request(&request, INL_WIRE_REMOVE, spec);
	request.flags = all_users ? INL_WIRE_ALL_USERS : 0;
	err = ask_socket(path, &request, &answer, NULL);
	if (err == -ECONNREFUSED)
		return remove_by_ioctl(path, spec, all_users, key);
	take_answer(&answer, key);
	return err;
}

int inl_mounted_key_status(const char *path, const struct inl_key_spec *spec, struct inl_mounted_key *key)
{
	struct inl_wire_request request;
	struct inl_wire_answer answer = { 0 };
	int err;

	*key = (struct inl_mounted_key){ 0 };
	start_request(&request, INL_WIRE_STATUS, spec);
	err = ask_socket(path, &request, &answer, NULL);
	if (err == -ECONNREFUSED)
		return status_by_ioctl(path, spec, key);
	take_answer(&answer, key);
	return err;
}

int inl_mounted_known_key(const char *path, unsigned i, struct inl_key_spec *spec, struct inl_mounted_key *key)
{
	struct inl_wire_request request;
	struct inl_wire_answer answer = { 0 };
	int err;

	start_request(&request, INL_WIRE_KNOWN, NULL);
	request.flags = i;
	err = ask_socket(path, &request, &answer, NULL);
	if (err == -ECONNREFUSED)
		return known_by_ioctl(path, i, spec, key);
	if (err)
		return err;
	take_spec(spec, answer.spec_version, answer.spec);
	take_answer(&answer, key);
	return 0;
}

/* What lies in a descriptor that the server has sent. */
static int read_report(int fd, uint64_t size, char **text, size_t *len)
{
	ssize_t n;

	*text = size <= REPORT_MAX ? calloc(1, size + 1) : NULL;
	if (!*text)
		return size <= REPORT_MAX ? -ENOMEM : -EIO;
	n = pread(fd, *text, size, 0);
	if (n < 0 || (uint64_t)n != size) {
		free(*text);
		*text = NULL;
		return -EIO;
	}
	*len = size;
	return 0;
}

int inl_mounted_report_at(const char *path, bool json, char **text, size_t *len)
{
	struct inl_wire_request request;
	struct inl_wire_answer answer;
	int fd = -1, err;

	start_request(&request, INL_WIRE_REPORT, NULL);
	request.flags = json ? INL_WIRE_JSON : 0;
	err = ask_socket(path, &request, &answer, &fd);
	if (err == -ECONNREFUSED) {
		fd = open_path(path);
		if (fd < 0)
			return fd;
		err = inl_mounted_report(fd, json, text, len);
	} else if (!err) {
		err = fd < 0 ? -EPROTO : read_report(fd, answer.report_size, text, len);
	}
	if (fd >= 0)
		close(fd);
	return err;
}
