/*
 * protect/costs.c: what Argon2 should cost here: what this machine does in a given time, with the memory it has.
 * Not here: limits for what others have made (hash.c).
 * Read more: RFC 9106, 4; cgroups(7).
 */
#include "protect/private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LANES_MAX 16
#define SHARE     8 /* of the memory: an eighth */
#define MORE      3 /* passes: enough to tell what each takes */

/* The number in a file; UINT64_MAX: there is none, or "max". */
static uint64_t read_number(const char *root, const char *folder, const char *file)
{
	char path[1024], line[64] = "";
	uint64_t number = 0;
	FILE *f;

	if (snprintf(path, sizeof(path), "%s/sys/fs/cgroup%s/%s", root, folder, file) >= (int)sizeof(path))
		return UINT64_MAX;
	f = fopen(path, "re");
	if (!f)
		return UINT64_MAX;
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	return inl_number_parse(line, strcspn(line, "\n"), &number) ? UINT64_MAX : number;
}

/* The least of a group and those above it. */
static uint64_t group_limit(const char *root, const char *controller, char *group, const char *file)
{
	uint64_t limit = UINT64_MAX;
	char folder[768];

	for (;;) {
		char *slash = strrchr(group, '/');
		uint64_t here;

		snprintf(folder, sizeof(folder), "%s%s", controller, group);
		here = read_number(root, folder, file);
		if (here < limit)
			limit = here;
		if (!slash)
			return limit;
		*slash = '\0';
	}
}

/* A line of /proc/self/cgroup: "0::/a/b", or "4:memory:/a/b" of the older kind. */
static uint64_t line_limit(const char *root, char *line)
{
	char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;

	if (!group || strlen(group) > 512)
		return UINT64_MAX;
	*group++ = '\0';
	group[strcspn(group, "\n")] = '\0';
	controllers++;
	if (!*controllers)
		return group_limit(root, "", group, "memory.max");
	if (!strcmp(controllers, "memory"))
		return group_limit(root, "/memory", group, "memory.limit_in_bytes");
	return UINT64_MAX;
}

uint64_t inl_memory_here(const char *root)
{
	uint64_t pages = (uint64_t)sysconf(_SC_PHYS_PAGES), limit = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	char path[1024], line[1024];
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		uint64_t here = line_limit(root, line);

		if (here < limit)
			limit = here;
	}
	if (f)
		fclose(f);
	return limit;
}

/* The shortest of some times: what else the machine is doing should not make a passphrase weaker. */
static int measure(const struct inl_hash_costs *costs, int tries, uint64_t *ns)
{
	static const uint8_t salt[INL_SALT_SIZE];
	uint8_t out[INL_PROTECTOR_KEY_SIZE];
	uint64_t least = UINT64_MAX;
	int err = 0;

	for (int i = 0; i < tries && !err; i++) {
		uint64_t start = inl_now_ns(), took;

		err = inl_hash("measured", 8, salt, costs, out);
		took = inl_now_ns() - start;
		least = took < least ? took : least;
	}
	*ns = least + !least;
	return err;
}

/* The first pass is one of its own: the system makes the memory that it goes over. */
static int count_passes(uint64_t target_ns, uint64_t first_ns, struct inl_hash_costs *costs)
{
	uint64_t ns = 0, each;
	int err;

	costs->time = MORE;
	err = measure(costs, 1, &ns);
	each = !err && ns > first_ns ? (ns - first_ns) / (MORE - 1) : first_ns;
	costs->time = 1 + (target_ns - first_ns) / (each ? each : 1);
	if (costs->time > INL_HASH_TIME_MAX)
		costs->time = INL_HASH_TIME_MAX;
	return err;
}

int inl_hash_costs_here(uint64_t target_ns, struct inl_hash_costs *costs)
{
	uint64_t memory = inl_memory_here("") / SHARE / 1024, ns = 0;
	struct inl_hash_costs here = { .time = 1 };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int err;

	here.parallelism = cpus < 1 ? 1 : cpus > LANES_MAX ? LANES_MAX : (uint64_t)cpus;
	here.memory = memory < INL_HASH_MEMORY_MAX ? memory : INL_HASH_MEMORY_MAX;
	if (here.memory < 8 * here.parallelism)
		here.memory = 8 * here.parallelism;
	/* Rather less memory than much longer; also where there is less than it seems. */
	while ((err = measure(&here, 2, &ns)) == -ENOMEM || (!err && ns > target_ns)) {
		if (here.memory / 2 < 8 * here.parallelism)
			break;
		here.memory /= 2;
	}
	if (err)
		return err;
	if (ns < target_ns / 2)
		err = count_passes(target_ns, ns, &here);
	if (!err)
		*costs = here;
	return err;
}
