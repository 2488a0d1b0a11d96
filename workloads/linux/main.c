/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: the agent's start and its main thread.
 *
 *	agent                      in a guest: everything is found out
 *	agent --port FILE --disk FILE --words 'workload=kv seed=1' --mem MIB --workers N
 *
 * What is given on the command line is not looked for: so it also runs on any Linux, into a file, and
 * the tests do that. In a guest it is told what to do by the kernel's command line, words that begin
 * with AGENT_WORD_PREFIX; besides those of words.c disk=/dev/NAME, workers=N, shell=1.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "workloads/linux/agent.h"

#define REPORT_NS	(250 * MS)
#define CALIBRATE_NS	(20 * MS)
#define CMDLINE_MAX	4096
#define PAGES_PER_MIB	256
#define WORKER_SEED_TAG 0x100

const char platform_name[] = "agent";
const bool platform_bare = false;

void con_put(char c)
{
	putchar(c); /* to the console, line by line */
}

void platform_word(struct guest *g, const char *w, bool *ok)
{
	struct agent *a = g->p->agent;
	uint64_t n;

	if (str_prefix(w, "disk=")) {
		snprintf(a->disk_word, sizeof(a->disk_word), "%s", w + 5);
		*ok = strlen(w + 5) < sizeof(a->disk_word);
	} else if (str_prefix(w, "workers=")) {
		*ok = str_number(w + 8, 0, &n) && n >= 1 && n <= WORKERS_MAX;
		if (*ok)
			a->nworkers = n;
	} else if (str_prefix(w, "shell=")) {
		a->shell = true;
	}
}

const struct workload *platform_workload(const char *name)
{
	(void)name;
	return NULL;
}

void platform_end(struct guest *g, uint64_t code)
{
	struct agent *a = g->p->agent;

	pthread_mutex_lock(&a->lock); /* for good: only one ends */
	port_report(a);
	port_end(&a->port, code);
	boot_end(a, code);
}

void platform_report(struct guest *g)
{
	struct agent *a = g->p->agent;

	pthread_mutex_lock(&a->lock);
	a->ready++;
	pthread_mutex_unlock(&a->lock);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

void agent_sleep(struct guest *g, uint64_t ns)
{
	const struct timespec second = {.tv_sec = 1};
	struct timespec rest;

	port_flush_checked(g->p);
	/* Who sleeps for longer than the host bears silence is well all the same. */
	for (; ns > SECOND; ns -= SECOND) {
		nanosleep(&second, NULL);
		g->report->heartbeat++;
	}
	rest = (struct timespec){.tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND)};
	nanosleep(&rest, NULL);
}

/* The counter's frequency: how far it has come since the start, by the kernel's clock. */
static uint64_t calibrate(uint64_t start_ns, uint64_t start_tsc)
{
	uint64_t ns = now_ns() - start_ns, khz;

	if (ns < CALIBRATE_NS) {
		const struct timespec t = {.tv_nsec = (long)(CALIBRATE_NS - ns)};

		nanosleep(&t, NULL);
		ns = now_ns() - start_ns;
	}
	khz = (uint64_t)(((unsigned __int128)(rdtsc() - start_tsc) * 1000000) / ns);
	return khz < 1000 ? 1000 : khz;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	tsc_init(w->guest, w->agent->tsc_khz);
	guest_run(w->guest);
}

static struct guest *new_guest(struct agent *a)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct platform *p = calloc(1, sizeof(*p));

	if (!g || !p) {
		fprintf(stderr, "agent: out of memory\n");
		boot_end(a, MG_EXIT_MEMORY);
	}
	g->p = p;
	p->agent = a;
	boot_defaults(&g->cfg);
	return g;
}

static void take_words(struct agent *a, struct guest *g)
{
	char line[CMDLINE_MAX] = "";

	if (a->words) {
		boot_words(g, a->words, strlen(a->words) + 1, "");
	} else {
		read_text("/proc/cmdline", line, sizeof(line));
		boot_words(g, line, sizeof(line), AGENT_WORD_PREFIX);
	}
}

/* A worker a CPU, as far as each gets memory enough for a layout. */
static void share_out(struct agent *a)
{
	if (!a->mem_pages)
		a->mem_pages = ram_available();
	if (!a->nworkers) {
		long cpus = sysconf(_SC_NPROCESSORS_ONLN);

		a->nworkers = cpus < 1 ? 1 : cpus > WORKERS_MAX ? WORKERS_MAX : (uint64_t)cpus;
	}
	a->room = a->mem_pages / (2ULL * LAYOUT_MIN_PAGES);
	if (!a->room)
		a->room = 1;
	if (a->nworkers > a->room)
		a->nworkers = a->room;
}

static void start_workers(struct agent *a, struct guest *first)
{
	for (uint64_t i = 0; i < a->nworkers; i++) {
		struct guest *g = i ? new_guest(a) : first;

		if (i) {
			g->cfg = first->cfg;
			g->cfg.seed = gen_key(first->cfg.seed, WORKER_SEED_TAG + i);
			g->cfg.common = gen_key(first->cfg.common, WORKER_SEED_TAG + i);
		}
		g->cfg.part = i;
		g->cfg.parts = a->nworkers;
		a->worker[i] = (struct worker){.agent = a, .guest = g};
	}
	for (uint64_t i = 0; i < a->nworkers; i++)
		if (pthread_create(&a->worker[i].thread, NULL, work, &a->worker[i]))
			guest_fail(first, MG_EXIT_MEMORY, "cannot start worker %u of %u", i + 1,
				   a->nworkers);
}

/* Reports, until somebody asks us to stop. */
static void report_until_signal(struct agent *a, const sigset_t *stop)
{
	const struct timespec pause = {.tv_nsec = REPORT_NS};

	for (;;) {
		bool ready;

		if (sigtimedwait(stop, NULL, &pause) > 0)
			return;
		pthread_mutex_lock(&a->lock);
		ready = a->ready == a->nworkers;
		if (ready)
			port_report(a);
		pthread_mutex_unlock(&a->lock);
		if (ready)
			kinds_step(a);
	}
}

static int usage(const char *what)
{
	fprintf(stderr,
		"agent: %s: usage: agent [--port FILE] [--disk FILE] [--words TEXT] [--mem MIB] "
		"[--workers N]\n",
		what);
	return 2;
}

_Static_assert(WORKERS_MAX == 64, "as is said when --workers makes no sense");

static int parse_options(struct agent *a, int argc, char **argv)
{
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'},	   {"disk", required_argument, NULL, 'd'},
		{"words", required_argument, NULL, 'w'},   {"mem", required_argument, NULL, 'm'},
		{"workers", required_argument, NULL, 'n'}, {0},
	};
	uint64_t n;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'p':
			a->port_path = optarg;
			break;
		case 'd':
			a->disk_path = optarg;
			break;
		case 'w':
			a->words = optarg;
			break;
		case 'm':
			if (!str_number(optarg, 0, &n) || n < 1 || n > 1ULL << 30)
				return usage("--mem takes a number of MiB");
			a->mem_pages = n * PAGES_PER_MIB;
			break;
		case 'n':
			if (!str_number(optarg, 0, &n) || n < 1 || n > WORKERS_MAX)
				return usage("--workers takes 1 to 64");
			a->nworkers = n;
			break;
		default:
			return usage("unknown option, or one without its value");
		}
	}
	return optind < argc ? usage(argv[optind]) : 0;
}

int main(int argc, char **argv)
{
	struct agent *a = calloc(1, sizeof(*a));
	uint64_t start_ns = now_ns(), start_tsc = rdtsc();
	struct guest *g;
	sigset_t stop;
	int r;

	if (!a)
		return 1;
	a->init = getpid() == 1;
	a->port.fd = a->disk_fd = a->pagemap_fd = a->kinds.fd = -1;
	pthread_mutex_init(&a->port.lock, NULL);
	pthread_mutex_init(&a->lock, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	/* The kernel hands what it does not know on its command line to its first process. */
	if (!a->init && (r = parse_options(a, argc, argv)))
		return r;
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	pthread_sigmask(SIG_BLOCK, &stop, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (a->init) {
		boot_mount();
		boot_modules();
	}
	g = new_guest(a);
	if (find_port(a))
		guest_fail(g, MG_EXIT_BOOT,
			   "no port: nothing is called %s in "
			   "/sys/class/virtio-ports",
			   AGENT_PORT_NAME);
	take_words(a, g);
	if (a->init && a->shell)
		boot_shell();
	else if (a->init)
		boot_tidy();
	if (find_disk(a))
		guest_fail(g, MG_EXIT_DISK, "cannot open the disk %s: %s",
			   a->disk_path ? a->disk_path : a->disk_word, strerror(errno));
	a->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	kinds_init(a);
	share_out(a);
	a->tsc_khz = calibrate(start_ns, start_tsc);
	start_workers(a, g);
	report_until_signal(a, &stop);
	platform_end(g, 0);
}
