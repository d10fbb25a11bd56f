/*
 * serve/control.h: the ioctls in which a mount is talked to.
 * Not here: who asks (client.c), who answers (control.c).
 * Read more: inlay/mount.h.
 *
 * FUSE carries what the size in the number says, 16,383 bytes at most, in both directions.
 */
#ifndef INLAY_SERVE_CONTROL_H
#define INLAY_SERVE_CONTROL_H

#include <inlay/mount.h>
#include <sys/ioctl.h>

#define INL_IOC_MAGIC 0xb1

/* A piece of a report. */
struct inl_ioc_report {
	uint32_t id; /* which one: 0 asks for a new one; answered */
	uint32_t json;
	uint64_t offset; /* of the piece */
	uint64_t total;  /* answered: bytes of the report */
	uint32_t len;    /* answered: bytes of this piece */
	uint32_t reserved;
	char bytes[12000];
};

/* struct inl_policy, in a form that stays. */
struct inl_ioc_policy {
	uint8_t version, contents_mode, filenames_mode, flags, log2_data_unit_size;
	uint8_t reserved[3];
	uint8_t key[INL_KEY_IDENTIFIER_SIZE];
};

/* A key, for those who cannot reach the socket. */
struct inl_ioc_key {
	uint32_t len;
	uint32_t reserved;
	uint8_t key[INL_MASTER_KEY_MAX];
	uint8_t identifier[INL_KEY_IDENTIFIER_SIZE]; /* answered */
};

/* The key of a number: 0, 1, ... until -ENODATA. */
struct inl_ioc_known {
	uint32_t i;
	uint32_t state, n_busy, n_claims, claimed; /* answered, as the rest */
	uint8_t identifier[INL_KEY_IDENTIFIER_SIZE];
};

#define INL_IOC_COUNTERS _IOR(INL_IOC_MAGIC, 1, struct inl_mount_counters)
#define INL_IOC_SERVER   _IOR(INL_IOC_MAGIC, 2, uint32_t)
#define INL_IOC_REPORT   _IOWR(INL_IOC_MAGIC, 3, struct inl_ioc_report)
#define INL_IOC_SYNC     _IO(INL_IOC_MAGIC, 4)
#define INL_IOC_POLICY   _IOW(INL_IOC_MAGIC, 5, struct inl_ioc_policy)
#define INL_IOC_KEY	 _IOWR(INL_IOC_MAGIC, 6, struct inl_ioc_key)
#define INL_IOC_KNOWN	 _IOWR(INL_IOC_MAGIC, 7, struct inl_ioc_known)

#endif
