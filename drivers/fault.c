/*
 * drivers/fault.c: a device before another one, on which reads, writes and flushes go wrong when they are told to.
 * Not here: how rules are written and counted (drivers/faults.h).
 * Read more: doc/inlay.1, "DEVICES".
 *
 *	read@N=WHAT write@N=WHAT flush@N=WHAT discard@N=WHAT zero@N=WHAT
 *	WHAT = ERRNO | "torn:" SIZE | "drop" | "delay:" TIME [ ".." TIME ]
 *	delay=TIME[..TIME]      every bio; the last one counts
 *	bad=POS..POS            these bytes, without the last: reading, writing and zeroing them fails with EIO
 *	clear                   the rules before this one are no more
 */
#include "drivers/drivers.h"
#include "drivers/faults.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first are the numbers of enum inl_op. */
enum word { WORD_READ, WORD_WRITE, WORD_FLUSH, WORD_DISCARD, WORD_ZERO, WORD_DELAY, WORD_BAD, WORD_CLEAR };

static const struct inl_fault_word words[] = {
	[WORD_READ] = { "read", INL_FAULT_EVENTS_VALUE, "read@N=ERRNO|delay:TIME" },
	[WORD_WRITE] = { "write", INL_FAULT_EVENTS_VALUE, "write@N=ERRNO|torn:SIZE|drop|delay:TIME" },
	[WORD_FLUSH] = { "flush", INL_FAULT_EVENTS_VALUE, "flush@N=ERRNO|drop|delay:TIME" },
	[WORD_DISCARD] = { "discard", INL_FAULT_EVENTS_VALUE, "discard@N=ERRNO|drop|delay:TIME" },
	[WORD_ZERO] = { "zero", INL_FAULT_EVENTS_VALUE, "zero@N=ERRNO|drop|delay:TIME" },
	[WORD_DELAY] = { "delay", INL_FAULT_VALUE, "delay=TIME" },
	[WORD_BAD] = { "bad", INL_FAULT_VALUE, "bad=POS..POS" },
	[WORD_CLEAR] = { "clear", INL_FAULT_BARE, "clear" },
	{ NULL },
};

_Static_assert((int)WORD_READ == INL_READ && (int)WORD_WRITE == INL_WRITE && (int)WORD_FLUSH == INL_FLUSH &&
		       (int)WORD_DISCARD == INL_DISCARD && (int)WORD_ZERO == INL_ZERO,
	       "an operation is the number of its word");

/*
 * What is to become of a bio; from 1, for 0 is the stage of a bio that was not judged yet. The verdict is kept there while
 * the bio is delayed, with a number: of FAIL the errno, of TORN the sectors that reach the medium.
 */
enum action { PASS = 1, FAIL, TORN, DROP, DELAY };

#define ACTION_BITS  3
#define SECTOR	     512u /* bytes; every block size is a multiple */
#define VERDICT_MAX  (UINT32_MAX >> ACTION_BITS)

struct fault {
	struct inl_faults *rules;
	_Atomic uint64_t n_drawn;
};

/* ---- rules ------------------------------------------------------------------------------------------------------- */

/* What the block layer of Linux knows of errors, and what a file may answer. */
static const struct {
	const char *name;
	int err;
} errnos[] = {
	{ "EIO", EIO }, { "ENOSPC", ENOSPC }, { "ENOMEM", ENOMEM }, { "EROFS", EROFS }, { "ENXIO", ENXIO },
	{ "ENODEV", ENODEV }, { "EBUSY", EBUSY }, { "EINVAL", EINVAL }, { "ENODATA", ENODATA }, { "EILSEQ", EILSEQ },
	{ "ENOLINK", ENOLINK }, { "EREMOTEIO", EREMOTEIO }, { "ETIMEDOUT", ETIMEDOUT }, { "EOPNOTSUPP", EOPNOTSUPP },
};

static int find_errno(const char *name)
{
	for (size_t i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++) {
		if (!strcmp(errnos[i].name, name))
			return errnos[i].err;
	}
	return 0;
}

/* What follows a prefix, or NULL. */
static const char *after(const char *text, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(text, prefix, len) ? NULL : text + len;
}

static int parse_one(const char *text, size_t len, bool is_time, uint64_t *out)
{
	return is_time ? inl_time_parse(text, len, out) : inl_size_parse(text, len, out);
}

/* A..B; out[0] <= out[1]. */
static int parse_range(const char *text, bool is_time, uint64_t out[2])
{
	const char *dots = strstr(text, "..");

	if (!dots)
		return -EINVAL;
	if (parse_one(text, (size_t)(dots - text), is_time, &out[0]) ||
	    parse_one(dots + 2, strlen(dots + 2), is_time, &out[1]) || out[0] > out[1])
		return -EINVAL;
	return 0;
}

static int parse_delay(struct inl_fault_rule *rule, const char *text)
{
	int err = 0;

	rule->action = DELAY;
	if (strstr(text, ".."))
		return parse_range(text, true, rule->number);
	err = inl_time_parse(text, strlen(text), &rule->number[0]);
	rule->number[1] = rule->number[0];
	return err;
}

/* The value of a rule with events. */
static int parse_action(struct inl_fault_rule *rule)
{
	const char *text;

	text = after(rule->value, "delay:");
	if (text)
		return parse_delay(rule, text);
	text = rule->what == WORD_WRITE ? after(rule->value, "torn:") : NULL;
	if (text) {
		rule->action = TORN;
		return inl_size_parse(text, strlen(text), &rule->number[0]);
	}
	if (rule->what != WORD_READ && !strcmp(rule->value, "drop")) {
		rule->action = DROP;
		return 0;
	}
	rule->action = FAIL;
	rule->number[0] = (uint64_t)find_errno(rule->value);
	return rule->number[0] ? 0 : -EINVAL;
}

static int parse_rule(struct inl_fault_rule *rule)
{
	switch ((enum word)rule->what) {
	case WORD_CLEAR:
		return 0;
	case WORD_DELAY:
		return parse_delay(rule, rule->value);
	case WORD_BAD:
		return parse_range(rule->value, false, rule->number) || rule->number[0] == rule->number[1] ? -EINVAL : 0;
	default:
		return parse_action(rule);
	}
}

static int add_rules(struct fault *fault, const char *text, struct inl_diag *diag)
{
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX];
	unsigned n, first = 0;
	int err = inl_faults_parse(text, strlen(text), words, diag, rules, &n);

	if (err)
		return err;
	for (unsigned i = 0; i < n; i++) {
		if (parse_rule(&rules[i]))
			return inl_diag_set(diag, -EINVAL, "rule %u, '%s=%s': expected %s", i + 1,
					    words[rules[i].what].name, rules[i].value, words[rules[i].what].usage);
		if (rules[i].what == WORD_CLEAR)
			first = i + 1;
	}
	if (first)
		inl_faults_clear(fault->rules);
	err = inl_faults_add(fault->rules, rules + first, n - first);
	return err ? inl_diag_set(diag, err, "more than %d rules at work", INL_FAULT_RULES_MAX) : 0;
}

/* ---- judging a bio ----------------------------------------------------------------------------------------------- */

/* A time within the range; not the same each time, but in each run the same ones. */
static uint64_t draw(struct fault *fault, const uint64_t range[2])
{
	uint64_t x;

	if (range[0] == range[1])
		return range[0];
	/* splitmix64 */
	x = atomic_fetch_add(&fault->n_drawn, 1) * UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	x ^= x >> 31;
	return range[0] + x % (range[1] - range[0] + 1);
}

static bool touches_bad(struct fault *fault, const struct inl_bio *bio)
{
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX];
	uint64_t pos = bio->state.pos;
	unsigned n;

	if (bio->op != INL_READ && bio->op != INL_WRITE && bio->op != INL_ZERO)
		return false;
	n = inl_faults_values(fault->rules, WORD_BAD, rules, INL_FAULT_RULES_MAX);
	for (unsigned i = 0; i < n; i++) {
		if (pos < rules[i].number[1] && pos + bio->len > rules[i].number[0])
			return true;
	}
	return false;
}

/* How much of a torn write arrives: whole blocks, and of a keyed bio whole data units. */
static uint64_t torn_len(const struct inl_dev *dev, const struct inl_bio *bio, uint64_t len)
{
	uint64_t whole = inl_dev_block_size(dev);

	if (inl_bio_kind(bio) == INL_BIO_KEYED && inl_key_config(inl_bio_key(bio))->data_unit_size > whole)
		whole = inl_key_config(inl_bio_key(bio))->data_unit_size;
	if (len > bio->len)
		len = bio->len;
	return len / whole * whole;
}

static unsigned verdict(enum action action, uint64_t number)
{
	return (unsigned)action | (unsigned)(number < VERDICT_MAX ? number : VERDICT_MAX) << ACTION_BITS;
}

static unsigned verdict_of(const struct inl_dev *dev, const struct inl_bio *bio, const struct inl_fault_rule *rule)
{
	if (rule->action == TORN)
		return verdict(TORN, torn_len(dev, bio, rule->number[0]) / SECTOR);
	return verdict((enum action)rule->action, rule->number[0]);
}

static uint64_t delay_of_all(struct fault *fault)
{
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX];
	unsigned n = inl_faults_values(fault->rules, WORD_DELAY, rules, INL_FAULT_RULES_MAX);

	return n ? draw(fault, rules[n - 1].number) : 0;
}

/* Count the bio. All delays that it meets add up, of the other rules the first is the verdict. */
static unsigned judge(struct inl_dev *dev, const struct inl_bio *bio, uint64_t *delay)
{
	struct fault *fault = inl_dev_priv(dev);
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX];
	unsigned n = inl_faults_event(fault->rules, (unsigned)bio->op, rules, INL_FAULT_RULES_MAX);
	unsigned result = 0;

	*delay = delay_of_all(fault);
	for (unsigned i = 0; i < n; i++) {
		if (rules[i].action == DELAY)
			*delay += draw(fault, rules[i].number);
		else if (!result)
			result = verdict_of(dev, bio, &rules[i]);
	}
	if (result)
		return result;
	return touches_bad(fault, bio) ? verdict(FAIL, EIO) : verdict(PASS, 0);
}

static void execute(struct inl_dev *dev, struct inl_bio *bio, unsigned stage)
{
	struct inl_dev *child = inl_dev_child(dev, 0);
	uint64_t number = stage >> ACTION_BITS;

	switch ((enum action)(stage & ((1u << ACTION_BITS) - 1))) {
	case FAIL:
		inl_bio_end(bio, -(int)number);
		break;
	case TORN:
		inl_submit_torn(child, bio, bio->state.pos, number * SECTOR, -EIO);
		break;
	case DROP:
		inl_bio_end(bio, 0);
		break;
	default:
		inl_submit_below(child, bio, bio->state.pos);
		break;
	}
}

static void submit(struct inl_dev *dev, struct inl_bio *bio)
{
	unsigned *stage = inl_bio_stage(bio);
	uint64_t delay;

	if (!*stage) {
		*stage = judge(dev, bio, &delay);
		if (delay) {
			inl_bio_again_at(bio, inl_now_ns() + delay);
			return;
		}
	}
	execute(dev, bio, *stage);
}

static int control(struct inl_dev *dev, const char *command, struct inl_diag *diag)
{
	return add_rules(inl_dev_priv(dev), command, diag);
}

/* ---- open, close ------------------------------------------------------------------------------------------------- */

static void fault_free(struct fault *fault)
{
	if (fault)
		inl_faults_free(fault->rules);
	free(fault);
}

static void close_fault(struct inl_dev *dev)
{
	fault_free(inl_dev_priv(dev));
}

static const struct inl_dev_ops ops = {
	.name = "fault",
	.submit = submit,
	.close = close_fault,
	.control = control,
};

static int fault_new(struct fault **out)
{
	struct fault *fault = calloc(1, sizeof(*fault));

	if (!fault || inl_faults_new(&fault->rules)) {
		fault_free(fault);
		return -ENOMEM;
	}
	*out = fault;
	return 0;
}

/* The rules of the SPEC, which are also the label. */
static int add_args(struct fault *fault, const struct inl_arg *arg, char *label, size_t size, struct inl_diag *diag)
{
	size_t used = 0;

	for (; arg; arg = arg->next) {
		struct inl_diag why = { 0 };
		int err = add_rules(fault, arg->text, &why);

		if (err)
			return inl_spec_error(diag, err, arg->column, "%s", why.text);
		if (used < size)
			used += (size_t)snprintf(label + used, size - used, "%s%s", used ? "+" : "", arg->text);
	}
	return 0;
}

int inl_fault_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out)
{
	struct inl_dev_params params = { .n_children = 1 };
	struct inl_dev *child;
	struct fault *fault = NULL;
	char label[256] = "";
	int err = inl_spec_open_child(spec, "device", flags, diag, &child);

	if (err)
		return err;
	err = fault_new(&fault);
	if (err) {
		inl_diag_set(diag, err, "out of memory");
		goto fail;
	}
	err = add_args(fault, inl_spec_arg(spec, "rule"), label, sizeof(label), diag);
	if (err)
		goto fail;
	params.size = inl_dev_size(child);
	params.block_size = inl_dev_block_size(child);
	params.writable = inl_dev_writable(child);
	params.label = label;
	params.children = &child;
	err = inl_dev_new(&ops, fault, &params, out);
	if (err) {
		inl_diag_set(diag, err, "fault: cannot make the device");
		goto fail;
	}
	return 0;
fail:
	fault_free(fault);
	inl_dev_close(child);
	return err;
}
