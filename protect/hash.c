/*
 * protect/hash.c: keys made of passphrases: Argon2id, and what it may cost.
 * Not here: which costs are good for new protectors (costs.c).
 * Read more: RFC 9106.
 */
#include "protect/private.h"
#include <argon2.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREADS_MAX 16

int inl_hash_check(const struct inl_hash_costs *costs, const struct inl_hash_limits *limits, struct inl_diag *diag)
{
	uint64_t memory = limits && limits->memory ? limits->memory : INL_HASH_MEMORY_MAX;

	if (costs->memory > memory || costs->memory > UINT32_MAX)
		return inl_diag_set(diag, -E2BIG, "wants %ju KiB of memory for its passphrase: the limit is %ju KiB",
				    (uintmax_t)costs->memory, (uintmax_t)memory);
	if (costs->parallelism > INL_HASH_LANES_MAX)
		return inl_diag_set(diag, -E2BIG, "wants %ju lanes for its passphrase: the limit is %u",
				    (uintmax_t)costs->parallelism, INL_HASH_LANES_MAX);
	if (costs->time > INL_HASH_TIME_MAX || costs->time * costs->memory > INL_HASH_WORK_MAX * memory)
		return inl_diag_set(diag, -E2BIG,
				    "wants %ju passes over %ju KiB for its passphrase: the limit is %u passes, %ju KiB in all",
				    (uintmax_t)costs->time, (uintmax_t)costs->memory, INL_HASH_TIME_MAX,
				    (uintmax_t)(INL_HASH_WORK_MAX * memory));
	return 0;
}

/* Memory of its own, which is given back to the system, and in no core dump. */
static int allocate(uint8_t **memory, size_t len)
{
	void *bytes = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (bytes == MAP_FAILED)
		return ARGON2_MEMORY_ALLOCATION_ERROR;
	madvise(bytes, len, MADV_DONTDUMP);
	*memory = bytes;
	return ARGON2_OK;
}

/* The library wipes, unless it was told at run time not to; whoever gives pages back does not rely on that. */
static void release(uint8_t *memory, size_t len)
{
	inl_wipe(memory, len);
	munmap(memory, len);
}

static uint32_t n_threads(uint64_t lanes)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t n = cpus < 1 ? 1 : cpus > THREADS_MAX ? THREADS_MAX : (uint64_t)cpus;

	return (uint32_t)(n < lanes ? n : lanes);
}

int inl_hash(const void *secret, size_t len, const uint8_t salt[INL_SALT_SIZE], const struct inl_hash_costs *costs,
	     uint8_t *out)
{
	argon2_context context = {
		.out = out,
		.outlen = INL_PROTECTOR_KEY_SIZE,
		.pwd = (uint8_t *)secret, /* not changed without ARGON2_FLAG_CLEAR_PASSWORD */
		.pwdlen = (uint32_t)len,
		.salt = (uint8_t *)salt,
		.saltlen = INL_SALT_SIZE,
		.t_cost = (uint32_t)costs->time,
		.m_cost = (uint32_t)costs->memory,
		.lanes = (uint32_t)costs->parallelism,
		.threads = n_threads(costs->parallelism),
		.version = ARGON2_VERSION_13,
		.allocate_cbk = allocate,
		.free_cbk = release,
		.flags = ARGON2_DEFAULT_FLAGS,
	};

	switch (argon2id_ctx(&context)) {
	case ARGON2_OK:
		return 0;
	case ARGON2_MEMORY_ALLOCATION_ERROR:
	case ARGON2_THREAD_FAIL:
		return -ENOMEM;
	default:
		return -EINVAL;
	}
}
