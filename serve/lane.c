/*
 * serve/lane.c: threads that serve nobody, for what waits for other requests, one after the other.
 * Not here: what is done there (flush.c, lock.c).
 * Read more: serve/serve.h.
 */
#include "serve/serve.h"
#include <errno.h>

static void *run_lane(void *arg)
{
	struct inl_lane *lane = arg;
	struct inl_mount *mount = lane->mount;

	pthread_mutex_lock(&mount->lock);
	for (;;) {
		struct inl_job *job;

		while (!lane->first && !lane->stop)
			pthread_cond_wait(&lane->wake, &mount->lock);
		job = lane->first;
		if (!job)
			break;
		lane->first = job->next;
		if (!lane->first)
			lane->end = &lane->first;
		pthread_mutex_unlock(&mount->lock);
		job->run(mount, job);
		atomic_fetch_add_explicit(&mount->finished, 1, memory_order_release);
		pthread_mutex_lock(&mount->lock);
	}
	pthread_mutex_unlock(&mount->lock);
	return NULL;
}

int inl_lane_start(struct inl_mount *mount, struct inl_lane *lane)
{
	int err;

	lane->mount = mount;
	lane->end = &lane->first;
	pthread_cond_init(&lane->wake, NULL);
	err = -pthread_create(&lane->thread, NULL, run_lane, lane);
	lane->started = !err;
	return err;
}

void inl_lane_stop(struct inl_mount *mount, struct inl_lane *lane)
{
	if (!lane->started)
		return;
	pthread_mutex_lock(&mount->lock);
	lane->stop = true;
	pthread_cond_broadcast(&lane->wake);
	pthread_mutex_unlock(&mount->lock);
	pthread_join(lane->thread, NULL);
	pthread_mutex_lock(&mount->lock);
	lane->started = false;
	pthread_mutex_unlock(&mount->lock);
	pthread_cond_destroy(&lane->wake);
}

bool inl_lane_add(struct inl_mount *mount, struct inl_lane *lane, struct inl_job *job)
{
	bool added;

	job->next = NULL;
	pthread_mutex_lock(&mount->lock);
	added = lane->started && !lane->stop;
	if (added) {
		*lane->end = job;
		lane->end = &job->next;
		pthread_cond_signal(&lane->wake);
	}
	pthread_mutex_unlock(&mount->lock);
	return added;
}
