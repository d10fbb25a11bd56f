/*
 * drivers/faults.h: rules of what shall go wrong, and when: the language of faults, and counting events against it.
 * Not here: what a fault does (drivers/fault.c, drivers/engine.c).
 * Read more: doc/inlay.1, "DEVICES".
 *
 *	rules  = rule { "+" rule }
 *	rule   = WORD [ "@" events ] [ "=" value ]
 *	events = N | N ".." M | "*"          the N-th from now, from 1; the N-th to M-th; all
 *	value  = anything but "+"
 */
#ifndef INLAY_DRIVERS_FAULTS_H
#define INLAY_DRIVERS_FAULTS_H

#include <inlay/base.h>

#define INL_FAULT_RULES_MAX 32 /* of one text, and at work at the same time */
#define INL_FAULT_WORDS_MAX 16
#define INL_FAULT_VALUE_MAX 48 /* bytes, the NUL included */

/* How a rule is written. */
enum inl_fault_form {
	INL_FAULT_BARE = 1,	    /* reset */
	INL_FAULT_VALUE = 2,	    /* latency=100us */
	INL_FAULT_EVENTS = 4,	    /* io@4, io@4..7, io@* */
	INL_FAULT_EVENTS_VALUE = 8, /* write@3=EIO */
};

/* A word of a driver's language. A table of these ends at a NULL name; its indices are the kinds of events and rules. */
struct inl_fault_word {
	const char *name;
	unsigned forms;	   /* of enum inl_fault_form */
	const char *usage; /* for the text of an error: "io@N" */
};

struct inl_fault_rule {
	unsigned what; /* index in the table of words */
	enum inl_fault_form form;
	uint64_t first, last;		 /* events, from 1; "*": 1 and UINT64_MAX; without events both 0 */
	char value[INL_FAULT_VALUE_MAX]; /* as written; "": none */
	unsigned action;		 /* these two: what the driver makes of the value; 0 from the parser */
	uint64_t number[2];
};

/*
 * Parse rules. A function of the bytes alone.
 *
 *   text   len bytes; need not end in NUL
 *   rules  in the order of the text
 *
 * Returns: 0; -EINVAL (the text of diag says which rule, and what it should be).
 */
int inl_faults_parse(const char *text, size_t len, const struct inl_fault_word *words, struct inl_diag *diag,
		     struct inl_fault_rule rules[INL_FAULT_RULES_MAX], unsigned *n_rules);

/* "100us": digits and ns, us, ms or s. Returns 0; -EINVAL; -ERANGE (more than an hour). */
int inl_time_parse(const char *text, size_t len, uint64_t *ns);

/* ---- rules at work ------------------------------------------------------------------------------------------------ */

struct inl_faults;
int inl_faults_new(struct inl_faults **out);	 /* 0 or -ENOMEM */
void inl_faults_free(struct inl_faults *faults); /* NULL is fine */

/*
 * Add rules, behind those that are there. They count from now on. Rules that are over make room.
 *
 * Returns: 0; -ENOSPC (no room for all of them: none was added).
 * Threads: any, as for all functions below.
 */
int inl_faults_add(struct inl_faults *faults, const struct inl_fault_rule *rules, unsigned n_rules);

void inl_faults_clear(struct inl_faults *faults); /* no more rules */

/*
 * The next event of this kind has come: which rules with events of the same word does it match?
 *
 *   out    room for max rules; filled in the order of the rules: out[0] is the first in the list
 *
 * Returns: how many were filled. Without rules this is one atomic addition.
 */
unsigned inl_faults_event(struct inl_faults *faults, unsigned what, struct inl_fault_rule *out, unsigned max);

/* The rules of this word without events (form VALUE), in their order. Returns how many were filled. */
unsigned inl_faults_values(struct inl_faults *faults, unsigned what, struct inl_fault_rule *out, unsigned max);

#endif
