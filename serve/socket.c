/*
 * serve/socket.c: the socket beside a mount: keys, for those who may not or need not look into it.
 * Not here: what is done with keys (lock.c); the other side (client.c).
 * Read more: serve/protocol.h.
 */
#include "serve/protocol.h"
#include "serve/serve.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE          5 /* seconds, with one that has connected and says nothing */
#define PEERS_MAX         64u
#define PEERS_OF_USER_MAX 8u

struct peer {
	int fd;
	uid_t uid;
	time_t since;
};

struct inl_socket {
	struct inl_mount *mount;
	pthread_t thread;
	int fd, stop;
	struct sockaddr_un address;
	struct stat made; /* what is there under this name */
	struct peer peers[PEERS_MAX];
	unsigned n_peers;
	struct inl_wire_request *request; /* secret: keys come in it */
};

bool inl_socket_folder_good(const char *folder, uid_t owner)
{
	struct stat st;

	return !lstat(folder, &st) && S_ISDIR(st.st_mode) && st.st_uid == owner && !(st.st_mode & 022);
}

int inl_socket_place(dev_t dev, uid_t owner, unsigned i, struct sockaddr_un *address,
		     char folder[sizeof(address->sun_path)])
{
	char place[64], run[32];
	int n;

	snprintf(run, sizeof(run), "/run/user/%u", (unsigned)owner);
	if (!owner && !i)
		snprintf(place, sizeof(place), "/run/inlay");
	else if (owner && !i && inl_socket_folder_good(run, owner))
		snprintf(place, sizeof(place), "%s/inlay", run);
	else if (owner && i < 2)
		snprintf(place, sizeof(place), "/tmp/inlay-%u", (unsigned)owner);
	else
		return -ENOENT;
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%u:%u", place, major(dev), minor(dev));
	snprintf(folder, sizeof(address->sun_path), "%s", place);
	return n < 0 || (size_t)n >= sizeof(address->sun_path) ? -ENAMETOOLONG : 0;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* Others than these two have nothing to ask of a mount that they cannot look into. */
static bool may_ask(const struct inl_mount *mount, uid_t uid)
{
	return !uid || uid == mount->owner || mount->others;
}

static void tell_state(struct inl_mount *mount, const struct inl_key_spec *spec, uid_t uid,
		       struct inl_wire_answer *answer)
{
	struct inl_key_status status = { .state = INL_KEY_ABSENT };

	if (mount->keys.ring && inl_keyring_status(mount->keys.ring, spec, uid, &status) && !answer->err)
		answer->err = -EINVAL;
	answer->state = status.state;
	answer->n_busy = status.n_busy;
	answer->n_claims = status.n_claims;
	answer->claimed = status.claimed;
}

static int add_key(struct inl_mount *mount, const struct inl_wire_request *request, uid_t uid,
		   struct inl_key_spec *spec)
{
	int err = request->key_len > sizeof(request->key)
			  ? -EINVAL
			  : inl_key_spec_derive(request->key, request->key_len, 2, spec);

	if (!err)
		err = inl_keys_give(mount, request->key, request->key_len, uid);
	if (!err && (request->flags & INL_WIRE_DEFAULT))
		err = inl_keys_set_default(mount, uid, spec);
	return err;
}

static int remove_key(struct inl_mount *mount, const struct inl_wire_request *request, uid_t uid,
		      const struct inl_key_spec *spec, struct inl_wire_answer *answer)
{
	bool all = request->flags & INL_WIRE_ALL_USERS;
	struct inl_taken taken;
	int err;

	if (uid && (all || spec->version == 1))
		return -EACCES;
	err = inl_keys_take(mount, spec, uid, all || spec->version == 1, &taken);
	answer->others = taken.others;
	return err;
}

/* Into memory that can be handed over. */
static int make_report(struct inl_mount *mount, bool json, int *fd, uint64_t *size)
{
	char *text = NULL;
	size_t len = 0;
	int err = -EOPNOTSUPP;

	pthread_mutex_lock(&mount->report_lock);
	if (mount->report)
		err = mount->report(mount->arg, json, &text, &len);
	pthread_mutex_unlock(&mount->report_lock);
	if (err)
		return err;
	*fd = memfd_create("report", MFD_CLOEXEC);
	if (*fd < 0)
		err = -errno;
	else if (pwrite(*fd, text, len, 0) != (ssize_t)len)
		err = -EIO;
	*size = len;
	inl_wipe(text, len);
	free(text);
	return err;
}

/* fd: -1 unless a report was made. */
static void serve_request(struct inl_mount *mount, const struct inl_wire_request *request, uid_t uid,
			  struct inl_wire_answer *answer, int *fd)
{
	struct inl_key_spec spec = { .version = request->spec_version };

	memcpy(spec.bytes, request->spec, spec.version == 1 ? INL_KEY_DESCRIPTOR_SIZE : INL_KEY_IDENTIFIER_SIZE);
	if ((request->op == INL_WIRE_REMOVE || request->op == INL_WIRE_STATUS) && spec.version != 1 &&
	    spec.version != 2) {
		answer->err = -EINVAL;
		return;
	}
	switch (request->op) {
	case INL_WIRE_ADD:
		answer->err = add_key(mount, request, uid, &spec);
		break;
	case INL_WIRE_REMOVE:
		answer->err = remove_key(mount, request, uid, &spec, answer);
		break;
	case INL_WIRE_STATUS:
		break;
	case INL_WIRE_KNOWN:
		answer->err =
			mount->keys.ring ? inl_keyring_known(mount->keys.ring, request->flags, 2, &spec) : -ENODATA;
		answer->err = answer->err == -ENOENT ? -ENODATA : answer->err;
		break;
	case INL_WIRE_REPORT:
		answer->err = uid && uid != mount->owner
				      ? -EACCES
				      : make_report(mount, request->flags & INL_WIRE_JSON, fd, &answer->report_size);
		return;
	default:
		answer->err = -EOPNOTSUPP;
		return;
	}
	answer->spec_version = spec.version;
	memcpy(answer->spec, spec.bytes, sizeof(answer->spec));
	tell_state(mount, &spec, uid, answer);
}

/* Who does not fetch it does without. */
static void send_answer(int peer, const struct inl_wire_answer *answer, int fd)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)answer, sizeof(*answer) };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	}
	sendmsg(peer, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static struct inl_wire_answer refusal(int err)
{
	return (struct inl_wire_answer){ .magic = INL_WIRE_MAGIC, .version = INL_WIRE_VERSION, .err = err };
}

/* One message. False: it has no more to say, or nothing that makes sense. */
static bool serve_message(struct inl_socket *sock, const struct peer *peer)
{
	struct inl_wire_request *request = sock->request;
	ssize_t n = recv(peer->fd, request, sizeof(*request), MSG_DONTWAIT);
	struct inl_wire_answer answer = refusal(0);
	bool good = n == sizeof(*request) && request->magic == INL_WIRE_MAGIC && request->version == INL_WIRE_VERSION;
	int fd = -1;

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	answer.op = request->op;
	if (good)
		serve_request(sock->mount, request, peer->uid, &answer, &fd);
	else
		answer.err = -EPROTO;
	inl_wipe(request, sizeof(*request));
	send_answer(peer->fd, &answer, fd);
	if (fd >= 0)
		close(fd);
	return good;
}

static void drop_peer(struct inl_socket *sock, unsigned i)
{
	close(sock->peers[i].fd);
	sock->peers[i] = sock->peers[--sock->n_peers];
}

static time_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

/* There is room for few, for fewer of one user, and for a short time: nobody keeps others from asking. */
static void take_peer(struct inl_socket *sock)
{
	struct peer peer = { .fd = accept4(sock->fd, NULL, NULL, SOCK_CLOEXEC), .since = now() };
	struct inl_wire_answer answer = refusal(-EACCES);
	struct ucred who = { .uid = (uid_t)-1 };
	socklen_t len = sizeof(who);
	unsigned n = 0;

	if (peer.fd < 0)
		return;
	if (!getsockopt(peer.fd, SOL_SOCKET, SO_PEERCRED, &who, &len) && may_ask(sock->mount, who.uid)) {
		for (unsigned i = 0; i < sock->n_peers; i++)
			n += sock->peers[i].uid == who.uid;
		answer.err = n < PEERS_OF_USER_MAX && sock->n_peers < PEERS_MAX ? 0 : -EAGAIN;
	}
	peer.uid = who.uid;
	if (!answer.err) {
		sock->peers[sock->n_peers++] = peer;
		return;
	}
	send_answer(peer.fd, &answer, -1);
	close(peer.fd);
}

static void *serve_peers(void *arg)
{
	struct inl_socket *sock = arg;
	struct pollfd fds[PEERS_MAX + 2];

	for (;;) {
		fds[0] = (struct pollfd){ .fd = sock->stop, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = sock->fd, .events = POLLIN };
		for (unsigned i = 0; i < sock->n_peers; i++)
			fds[i + 2] = (struct pollfd){ .fd = sock->peers[i].fd, .events = POLLIN };
		if (poll(fds, sock->n_peers + 2, sock->n_peers ? 1000 : -1) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			break;
		for (unsigned i = sock->n_peers; i-- > 0;) {
			if (fds[i + 2].revents ? !serve_message(sock, &sock->peers[i])
					       : now() - sock->peers[i].since > PATIENCE)
				drop_peer(sock, i);
		}
		if (fds[1].revents & POLLIN)
			take_peer(sock);
	}
	while (sock->n_peers)
		drop_peer(sock, 0);
	return NULL;
}

/* ---- begin and end ----------------------------------------------------------------------------------------------- */

static int make_folder(const char *folder, uid_t owner)
{
	if (mkdir(folder, owner ? 0700 : 0755) && errno != EEXIST)
		return -errno;
	return inl_socket_folder_good(folder, owner) ? 0 : -EPERM;
}

/* What servers that were killed have left behind: nobody answers there. */
static void tidy(const char *folder)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		int fd, n = snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", folder, entry->d_name);

		/* One that is not listened to yet has another name. */
		if (!strchr(entry->d_name, ':') || n < 0 || (size_t)n >= sizeof(address.sun_path))
			continue;
		fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) && errno == ECONNREFUSED)
			unlink(address.sun_path);
		if (fd >= 0)
			close(fd);
	}
	if (dir)
		closedir(dir);
}

static int listen_in(struct inl_socket *sock, const char *folder)
{
	struct sockaddr_un early = { .sun_family = AF_UNIX };
	int err;

	tidy(folder);
	if ((size_t)snprintf(early.sun_path, sizeof(early.sun_path), "%s/%d.new", folder, (int)getpid()) >=
	    sizeof(early.sun_path))
		return -ENAMETOOLONG;
	unlink(early.sun_path);
	if (bind(sock->fd, (const struct sockaddr *)&early, sizeof(early)))
		return -errno;
	/*
	 * Who asks is looked at, not who can connect. The number was another's, which is gone: that of a mount is its own.
	 */
	if (!chmod(early.sun_path, 0666) && !listen(sock->fd, 16) && !lstat(early.sun_path, &sock->made) &&
	    !rename(early.sun_path, sock->address.sun_path))
		return 0;
	err = -errno;
	unlink(early.sun_path);
	return err;
}

/* In the first place that is ours. */
static int listen_somewhere(struct inl_socket *sock, uid_t owner)
{
	char folder[sizeof(sock->address.sun_path)];
	int err;

	sock->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	sock->stop = eventfd(0, EFD_CLOEXEC);
	if (sock->fd < 0 || sock->stop < 0)
		return -errno;
	for (unsigned i = 0; !(err = inl_socket_place(sock->mount->dev, owner, i, &sock->address, folder)); i++) {
		err = make_folder(folder, owner);
		if (!err)
			return listen_in(sock, folder);
	}
	return err;
}

static void socket_free(struct inl_socket *sock)
{
	struct stat st;

	/* Unless the number is used again, and what is there is another's. */
	if (sock->made.st_ino && !lstat(sock->address.sun_path, &st) && st.st_ino == sock->made.st_ino &&
	    st.st_dev == sock->made.st_dev)
		unlink(sock->address.sun_path);
	if (sock->fd >= 0)
		close(sock->fd);
	if (sock->stop >= 0)
		close(sock->stop);
	inl_secret_free(sock->request);
	free(sock);
}

int inl_socket_start(struct inl_mount *mount)
{
	struct inl_socket *sock = calloc(1, sizeof(*sock));
	int err;

	if (!sock)
		return -ENOMEM;
	sock->mount = mount;
	sock->fd = sock->stop = -1;
	sock->request = inl_secret_alloc(sizeof(*sock->request));
	err = sock->request ? listen_somewhere(sock, mount->owner) : -ENOMEM;
	if (!err)
		err = -pthread_create(&sock->thread, NULL, serve_peers, sock);
	if (err)
		socket_free(sock);
	else
		mount->socket = sock;
	return err;
}

void inl_socket_stop(struct inl_mount *mount)
{
	struct inl_socket *sock = mount->socket;
	uint64_t one = 1;

	if (!sock)
		return;
	mount->socket = NULL;
	while (write(sock->stop, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(sock->thread, NULL);
	socket_free(sock);
}
