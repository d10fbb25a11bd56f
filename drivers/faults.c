/*
 * drivers/faults.c: parsing rules of faults, and deciding which of them an event matches.
 * Not here: what a fault does (drivers/fault.c, drivers/engine.c).
 * Read more: drivers/faults.h.
 */
#include "drivers/faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_MAX (UINT64_C(3600) * 1000000000)

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

/* A part of the text. */
struct span {
	const char *at;
	size_t len;
};

/* What comes before the first byte `end`; *rest is what follows it. false: there is no such byte, all of it is before. */
static bool cut(struct span text, char end, struct span *before, struct span *rest)
{
	const char *at = text.len ? memchr(text.at, end, text.len) : NULL;

	*before = text;
	*rest = (struct span){ text.at + text.len, 0 };
	if (!at)
		return false;
	before->len = (size_t)(at - text.at);
	*rest = (struct span){ at + 1, text.len - before->len - 1 };
	return true;
}

int inl_time_parse(const char *text, size_t len, uint64_t *ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = { { "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", 1000000000 } };
	size_t n_digits = 0;
	uint64_t value;
	int err;

	while (n_digits < len && text[n_digits] >= '0' && text[n_digits] <= '9')
		n_digits++;
	err = inl_number_parse(text, n_digits, &value);
	if (err)
		return err;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strlen(units[i].name) != len - n_digits || memcmp(text + n_digits, units[i].name, len - n_digits))
			continue;
		if (__builtin_mul_overflow(value, units[i].ns, &value) || value > NS_MAX)
			return -ERANGE;
		*ns = value;
		return 0;
	}
	return -EINVAL;
}

/* N, N..M or *. */
static int parse_events(struct span text, struct inl_fault_rule *rule)
{
	struct span first, last;

	if (text.len == 1 && *text.at == '*') {
		rule->first = 1;
		rule->last = UINT64_MAX;
		return 0;
	}
	if (!cut(text, '.', &first, &last))
		last = first;
	else if (last.len && *last.at == '.')
		last = (struct span){ last.at + 1, last.len - 1 };
	else
		return -EINVAL;
	if (inl_number_parse(first.at, first.len, &rule->first) ||
	    inl_number_parse(last.at, last.len, &rule->last) || !rule->first ||
	    rule->last < rule->first)
		return -EINVAL;
	return 0;
}

static int parse_value(struct span text, struct inl_fault_rule *rule)
{
	if (!text.len || text.len >= sizeof(rule->value) || memchr(text.at, '\0', text.len))
		return -EINVAL;
	memcpy(rule->value, text.at, text.len);
	return 0;
}

/* Into a rule that is all zero. */
static int parse_rule(struct span text, const struct inl_fault_word *words, struct inl_fault_rule *rule)
{
	struct span head, value, word, events;
	bool has_value = cut(text, '=', &head, &value);
	bool has_events = cut(head, '@', &word, &events);

	while (words[rule->what].name &&
	       (strlen(words[rule->what].name) != word.len || memcmp(words[rule->what].name, word.at, word.len)))
		rule->what++;
	if (!words[rule->what].name)
		return -EINVAL;
	if (has_events)
		rule->form = has_value ? INL_FAULT_EVENTS_VALUE : INL_FAULT_EVENTS;
	else
		rule->form = has_value ? INL_FAULT_VALUE : INL_FAULT_BARE;
	if (!(words[rule->what].forms & rule->form) || (has_events && parse_events(events, rule)) ||
	    (has_value && parse_value(value, rule)))
		return -EINVAL;
	return 0;
}

static int bad_rule(struct span text, const struct inl_fault_word *words, struct inl_diag *diag)
{
	char known[384] = "";
	size_t used = 0;

	for (unsigned i = 0; words[i].name && used < sizeof(known); i++)
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", words[i].usage);
	return inl_diag_set(diag, -EINVAL, "rule '%.*s': expected one of %s", text.len < 32 ? (int)text.len : 32,
			    text.at, known);
}

int inl_faults_parse(const char *text, size_t len, const struct inl_fault_word *words, struct inl_diag *diag,
		     struct inl_fault_rule rules[INL_FAULT_RULES_MAX], unsigned *n_rules)
{
	struct inl_fault_rule found[INL_FAULT_RULES_MAX];
	struct span rest = { text, len }, one;
	unsigned n = 0;
	bool more = true;

	while (more) {
		more = cut(rest, '+', &one, &rest);
		if (n == INL_FAULT_RULES_MAX)
			return inl_diag_set(diag, -EINVAL, "more than %d rules", INL_FAULT_RULES_MAX);
		memset(&found[n], 0, sizeof(found[n]));
		if (parse_rule(one, words, &found[n++]))
			return bad_rule(one, words, diag);
	}
	memcpy(rules, found, n * sizeof(found[0]));
	*n_rules = n;
	return 0;
}

/* ---- rules at work ----------------------------------------------------------------------------------------------- */

struct active {
	struct inl_fault_rule rule;
	uint64_t base; /* events of its word before it was added */
};

struct inl_faults {
	_Atomic uint64_t n_events[INL_FAULT_WORDS_MAX];
	atomic_uint n_active;  /* written under the lock; a look without it tells whether there is anything to do */
	pthread_mutex_t lock;  /* active */
	struct active active[INL_FAULT_RULES_MAX];
};

int inl_faults_new(struct inl_faults **out)
{
	struct inl_faults *faults = calloc(1, sizeof(*faults));

	if (!faults)
		return -ENOMEM;
	pthread_mutex_init(&faults->lock, NULL);
	*out = faults;
	return 0;
}

void inl_faults_free(struct inl_faults *faults)
{
	if (!faults)
		return;
	pthread_mutex_destroy(&faults->lock);
	free(faults);
}

static bool has_events(const struct inl_fault_rule *rule)
{
	return rule->form & (INL_FAULT_EVENTS | INL_FAULT_EVENTS_VALUE);
}

/* Can it never match again? */
static bool is_over(struct inl_faults *faults, const struct active *active)
{
	return has_events(&active->rule) &&
	       atomic_load(&faults->n_events[active->rule.what]) - active->base >= active->rule.last;
}

/* Returns how many rules remain. */
static unsigned drop_over(struct inl_faults *faults)
{
	unsigned n = atomic_load(&faults->n_active), kept = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!is_over(faults, &faults->active[i]))
			faults->active[kept++] = faults->active[i];
	}
	atomic_store(&faults->n_active, kept);
	return kept;
}

int inl_faults_add(struct inl_faults *faults, const struct inl_fault_rule *rules, unsigned n_rules)
{
	unsigned n;

	pthread_mutex_lock(&faults->lock);
	n = atomic_load(&faults->n_active);
	if (n_rules > INL_FAULT_RULES_MAX - n)
		n = drop_over(faults);
	if (n_rules > INL_FAULT_RULES_MAX - n) {
		pthread_mutex_unlock(&faults->lock);
		return -ENOSPC;
	}
	/* The number first: whoever counts an event from here on waits for the lock and sees the rules. */
	atomic_store(&faults->n_active, n + n_rules);
	for (unsigned i = 0; i < n_rules; i++) {
		faults->active[n + i].rule = rules[i];
		faults->active[n + i].base = atomic_load(&faults->n_events[rules[i].what]);
	}
	pthread_mutex_unlock(&faults->lock);
	return 0;
}

void inl_faults_clear(struct inl_faults *faults)
{
	pthread_mutex_lock(&faults->lock);
	atomic_store(&faults->n_active, 0);
	pthread_mutex_unlock(&faults->lock);
}

static bool matches(const struct active *active, unsigned what, uint64_t nth)
{
	uint64_t n = nth - active->base;

	/* nth <= base: another thread counted this event before the rule was there. */
	return active->rule.what == what && has_events(&active->rule) && nth > active->base && n >= active->rule.first &&
	       n <= active->rule.last;
}

unsigned inl_faults_event(struct inl_faults *faults, unsigned what, struct inl_fault_rule *out, unsigned max)
{
	uint64_t nth = atomic_fetch_add(&faults->n_events[what], 1) + 1;
	unsigned n, filled = 0;

	if (!atomic_load(&faults->n_active))
		return 0;
	pthread_mutex_lock(&faults->lock);
	n = atomic_load(&faults->n_active);
	for (unsigned i = 0; i < n && filled < max; i++) {
		if (matches(&faults->active[i], what, nth))
			out[filled++] = faults->active[i].rule;
	}
	pthread_mutex_unlock(&faults->lock);
	return filled;
}

unsigned inl_faults_values(struct inl_faults *faults, unsigned what, struct inl_fault_rule *out, unsigned max)
{
	unsigned n, filled = 0;

	if (!atomic_load(&faults->n_active))
		return 0;
	pthread_mutex_lock(&faults->lock);
	n = atomic_load(&faults->n_active);
	for (unsigned i = 0; i < n && filled < max; i++) {
		const struct inl_fault_rule *rule = &faults->active[i].rule;

		if (rule->what == what && rule->form == INL_FAULT_VALUE)
			out[filled++] = *rule;
	}
	pthread_mutex_unlock(&faults->lock);
	return filled;
}
