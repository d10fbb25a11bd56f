/*
 * fuzz/fuzz_rules.c: fuzz target of the language of faults: the parser, and what the drivers make of values.
 * Not here: what a fault does to I/O (tests/unit/test_faults.c).
 * Read more: drivers/faults.h.
 */
#include "drivers/faults.h"
#include <errno.h>
#include <inlay/block.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                 \
	do {                                                                        \
		if (!(cond)) {                                                      \
			fprintf(stderr, "line %d: %s is false\n", __LINE__, #cond); \
			abort();                                                    \
		}                                                                   \
	} while (0)

static const struct inl_fault_word words[] = {
	{ "reset", INL_FAULT_BARE | INL_FAULT_EVENTS, "reset@N" },
	{ "io", INL_FAULT_EVENTS, "io@N" },
	{ "write", INL_FAULT_EVENTS_VALUE, "write@N=ERRNO" },
	{ "delay", INL_FAULT_VALUE, "delay=TIME" },
	{ NULL, 0, NULL },
};

static void print_rules(FILE *out, const struct inl_fault_rule *rules, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct inl_fault_rule *rule = &rules[i];

		CHECK(rule->what < 4 && words[rule->what].forms & rule->form);
		CHECK(strlen(rule->value) < INL_FAULT_VALUE_MAX);
		fprintf(out, "%s%s", i ? "+" : "", words[rule->what].name);
		if (rule->form & (INL_FAULT_EVENTS | INL_FAULT_EVENTS_VALUE)) {
			CHECK(rule->first >= 1 && rule->first <= rule->last);
			if (rule->first == 1 && rule->last == UINT64_MAX)
				fputs("@*", out);
			else
				fprintf(out, "@%llu..%llu", (unsigned long long)rule->first,
					(unsigned long long)rule->last);
		}
		if (rule->form & (INL_FAULT_VALUE | INL_FAULT_EVENTS_VALUE))
			fprintf(out, "=%s", rule->value);
	}
}

/* Printed and parsed again, rules are the same. */
static void round_trip(const char *text, size_t len)
{
	struct inl_fault_rule rules[INL_FAULT_RULES_MAX], again[INL_FAULT_RULES_MAX];
	unsigned n = 0, n_again = 0;
	struct inl_diag diag = { 0 };
	char *printed = NULL;
	size_t printed_len = 0;
	int err = inl_faults_parse(text, len, words, &diag, rules, &n);
	FILE *out;

	if (err) {
		CHECK(err == -EINVAL && diag.text[0]);
		return;
	}
	CHECK(n <= INL_FAULT_RULES_MAX);
	out = open_memstream(&printed, &printed_len);
	CHECK(out);
	print_rules(out, rules, n);
	CHECK(!fclose(out));
	CHECK(!inl_faults_parse(printed, printed_len, words, NULL, again, &n_again) && n == n_again);
	for (unsigned i = 0; i < n; i++)
		CHECK(rules[i].what == again[i].what && rules[i].first == again[i].first && rules[i].last == again[i].last &&
		      !strcmp(rules[i].value, again[i].value));
	free(printed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct inl_dev *dev;
	struct inl_diag diag;
	char *text;

	if (!dev)
		CHECK(!inl_dev_open("fault(engine(ram(64K)))", 0, NULL, &dev));
	round_trip((const char *)data, size);
	text = strndup((const char *)data, size);
	CHECK(text);
	for (unsigned i = 0; i < 2; i++) {
		struct inl_dev *target = inl_dev_find(dev, i ? "engine" : "fault");
		int err;

		diag = (struct inl_diag){ 0 };
		err = inl_dev_control(target, text, &diag);
		CHECK(err <= 0 && (!err || diag.text[0]));
		CHECK(!inl_dev_control(target, "clear", NULL));
	}
	free(text);
	return 0;
}
