/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_agent.c: the agent of Linux guests as an ordinary process, with a file as its port and a file as
 * its disk: which frames it sends, that it finds what is wrong in its memory and on its disk, and what
 * it refuses. Needs the folder of the build in OB_BUILD. How it boots is tested where Linux runs.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernel/agent_abi.h"
#include "workloads/common/guest.h"

#define NAME_LEN 320
#define FILES	 48
#define DATA	 700 /* pages of the image's files, at least */
#define MIB	 (1024.0 * 1024.0)

static char dir[] = "/tmp/overbook-agent-XXXXXX";
static char program[NAME_LEN], port[NAME_LEN], disk[NAME_LEN], lines[NAME_LEN];

/* --- the disk ------------------------------------------------------------------------------------- */

static uint64_t data_page; /* of the image that setup has made */

/* An image as mkimage makes it, of FILES files with content that is nowhere else. */
static void make_image(void)
{
	static uint64_t page[PAGE_WORDS];
	uint64_t files[PAGE_WORDS] = {0}, *sums, pages = 0, sum_pages, sum = 0;
	struct image_super sb = {.magic = IMAGE_MAGIC, .version = IMAGE_VERSION, .nfiles = FILES};
	int fd = open(disk, O_RDWR | O_CREAT | O_TRUNC, 0600);

	cr_assert(fd >= 0);
	_Static_assert(FILES * sizeof(struct image_file) <= sizeof(files), "one page of files");
	for (uint64_t i = 0; i < FILES; i++) {
		struct image_file f = {.first = pages, .pages = 1 + i * 7 % 29};

		snprintf(f.name, sizeof(f.name), "file-%" PRIu64, i);
		memcpy((char *)files + i * sizeof(f), &f, sizeof(f));
		pages += f.pages;
	}
	cr_assert(pages > DATA / 2);
	sum_pages = (pages + PAGE_WORDS - 1) / PAGE_WORDS;
	sums = calloc(sum_pages, PAGE_SIZE);
	data_page = 2 + sum_pages;
	for (uint64_t i = 0; i < pages; i++) {
		gen_fill(page, 77, i, 0);
		sums[i] = image_checksum(page);
		cr_assert_eq(pwrite(fd, page, PAGE_SIZE, (off_t)((data_page + i) * PAGE_SIZE)),
			     (ssize_t)PAGE_SIZE);
	}
	sum = image_fold(0, image_checksum(files));
	for (uint64_t i = 0; i < sum_pages; i++)
		sum = image_fold(sum, image_checksum(sums + i * PAGE_WORDS));
	sb.files_page = 1;
	sb.sums_page = 2;
	sb.data_page = data_page;
	sb.data_pages = pages;
	sb.total_pages = data_page + pages;
	sb.super_sum = sum;
	memset(page, 0, sizeof(page));
	memcpy(page, &sb, sizeof(sb));
	cr_assert_eq(pwrite(fd, page, PAGE_SIZE, 0), (ssize_t)PAGE_SIZE);
	cr_assert_eq(pwrite(fd, files, PAGE_SIZE, PAGE_SIZE), (ssize_t)PAGE_SIZE);
	cr_assert_eq(pwrite(fd, sums, sum_pages * PAGE_SIZE, 2 * PAGE_SIZE),
		     (ssize_t)(sum_pages * PAGE_SIZE));
	free(sums);
	close(fd);
}

static void setup(void)
{
	const char *build = getenv("OB_BUILD");

	snprintf(program, sizeof(program), "%s/linux/agent", build ? build : "build");
	if (access(program, X_OK)) {
		program[0] = 0;
		return;
	}
	cr_assert(mkdtemp(dir));
	snprintf(port, sizeof(port), "%s/port", dir);
	snprintf(disk, sizeof(disk), "%s/disk", dir);
	snprintf(lines, sizeof(lines), "%s/lines", dir);
	make_image();
}

static void teardown(void)
{
	if (!program[0])
		return;
	unlink(port);
	unlink(disk);
	unlink(lines);
	rmdir(dir);
}

TestSuite(agent, .init = setup, .fini = teardown);

#define NEED_AGENT()                                                                  \
	do {                                                                          \
		if (!program[0])                                                      \
			cr_skip_test("the agent is not built (OB_BUILD says where)"); \
	} while (0)

/* --- the process ---------------------------------------------------------------------------------- */

/* Start it with @words, @mib of memory and, unless NULL, this disk and @workers. */
static pid_t start(const char *words, unsigned int mib, const char *from, const char *workers)
{
	char mem[16];
	const char *args[16] = {program, "--port", port, "--words", words, "--mem", mem};
	size_t n = 7;
	char *argv[16] = {NULL};
	pid_t pid;

	snprintf(mem, sizeof(mem), "%u", mib);
	if (from) {
		args[n++] = "--disk";
		args[n++] = from;
	}
	args[n++] = "--workers";
	args[n++] = workers ? workers : "1";
	for (size_t i = 0; i < n; i++)
		argv[i] = strdup(args[i]);
	unlink(port);
	pid = fork();
	cr_assert(pid >= 0);
	if (!pid) {
		int fd = open(lines, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when a test is cut short */
		dup2(fd, 1);
		dup2(fd, 2);
		execv(program, argv);
		_exit(127);
	}
	for (size_t i = 0; i < n; i++)
		free(argv[i]);
	return pid;
}

/* Its exit status, after asking it to end with @sig (0: it ends by itself). */
static int finish(pid_t pid, int sig)
{
	int status;

	if (sig)
		cr_assert_eq(kill(pid, sig), 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status), "it ended by a signal");
	return WEXITSTATUS(status);
}

/* --- what it has sent ----------------------------------------------------------------------------- */

struct sent {
	unsigned int reports, lists, mismatches, exits;
	uint64_t checked, unknown, exit_code, mismatch;
	struct agent_report last;
};

static void take(struct sent *s, const struct agent_frame *h, const unsigned char *body)
{
	uint64_t w;

	cr_assert(!s->exits, "nothing follows the exit");
	switch (h->type) {
	case AGENT_FRAME_REPORT:
		cr_assert_eq(h->bytes, sizeof(s->last));
		memcpy(&s->last, body, sizeof(s->last));
		cr_assert_eq(s->last.magic, AGENT_REPORT_MAGIC);
		s->reports++;
		break;
	case AGENT_FRAME_CHECKED:
		cr_assert(h->bytes && h->bytes % 8 == 0);
		for (unsigned int i = 0; i < h->bytes; i += 8) {
			memcpy(&w, body + i, 8);
			cr_assert(w & 0xffff, "an entry of no pages");
			s->checked += w & 0xffff;
			if (w >> 16 == AGENT_GFN_UNKNOWN)
				s->unknown += w & 0xffff;
		}
		s->lists++;
		break;
	case AGENT_FRAME_MISMATCH:
		cr_assert_eq(h->bytes, 8);
		memcpy(&s->mismatch, body, 8);
		s->mismatches++;
		break;
	case AGENT_FRAME_EXIT:
		cr_assert_eq(h->bytes, 8);
		memcpy(&s->exit_code, body, 8);
		s->exits++;
		break;
	default:
		cr_assert_fail("a frame of type %u", h->type);
	}
}

/* Read all whole frames; the last may be on its way. */
static void read_port(struct sent *s)
{
	unsigned char body[AGENT_FRAME_MAX];
	struct agent_frame h;
	FILE *f = fopen(port, "r");

	memset(s, 0, sizeof(*s));
	while (f && fread(&h, sizeof(h), 1, f) == 1) {
		cr_assert_eq(h.magic, AGENT_FRAME_MAGIC);
		cr_assert_leq(h.bytes, AGENT_FRAME_MAX);
		if (fread(body, 1, h.bytes, f) != h.bytes)
			break;
		take(s, &h, body);
	}
	if (f)
		fclose(f);
}

/* The frames from when @done says so. The test's timeout ends it else. */
static void wait_for(struct sent *s, bool (*done)(const struct sent *))
{
	const struct timespec pause = {.tv_nsec = 50 * (long)MS};

	for (read_port(s); !done(s); read_port(s))
		nanosleep(&pause, NULL);
}

static bool works(const struct sent *s)
{
	return s->last.phase == AGENT_WARM && s->reports > 1 &&
	       (s->last.ops > 100 || s->last.checked_pages > s->last.cache_pages + 100);
}

static bool found(const struct sent *s)
{
	return s->last.mismatches > 0 && s->mismatches > 0;
}

static bool warm(const struct sent *s)
{
	return s->last.phase == AGENT_WARM;
}

/* The last line that it printed. */
static void last_line(char *buf, size_t len)
{
	FILE *f = fopen(lines, "r");
	char line[256];

	buf[0] = 0;
	while (f && fgets(line, sizeof(line), f))
		snprintf(buf, len, "%s", line);
	if (f)
		fclose(f);
}

/* --- tests ---------------------------------------------------------------------------------------- */

static void runs(const char *words, bool tells_checked)
{
	pid_t pid = start(words, 8, disk, NULL);
	struct sent s;

	wait_for(&s, works);
	cr_expect_eq(finish(pid, SIGTERM), 0, "%s", words);
	read_port(&s);
	cr_expect_eq(s.exits, 1, "%s", words);
	cr_expect_eq(s.exit_code, 0);
	cr_expect_eq(s.last.mismatches, 0, "%s: at 0x%" PRIx64, words, s.last.mismatch[0].gpa);
	cr_expect_eq(s.mismatches, 0);
	/* What it tells is what it counts, but for what it had gathered when it was stopped. */
	cr_expect_leq(s.checked, s.last.checked_pages, "%s", words);
	cr_expect_eq(s.checked > 0, tells_checked, "%s", words);
	cr_expect(!s.last.area_gpa && !s.last.area_pages, "its area is not in one piece of RAM");
	if (geteuid() == 0)
		cr_expect_eq(s.unknown, 0, "root knows where its pages are");
	else
		cr_expect_eq(s.unknown, s.checked);
}

Test(agent, workloads_of_a_server, .timeout = 120)
{
	NEED_AGENT();
	runs("workload=kv seed=1 common=5", true);
	runs("workload=filecache seed=2 common=5", true);
	runs("workload=churn seed=3 common=5", true);
	runs("workload=idle seed=4 common=5", true);
	runs("workload=steady seed=5 common=5", true);
}

Test(agent, workloads_of_memory, .timeout = 120)
{
	NEED_AGENT();
	runs("workload=unique seed=1", true);
	runs("workload=same seed=1 common=5", true);
	runs("workload=shuffle seed=1 common=5", true);
	runs("workload=cowstorm seed=1 param=1", true);
	runs("workload=counters seed=1", false);
	runs("workload=touch seed=1 param=30", false);
	runs("workload=writer seed=1", false);
	runs("workload=remerge seed=1", false);
}

/* The parts of memory are those of the microguest's layout, and the cache is files of the image. */
Test(agent, memory_is_divided_as_in_the_microguest, .timeout = 120)
{
	struct layout l;
	struct sent s;
	pid_t pid;

	NEED_AGENT();
	pid = start("workload=kv seed=1", 8, disk, NULL);
	wait_for(&s, works);
	cr_assert_eq(finish(pid, SIGTERM), 0);
	/* Two pages are gone before: the report and the super block. */
	cr_assert_eq(layout_divide(&l, 8 * 256 - 2, UINT64_MAX / 2, FILES, 1), 0);
	cr_expect_eq(s.last.heap_pages, l.heap);
	cr_expect_eq(s.last.heap_common_pages, l.heap_common);
	cr_expect_gt(s.last.cache_pages, DATA / 2);
	cr_expect_leq(s.last.cache_pages, l.cache);
	cr_expect_geq(s.last.disk_pages, s.last.cache_pages);
	cr_expect_gt(s.last.free_clean_pages, 0);
	cr_expect_gt(s.last.written_pages, 0);
}

/* Workers share the image's files, and their reports are one. */
Test(agent, workers_share, .timeout = 120)
{
	uint64_t cached, heap;
	struct sent s;
	pid_t pid;

	NEED_AGENT();
	pid = start("workload=filecache seed=1", 32, disk, "1");
	wait_for(&s, works);
	cr_assert_eq(finish(pid, SIGTERM), 0);
	cr_expect_eq(s.last.workers, 1);
	cached = s.last.cache_pages;
	heap = s.last.heap_pages;
	pid = start("workload=filecache seed=1", 32, disk, "2");
	wait_for(&s, works);
	cr_assert_eq(finish(pid, SIGTERM), 0);
	read_port(&s);
	cr_expect_eq(s.last.workers, 2);
	cr_expect_eq(s.last.workers_room, 2);
	cr_expect_eq(s.last.cache_pages, cached, "all files fit, each with one worker");
	cr_expect(s.last.heap_pages + 2 >= heap && s.last.heap_pages <= heap);
	cr_expect_eq(s.last.mismatches, 0);
	cr_expect_eq(s.exit_code, 0);
}

/* As many as a guest may have CPUs, as far as there is memory for each of them. */
Test(agent, a_worker_a_cpu, .timeout = 120)
{
	static const struct {
		unsigned int mib, threads;
	} cases[] = {{20 * 13, 20 + 1}, {20 * 12, 19 + 1}};
	char path[64];
	struct stat st;
	struct sent s;
	pid_t pid;

	NEED_AGENT();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		pid = start("workload=touch seed=1 param=1", cases[i].mib, NULL, "20");
		wait_for(&s, warm);
		snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
		cr_assert_eq(stat(path, &st), 0);
		cr_expect_eq(st.st_nlink - 2, cases[i].threads, "%lu", (unsigned long)st.st_nlink);
		cr_assert_eq(finish(pid, SIGTERM), 0);
		read_port(&s);
		cr_expect_eq(s.last.workers, cases[i].threads - 1);
		cr_expect_eq(s.last.workers_room, i ? 19 : 20);
		cr_expect_eq(s.last.mismatches, 0);
		cr_expect_eq(s.exit_code, 0);
	}
}

/* One of its threads that is not the first: a worker. */
static pid_t worker_of(pid_t pid)
{
	char path[64];
	struct dirent *d;
	pid_t found = 0;
	DIR *dir_of;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir_of = opendir(path);
	cr_assert(dir_of);
	while ((d = readdir(dir_of))) {
		pid_t tid = (pid_t)strtol(d->d_name, NULL, 10);

		if (tid > 0 && tid != pid)
			found = tid;
	}
	closedir(dir_of);
	cr_assert(found);
	return found;
}

/* The last report when so many more have come. */
static struct agent_report later(unsigned int reports)
{
	const struct timespec pause = {.tv_nsec = 50 * (long)MS};
	unsigned int had;
	struct sent s;

	read_port(&s);
	for (had = s.reports; s.reports < had + reports; read_port(&s))
		nanosleep(&pause, NULL);
	return s.last;
}

/* Of two workers, with one held fast the other works, and the guest's heartbeat stands. (This workload tells
 * nothing itself: so who is held never is so while it holds the port.) */
Test(agent, a_worker_that_hangs_shows, .timeout = 120)
{
	struct agent_report before, after;
	struct sent s;
	pid_t pid, tid;

	NEED_AGENT();
	pid = start("workload=touch seed=1 param=30", 32, NULL, "2");
	wait_for(&s, works);
	before = later(4);
	cr_expect_gt(later(8).heartbeat, before.heartbeat);
	tid = worker_of(pid);
	cr_assert_eq(ptrace(PTRACE_SEIZE, tid, NULL, NULL), 0, "%s", strerror(errno));
	cr_assert_eq(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL), 0);
	cr_assert_eq(waitpid(tid, NULL, __WALL), tid);
	before = later(3); /* with what it had done by then */
	after = later(8);
	cr_expect_gt(after.ops, before.ops, "the other goes on");
	cr_expect_eq(after.heartbeat, before.heartbeat);
	cr_assert_eq(ptrace(PTRACE_DETACH, tid, NULL, NULL), 0);
	cr_expect_gt(later(12).heartbeat, after.heartbeat);
	cr_expect_eq(finish(pid, SIGTERM), 0);
}

/* The address of its greatest private anonymous memory, which is what it verifies, and its bytes. */
static uint64_t memory_of(pid_t pid, uint64_t *bytes)
{
	uint64_t from, to, best = 0;
	char path[64], line[512], rest[256];
	FILE *f;

	*bytes = 0;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "r");
	cr_assert(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " rw-p 00000000 00:00 0%255[^\n]", &from,
			   &to, rest) < 2 ||
		    !strstr(line, "rw-p 00000000 00:00 0"))
			continue;
		if (to - from > *bytes) {
			best = from;
			*bytes = to - from;
		}
	}
	fclose(f);
	return best;
}

/* One bit of one word of its memory, behind its back. */
Test(agent, a_flipped_bit_is_found, .timeout = 120)
{
	uint64_t at, bytes, word;
	char path[64];
	struct sent s;
	pid_t pid;
	int fd;

	NEED_AGENT();
	pid = start("workload=cowstorm param=9999 seed=1", 12, NULL, NULL);
	wait_for(&s, warm);
	at = memory_of(pid, &bytes);
	cr_assert_geq(bytes, 11 * MIB); /* and a thread has a stack of 8 */
	at += bytes / 2 / PAGE_SIZE * PAGE_SIZE + 8 * sizeof(word);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, O_RDWR);
	cr_assert(fd >= 0, "%s", strerror(errno));
	cr_assert_eq(pread(fd, &word, sizeof(word), (off_t)at), (ssize_t)sizeof(word));
	word ^= 1ULL << 17;
	cr_assert_eq(pwrite(fd, &word, sizeof(word), (off_t)at), (ssize_t)sizeof(word));
	close(fd);
	wait_for(&s, found);
	cr_expect_eq(finish(pid, SIGTERM), 0, "it goes on, and can be asked to end");
	cr_expect_eq(s.last.mismatch[0].got, word);
	cr_expect_eq(s.last.mismatch[0].expect, word ^ 1ULL << 17);
	cr_expect_eq(s.last.mismatch[0].kind, AGENT_KIND_AREA);
	cr_expect_eq(s.last.mismatch[0].gpa, s.mismatch);
	if (geteuid() == 0)
		cr_expect_eq(s.mismatch % PAGE_SIZE, at % PAGE_SIZE);
	else
		cr_expect_eq(s.mismatch, UINT64_MAX);
}

/* The page cache is the kernel's own: what changes there shows. */
Test(agent, a_changed_page_of_the_cache_is_found, .timeout = 120)
{
	struct sent s;
	pid_t pid;
	int fd;

	NEED_AGENT();
	pid = start("workload=kv seed=1", 8, disk, NULL);
	wait_for(&s, warm);
	fd = open(disk, O_WRONLY);
	cr_assert_eq(pwrite(fd, "!", 1, (off_t)(data_page * PAGE_SIZE + 100)), 1);
	close(fd);
	wait_for(&s, found);
	cr_expect_eq(finish(pid, SIGTERM), 0);
	cr_expect_eq(s.last.mismatch[0].kind, AGENT_KIND_CACHE);
}

/* It ends by itself, with this code, a frame that says so, and a line that begins so. */
static void refuses(const char *words, unsigned int mib, const char *from, enum mg_exit code,
		    const char *text)
{
	pid_t pid = start(words, mib, from, NULL);
	char line[256];
	struct sent s;

	cr_expect_eq(finish(pid, 0), (int)code, "%s", words);
	read_port(&s);
	cr_expect(s.exits == 1 && s.exit_code == code, "%s", words);
	last_line(line, sizeof(line));
	cr_expect(!strncmp(line, "agent: ", 7) && strstr(line, text), "%s: %s", words, line);
}

Test(agent, what_it_refuses, .timeout = 120)
{
	char other[NAME_LEN];

	NEED_AGENT();
	refuses("workload=nonsense", 8, NULL, MG_EXIT_WORKLOAD, "no workload is called nonsense");
	refuses("workload=ping", 8, NULL, MG_EXIT_WORKLOAD, "of the microguest only");
	refuses("workload=hostile-spin", 8, NULL, MG_EXIT_WORKLOAD, "no workload");
	refuses("workload=idle param=1", 8, NULL, MG_EXIT_WORKLOAD, "takes no parameter");
	refuses("workload=touch param=101", 8, NULL, MG_EXIT_WORKLOAD, "from 0 to 100");
	refuses("seed=x", 8, NULL, MG_EXIT_BOOT, "cannot make sense of seed=x");
	refuses("workers=99", 8, NULL, MG_EXIT_BOOT, "cannot make sense of workers=99");
	refuses("workload=filecache", 8, NULL, MG_EXIT_DISK, "needs a disk");
	refuses("workload=filecache", 8, "/nonexistent", MG_EXIT_DISK, "cannot open the disk");
	refuses("workload=filecache", 8, lines, MG_EXIT_IMAGE, "the disk");
	refuses("workload=idle", 4, NULL, MG_EXIT_MEMORY, "too little");
	/* Cut in the middle: its super block promises more than there is. */
	snprintf(other, sizeof(other), "%s", disk);
	cr_assert_eq(truncate(other, (off_t)(8 * PAGE_SIZE)), 0);
	refuses("workload=filecache", 8, other, MG_EXIT_IMAGE, "makes no sense");
}

Test(agent, usage, .timeout = 120)
{
	static const char *const bad[][2] = {
		{"--mem", "0"},	     {"--mem", "x"}, {"--workers", "65"},
		{"--nonsense", "1"}, {"more", "x"},
	};

	NEED_AGENT();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char cmd[3 * NAME_LEN];
		int status;

		snprintf(cmd, sizeof(cmd), "%s %s %s >%s 2>&1", program, bad[i][0], bad[i][1],
			 lines);
		status = system(cmd);
		cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 2, "%s %s", bad[i][0],
			  bad[i][1]);
		last_line(cmd, sizeof(cmd));
		cr_expect(strstr(cmd, "usage: agent"), "%s", cmd);
	}
}
