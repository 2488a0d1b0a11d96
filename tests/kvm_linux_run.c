/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_linux_run.c: PCs as a person runs them: a kernel that he brings, its console, how it ends, and
 * that one which fails does not take the others with it. With a kernel of our own that takes no time
 * to boot (tiny_linux.h); Linux itself is booted in the lab.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/doctor.h"
#include "tests/cli.h"
#include "tests/tiny_linux.h"

/* Run `@verb --kernel TINY --mem 16M @args`. */
static void run(struct cli *c, const char *verb, const char *args)
{
	char path[64], line[512];

	tiny_file(path, sizeof(path));
	snprintf(line, sizeof(line), "%s --kernel %s --mem 16M --control none %s", verb, path,
		 args);
	cli_run(c, line, true, 60);
	unlink(path);
}

static const json_t *guest(const struct cli *c, size_t i)
{
	const json_t *g = json_array_get(json_object_get(cli_run_of(c, 0), "guest_list"), i);

	cr_assert(g, "no guest %zu:\n%s%s", i, c->out, c->err);
	return g;
}

/* Does a line of the console's end hold @says? */
static bool tail_has(const json_t *g, const char *says)
{
	const json_t *line;
	size_t i;

	json_array_foreach (json_object_get(g, "console_tail"), i, line)
		if (strstr(json_string_value(line), says))
			return true;
	return false;
}

Test(linux_run, ends_when_the_guest_powers_off, .timeout = 90)
{
	const json_t *config;
	struct cli c;

	NEED_KVM();
	run(&c, "run", "--append tiny=o");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_assert(strstr(c.out, "tiny kernel up\n"), "%s", c.out);
	cr_assert_str_eq(cli_str(guest(&c, 0), "end"), "exit");
	cr_assert(json_is_null(json_object_get(guest(&c, 0), "console_tail")));
	config = json_object_get(c.result, "config");
	cr_assert_str_eq(cli_str(config, "guest"), "linux");
	cr_assert_str_eq(cli_str(config, "agent"), "none");
	cr_assert_str_eq(cli_str(config, "append"), "tiny=o");
	cr_assert_str_eq(cli_str(config, "kernel_version"), TINY_VERSION);
	cr_assert(json_is_null(json_object_get(config, "initrd")));
	cr_assert(json_is_null(json_object_get(config, "seconds")));
	cli_free(&c);
}

/* Read what is on the terminal until it holds @says. */
static void expect(int fd, char *got, size_t n, const char *says)
{
	size_t have = strlen(got);

	while (!strstr(got, says)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t r;

		cr_assert_eq(poll(&p, 1, 30000), 1, "waiting for '%s': %s", says, got);
		r = read(fd, got + have, n - 1 - have);
		cr_assert(r > 0 && have + (size_t)r < n - 1, "'%s' did not come: %s", says, got);
		have += (size_t)r;
		got[have] = '\0';
	}
}

Test(linux_run, the_terminal_is_the_guests, .timeout = 90)
{
	char program[600], kernel[64], got[4096] = "";
	int fd, status;
	pid_t pid;

	NEED_KVM();
	tiny_file(kernel, sizeof(kernel));
	snprintf(program, sizeof(program), "%s/overbook", cli_build());
	pid = forkpty(&fd, NULL, NULL, NULL);
	cr_assert_geq(pid, 0);
	if (!pid) {
		execl(program, "overbook", "run", "--kernel", kernel, "--mem", "16M", "--append",
		      "tiny=e", "--control", "none", (char *)NULL);
		_exit(127);
	}
	expect(fd, got, sizeof(got), "tiny kernel up");
	/* Not line by line, and what the terminal would take for itself as well. */
	cr_assert_eq(write(fd, "x\032\034y", 4), 4);
	expect(fd, got, sizeof(got), "x\032\034y");
	cr_assert_eq(write(fd, "q", 1), 1);
	expect(fd, got, sizeof(got), "status ok");
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "%x", (unsigned int)status);
	close(fd);
	unlink(kernel);
}

Test(linux_run, several_vcpus, .timeout = 90)
{
	struct cli c;

	NEED_KVM();
	run(&c, "run", "--append tiny=o --vcpus 3");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_assert_eq(cli_num(json_object_get(c.result, "config"), "vcpus", NULL), 3);
	cli_free(&c);
}

Test(linux_run, ends_after_its_time, .timeout = 90)
{
	struct cli c;

	NEED_KVM();
	run(&c, "run", "--append tiny=h --seconds 1");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_assert_str_eq(cli_str(guest(&c, 0), "end"), "running");
	cli_free(&c);
}

Test(linux_run, a_reboot_is_counted_and_no_end, .timeout = 90)
{
	struct cli c;

	NEED_KVM();
	run(&c, "run", "--append tiny=r");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_assert_eq(cli_num(guest(&c, 0), "reboots", NULL), 1);
	cr_assert_str_eq(cli_str(guest(&c, 0), "end"), "exit");
	cli_free(&c);
}

Test(linux_run, a_panic_is_told_with_the_end_of_the_console, .timeout = 90)
{
	const json_t *g;
	struct cli c;

	NEED_KVM();
	/* The others go on: one powers off, one runs until its time is over. */
	run(&c, "fleet", "--guests 4 --cell 2 --append tiny=hpot --seconds 2 --quiet");
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	cr_assert_str_eq(cli_str(cli_run_of(&c, 0), "status"), "degraded");
	cr_assert_str_eq(cli_str(guest(&c, 0), "end"), "running");
	cr_assert_str_eq(cli_str(guest(&c, 2), "end"), "exit");
	cr_assert_str_eq(cli_str(guest(&c, 3), "end"), "failed");
	g = guest(&c, 1);
	cr_assert_str_eq(cli_str(g, "end"), "failed");
	cr_assert(strstr(cli_str(g, "reason"), "tiny test"), "%s", cli_str(g, "reason"));
	cr_assert(tail_has(g, "first line") && tail_has(g, "Kernel panic - not syncing"));
	cr_assert(strstr(c.err, "| first line\n"), "%s", c.err);
	cli_free(&c);
}

Test(linux_run, a_guest_that_does_not_boot_in_time_is_ended, .timeout = 90)
{
	struct cli c;

	NEED_KVM();
	/* With a workload there must be an agent, and here is none. */
	run(&c, "fleet", "--guests 2 --append tiny=hs --workload idle --boot-timeout 2 --quiet");
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	for (size_t i = 0; i < 2; i++)
		cr_assert(strstr(cli_str(guest(&c, i), "reason"), "did not boot: its agent"), "%s",
			  c.err);
	cr_assert(tail_has(guest(&c, 0), "tiny kernel up"));
	cli_free(&c);
}

/* Without a word of the agent's it is no good end, as it is without an agent; a reboot is none at all. */
Test(linux_run, a_guest_that_powers_off_says_why_if_it_has_an_agent, .timeout = 90)
{
	struct cli c;

	NEED_KVM();
	run(&c, "fleet", "--guests 3 --append tiny=orh --workload idle --boot-timeout 3 --quiet");
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	for (size_t i = 0; i < 2; i++) {
		cr_assert_str_eq(cli_str(guest(&c, i), "end"), "failed");
		cr_assert_str_eq(cli_str(guest(&c, i), "reason"),
				 "powered off, its agent has not said why");
		cr_assert(tail_has(guest(&c, i), "tiny kernel up"));
	}
	cr_assert(strstr(cli_str(guest(&c, 2), "reason"), "did not boot"), "%s", c.err);
	cli_free(&c);
}

Test(linux_run, a_silent_console_is_remarked_on, .timeout = 90)
{
	struct cli c;

	NEED_KVM();
	run(&c, "fleet", "--guests 2 --append tiny=sh --boot-timeout 1 --seconds 3 --quiet");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_assert(strstr(c.err, "guest 0 has written nothing"), "%s", c.err);
	cr_assert(!strstr(c.err, "guest 1 has written nothing"), "%s", c.err);
	cr_assert(strstr(cli_str(guest(&c, 0), "remark"), "console=ttyS0"));
	cli_free(&c);
}

/* How often does @text hold @says? */
static unsigned int count(const char *text, const char *says)
{
	unsigned int n = 0;

	for (; (text = strstr(text, says)); text += strlen(says))
		n++;
	return n;
}

Test(linux_run, a_console_that_falls_silent_is_remarked_on_once, .timeout = 90)
{
	struct cli c;

	NEED_KVM();
	/* The second one has reset before. */
	run(&c, "fleet", "--guests 3 --append tiny=hbo --boot-timeout 1 --seconds 5 --quiet");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	for (size_t i = 0; i < 2; i++) {
		const json_t *g = guest(&c, i);

		cr_assert_str_eq(cli_str(g, "end"), "running", "it goes on");
		cr_assert(strstr(cli_str(g, "remark"), "nothing more on its console for 1 s"), "%s",
			  cli_str(g, "remark"));
		cr_assert(!!strstr(cli_str(g, "remark"), "after a reset") == (i == 1));
		cr_assert(tail_has(g, "tiny kernel up"));
	}
	cr_assert_eq(count(c.err, "guest 0 has said nothing"), 1, "%s", c.err);
	cr_assert_eq(count(c.err, "guest 1 has said nothing"), 1, "%s", c.err);
	cr_assert_eq(count(c.err, "the end of the console of guest 0"), 1, "%s", c.err);
	cr_assert(strstr(c.err, "| tiny kernel up\n"), "%s", c.err);
	cr_assert(strstr(c.out, "guest 0 (none) running"), "the table has it too: %s", c.out);
	cr_assert(json_is_null(json_object_get(guest(&c, 2), "remark")));
	cli_free(&c);
}

Test(linux_run, silence_at_the_end_of_a_short_run_is_remarked_on, .timeout = 90)
{
	struct cli c;

	NEED_KVM();
	run(&c, "fleet", "--guests 3 --append tiny=sho --seconds 8 --quiet");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_assert(strstr(cli_str(guest(&c, 0), "remark"), "has written nothing"), "%s", c.err);
	cr_assert(strstr(cli_str(guest(&c, 1), "remark"), "nothing more on its console"), "%s",
		  c.err);
	cr_assert(tail_has(guest(&c, 1), "tiny kernel up"));
	cr_assert_eq(count(c.err, "guest 1 has said nothing"), 1, "%s", c.err);
	cr_assert(json_is_null(json_object_get(guest(&c, 2), "remark")), "it has powered off");
	cli_free(&c);
}

Test(linux_run, a_guest_is_measured_once_it_has_said_that_it_is_ready, .timeout = 90)
{
	const json_t *r, *config;
	struct cli c;

	NEED_KVM();
	run(&c, "fleet",
	    "--guests 3 --append tiny=lol --ready login: --boot-timeout 30 "
	    "--seconds 2 --quiet");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert(strstr(cli_str(r, "note"), "when all were ready"), "%s", cli_str(r, "note"));
	cr_assert_str_eq(cli_str(guest(&c, 0), "end"), "running");
	cr_assert_str_eq(cli_str(guest(&c, 1), "end"), "exit", "one less to wait for");
	cr_assert_str_eq(cli_str(guest(&c, 2), "end"), "running");
	cr_assert(json_is_null(json_object_get(guest(&c, 0), "remark")), "it is known to be up");
	config = json_object_get(c.result, "config");
	cr_assert_str_eq(cli_str(config, "ready"), "login:");
	cli_free(&c);
	/* Ready, and gone before anybody has looked. */
	run(&c, "run", "--append tiny=o --ready kernel");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_assert_str_eq(cli_str(guest(&c, 0), "end"), "exit");
	cli_free(&c);
	run(&c, "run", "--append tiny=o --ready login:");
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	cr_assert(strstr(c.err, "no guest came up: it powered off"), "%s", c.err);
	cli_free(&c);
}

Test(linux_run, a_guest_that_does_not_say_that_it_is_ready_is_ended, .timeout = 90)
{
	const json_t *g;
	struct cli c;

	NEED_KVM();
	/* One hangs, one is silent, one resets for ever: the first and the last go on. */
	run(&c, "fleet",
	    "--guests 5 --cell 2 --append tiny=lhsal --ready login: --boot-timeout 3 "
	    "--seconds 1 --quiet");
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	cr_assert_str_eq(cli_str(cli_run_of(&c, 0), "status"), "degraded");
	cr_assert_str_eq(cli_str(guest(&c, 0), "end"), "running");
	cr_assert_str_eq(cli_str(guest(&c, 4), "end"), "running");
	g = guest(&c, 1);
	cr_assert_str_eq(cli_str(g, "end"), "failed");
	cr_assert_str_eq(cli_str(g, "reason"), "did not boot: has not said 'login:' in 3 s");
	cr_assert(tail_has(g, "tiny kernel up"));
	cr_assert(strstr(c.err, "the end of the console of guest 1:\n  | tiny kernel up\n"), "%s",
		  c.err);
	cr_assert(strstr(cli_str(guest(&c, 2), "reason"), "nor anything else"), "%s", c.err);
	cr_assert(strstr(cli_str(guest(&c, 3), "reason"), "and has reset "), "%s", c.err);
	cli_free(&c);
}

Test(linux_run, a_second_boot_is_waited_for_as_the_first, .timeout = 90)
{
	const json_t *g;
	struct cli c;

	NEED_KVM();
	run(&c, "fleet",
	    "--guests 2 --append tiny=bl --ready login: --boot-timeout 3 --seconds 6 "
	    "--quiet");
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	g = guest(&c, 0);
	cr_assert_eq(cli_num(g, "reboots", NULL), 1);
	cr_assert_str_eq(cli_str(g, "reason"), "did not boot again: has not said 'login:' in 3 s");
	cr_assert(tail_has(g, "tiny login:"), "the console goes on over a reset");
	cr_assert_str_eq(cli_str(guest(&c, 1), "end"), "running");
	cli_free(&c);
}

Test(linux_run, doctor_says_which_guests_run_here)
{
	static const struct {
		enum kvm_mode mode;
		enum doctor_state state;
		const char *says;
	} cases[] = {
		{KVM_MODE_TDP, DOCTOR_OK, "at full speed"},
		{KVM_MODE_SHADOW, DOCTOR_NOTE, "shadows"},
		{KVM_MODE_SOFTWARE, DOCTOR_NOTE, "no VMX or SVM"},
	};
	struct doctor d = {0};
	int fd;

	NEED_KVM();
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	for (size_t i = 0; i < OB_ARRAY_SIZE(cases); i++) {
		d.n = 0;
		doctor_guests(&d, fd, cases[i].mode, "/no/such/overbook");
		cr_assert_eq(d.n, 3);
		cr_expect_str_eq(d.check[0].name, "microguest");
		cr_expect_eq(d.check[0].state, DOCTOR_OK);
		cr_expect_str_eq(d.check[1].name, "linux guests");
		cr_expect_eq(d.check[1].state, cases[i].state);
		cr_expect(strstr(d.check[1].found, cases[i].says), "%s", d.check[1].found);
		cr_expect_eq(d.check[2].state, DOCTOR_NOTE);
		cr_expect(strstr(d.check[2].advice, "make linux"));
	}
	close(fd);
	d.n = 0;
	doctor_guests(&d, -1, KVM_MODE_TDP, "/no/such/overbook");
	cr_expect_eq(d.check[0].state, DOCTOR_LACK);
	cr_expect_eq(d.check[1].state, DOCTOR_LACK, "whatever the mode");
	cr_expect(strstr(d.check[1].found, "IRQCHIP"), "%s", d.check[1].found);
	cr_expect(strstr(d.check[1].found, "MP_STATE"), "what a PC is made with: %s",
		  d.check[1].found);
}
