/*
 * cli/signals.c: being told to stop.
 * Not here: what is left unfinished then (cli/get.c, cli/load.c).
 * Read more: sigaction(2).
 */
#include "cli/cli.h"
#include <signal.h>
#include <stdatomic.h>

static atomic_bool interrupted;

static void on_signal(int number)
{
	atomic_store(&interrupted, true);
}

void inl_cli_catch_signals(bool once)
{
	static const int numbers[] = { SIGHUP, SIGINT, SIGTERM };
	struct sigaction old, action = { .sa_handler = on_signal, .sa_flags = once ? (int)SA_RESETHAND : 0 };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (!sigaction(numbers[i], NULL, &old) && old.sa_handler != SIG_IGN)
			sigaction(numbers[i], &action, NULL);
	}
}

bool inl_cli_interrupted(void)
{
	return atomic_load_explicit(&interrupted, memory_order_relaxed);
}
