/*
 * serve/protocol.h: what is said over the socket of a mount: one message, one answer.
 * Not here: who may ask what (socket.c); asking (client.c).
 * Read more: doc/inlay.1, "LOCKING", and doc/socket.md, which says the same for other programs.
 *
 * A socket of type SOCK_SEQPACKET for each mount, so that it can be reached by those who may not look into the mount,
 * root among them. Numbers are in the machine's order: both are on the same machine.
 */
#ifndef INLAY_SERVE_PROTOCOL_H
#define INLAY_SERVE_PROTOCOL_H

#include <inlay/fscrypt.h>
#include <sys/types.h>
#include <sys/un.h>

#define INL_WIRE_MAGIC	 0x59414c49u /* "ILAY" */
#define INL_WIRE_VERSION 1

enum inl_wire_op {
	INL_WIRE_ADD = 1,    /* key */
	INL_WIRE_REMOVE = 2, /* spec */
	INL_WIRE_STATUS = 3, /* spec */
	INL_WIRE_REPORT = 4, /* a descriptor comes with the answer: the text */
	INL_WIRE_KNOWN = 5,  /* flags: 0, 1, ...; the spec of that key, of version 2; -ENODATA: there are no more */
};

#define INL_WIRE_DEFAULT   1u /* ADD: and what this user makes is encrypted with it */
#define INL_WIRE_ALL_USERS 1u /* REMOVE: every claim; root only */
#define INL_WIRE_JSON	   1u /* REPORT */

struct inl_wire_request {
	uint32_t magic;
	uint16_t version;
	uint16_t op;
	uint32_t flags;
	uint32_t key_len;
	uint8_t spec_version; /* 1: 8 bytes of spec; 2: 16 */
	uint8_t reserved[7];
	uint8_t spec[INL_KEY_IDENTIFIER_SIZE];
	uint8_t key[INL_MASTER_KEY_MAX];
};

struct inl_wire_answer {
	uint32_t magic;
	uint16_t version;
	uint16_t op;
	int32_t err; /* 0 or -errno */
	uint32_t state; /* enum inl_key_state, after it was done */
	uint32_t n_busy; /* inodes that keep the key until they are closed */
	uint32_t others; /* REMOVE: other users have claims, so the key stays */
	uint32_t n_claims;
	uint32_t claimed; /* by whoever asks */
	uint8_t spec_version;
	uint8_t reserved[7];
	uint8_t spec[INL_KEY_IDENTIFIER_SIZE]; /* ADD: of version 2 */
	uint64_t report_size;
};

_Static_assert(sizeof(struct inl_wire_request) == 104 && sizeof(struct inl_wire_answer) == 64, "as doc/socket.md has them");

/*
 * Where the socket of a mount is: of root's mounts in /run/inlay, of others' in /run/user/UID/inlay or, where there is no
 * such directory, or none of theirs, in /tmp/inlay-UID; under the number of the mounted device.
 *
 *   i        the first place, the second one
 *   folder   that it is in
 *
 * Returns: 0; -ENOENT: there are no more places; -ENAMETOOLONG.
 */
int inl_socket_place(dev_t dev, uid_t owner, unsigned i, struct sockaddr_un *address,
		     char folder[sizeof(((struct sockaddr_un *)0)->sun_path)]);

/* Nobody but its owner can have put anything there. */
bool inl_socket_folder_good(const char *folder, uid_t owner);

#endif
