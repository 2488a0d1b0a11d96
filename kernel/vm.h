/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.h: KVM, virtual machines and their vCPUs.
 *
 * Each vCPU has a thread. It is in one of few states (enum vcpu_state) and the protocol between it
 * and whoever parks it is in vcpu.c. Parking is counted: a VM runs only while nobody parks it.
 */
#ifndef OVERBOOK_KERNEL_VM_H
#define OVERBOOK_KERNEL_VM_H

#include "kernel/agent_abi.h"
#include "kernel/boot.h"
#include "kernel/device.h"
#include "kernel/mem.h"

/* How this host's KVM maps guest memory. */
enum kvm_mode {
	KVM_MODE_UNKNOWN,
	KVM_MODE_TDP,	   /* nested paging: EPT or NPT */
	KVM_MODE_SHADOW,   /* VMX or SVM without it: KVM shadows the guest's page tables */
	KVM_MODE_SOFTWARE, /* no hardware virtualization below KVM */
};
const char *kvm_mode_name(enum kvm_mode m);
/* From /proc/cpuinfo and the modules' parameters, as far as they tell. */
enum kvm_mode kvm_mode_detect(void);

struct kvm {
	int fd;
	unsigned int run_size; /* of struct kvm_run's mapping */
	void *cpuid;	       /* struct kvm_cpuid2, what this KVM supports */
};

#define KVM_ADVICE_MAX 200
/* What somebody who may not open the device @path is to do about it, as a command. Returns @buf. */
const char *kvm_access_advice(const char *path, char *buf, size_t n);
int kvm_open(struct kvm *k, struct ob_err *e);
void kvm_close(struct kvm *k);

/* --- pc.c ----------------------------------------------------------------------------------- */

#define PC_LACKS_MAX 100
/* Does the KVM of @fd, /dev/kvm or a VM, lack what a PC takes from it? The names of that, each behind a blank,
 * into @buf. */
bool pc_lacks(int fd, char *buf, size_t n);

/* --- vm.c -------------------------------------------------------------------------------- */

enum vm_state {
	VM_CREATED,
	VM_RUNNING,
	VM_STOPPED, /* its vCPU has ended, see vm->end */
};

enum vm_end {
	VM_END_NONE,
	VM_END_ASKED,  /* stopped from outside */
	VM_END_EXIT,   /* the guest said it was done */
	VM_END_FAILED, /* the guest misbehaved: reason says how */
};

#define VM_MAX_DISKS 5 /* and a port, and an entropy device: at most ACPI_MAX_VIRTIO in all */
#define VM_MAX_VCPUS 64

struct vm_config {
	unsigned int id; /* in the whole fleet */
	uint64_t mem_bytes;
	uint64_t slot_bytes; /* most in one memory slot, multiple of 2 MiB; 0: a slot a region */
	bool huge;	     /* RAM is to be of huge pages: gmem_huge */
	/* A PC, for kernels that know nothing of us: interrupt controllers and timer (in KVM), ACPI,
	 * several vCPUs, power-off and reset. Else the bare machine of our own guest, which has one
	 * vCPU, no interrupts, and all its devices on the command line. */
	bool pc;
	unsigned int vcpus; /* 0 is 1; more for a PC only */
	/* The kernel's file in memory (boot.h), and the initrd's: for a PC, which may reboot, they
	 * are there as long as the VM; else they may be freed after vm_create. */
	const void *kernel;
	size_t kernel_len;
	const void *initrd; /* NULL: none */
	size_t initrd_len;
	const char *cmdline; /* for our own guest, devices are appended */
	struct {
		int fd; /* raw image (virtio_blk_init). Not owned. */
	} disk[VM_MAX_DISKS];
	unsigned int ndisks; /* for our own guest at most 1 */
	bool agent_port;     /* PC: the agent's port (agent_port.c) */
	bool rng;	     /* PC: a virtio entropy device */
	int console_fd;	     /* -1: dropped. Not owned. */
	struct io_worker *worker;
};

/* What our own agent tells us, through the agent device (agent.c) or its port (agent_port.c). */
struct agent {
	struct vm *vm;
	struct agent_port *port;     /* NULL: it has none, but the device */
	_Atomic uint64_t report_gpa; /* 0: not told yet */
	_Atomic uint64_t checked_pages;
	_Atomic uint64_t checked_shared; /* of those, shared at that moment */
	_Atomic uint64_t mismatches;
	uint64_t panic2;
	/* Of the pages [page, page + n), how many are shared right now? Set by the cell. NULL:
	 * none. Called on a vCPU's thread or the I/O worker, with nothing locked. */
	uint64_t (*count_shared)(void *arg, uint64_t page, uint64_t n);
	void *count_arg;
	/* What the guest says its pages are, enum agent_page_kind, [mem.pages]: the cell's memory, set
	 * before the guest runs, written from then on (agent_port.c). NULL: nobody asks. */
	uint8_t *kinds;
};
extern const struct bus_ops agent_bus_ops;
/*
 * The agent says that it has just verified pages: gfn << 16 | number. At most *@look of them are looked
 * at, whether they are shared, and *@look is less by those. What lies outside RAM ends the VM; then
 * false. One thread at a time.
 */
bool agent_checked(struct agent *a, uint64_t value, uint64_t *look);
/* Copy the guest's report; false when there is none (or it is not believable). Any thread. */
bool agent_read_report(struct agent *a, struct agent_report *out);

/* --- agent_port.c: an agent that is a program under Linux --------------------------------- */

/* Puts frames (agent_abi.h) together from the stream of a port and does what they say. */
struct agent_port {
	struct agent *agent;
	uint8_t buf[sizeof(struct agent_frame) + AGENT_FRAME_MAX]; /* of the frame under way */
	size_t fill;
	bool deaf;		    /* it has ended, or made no sense: nothing is listened to */
	_Atomic uint64_t frames;    /* that were understood */
	struct ob_mutex lock;	    /* all below */
	struct agent_report report; /* the last one */
	bool has_report;
};

/* What the port of a virtio_console calls, with a struct agent_port as its argument. */
extern const struct virtio_console_ops agent_port_ops;
/* @a->vm is set; makes @p the port of @a. Before the guest runs. */
void agent_port_init(struct agent_port *p, struct agent *a);
/* The VM was reset: the report and the kinds of the agent before are gone; its counters stay. After the console was
 * reset. Any thread. */
void agent_port_reset(struct agent_port *p);
void agent_port_exit(struct agent_port *p);

struct vcpu;
struct pc;

/* KVM's log of a guest's writes (dirty.c): how it is used here, and what it has cost. */
struct vm_log {
	uint64_t manual; /* KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE and INITIALLY_SET, as granted */
	_Atomic uint64_t collects, pages;	   /* logs read, and pages found in them */
	_Atomic uint64_t get_ns, clear_ns, clears; /* clears: calls of KVM_CLEAR_DIRTY_LOG */
	_Atomic uint64_t switches, switch_ns;	   /* slots switched on or off */
};

/* What it boots, for the next time as well. */
struct vm_boot {
	struct boot_image image;
	const void *kernel, *initrd; /* not owned; see struct vm_config */
	size_t kernel_len, initrd_len;
	char *cmdline;		     /* owned */
	_Atomic unsigned int resets; /* how often it was reset and booted anew */
};

struct vm {
	struct kvm *kvm;
	struct ob_host *host;
	unsigned int id;
	int fd;
	struct gmem mem;
	struct vm_log log;
	struct bus mmio, pio;
	struct serial serial;
	struct virtio_blk disk[VM_MAX_DISKS];
	unsigned int ndisks;
	struct agent agent;
	struct pc *pc;	   /* NULL: our own guest's machine */
	struct vcpu *vcpu; /* [nvcpus] */
	unsigned int nvcpus;
	_Atomic unsigned int nrunning; /* vCPU threads that have not ended */
	struct vm_boot boot;
	_Atomic int state;
	_Atomic uint32_t park_depth; /* the VM runs only while this is 0 */
	_Atomic uint32_t park_seq;   /* a futex: changes when parked vCPUs are to look again */
	_Atomic uint32_t wake_latch; /* a futex: a device has something for a sleeping guest */
	_Atomic bool stop;	     /* vCPUs are to end */
	struct ob_mutex end_lock;    /* end, reason, exit_code */
	enum vm_end end;
	int exit_code;
	char reason[200];
	uint64_t started_ns;
};

/*
 * Make a VM: RAM, devices, kernel loaded, boot data written, vCPU set to its PVH entry. Does not
 * run yet. On error nothing is left behind, @e says what was wrong.
 */
int vm_create(struct vm **out, struct kvm *kvm, struct ob_host *host, const struct vm_config *cfg,
	      struct ob_err *e);
/* Start the vCPU threads. Once. */
int vm_start(struct vm *vm, struct ob_err *e);
/* Ask it to stop and return at once: for many VMs, ask all, then stop each. */
void vm_ask_stop(struct vm *vm);
/* Stop from outside and join the threads; a no-op for one that has stopped. Not from a vCPU. */
void vm_stop(struct vm *vm);
/*
 * The devices let go of guest memory, for good: what they had under way is over, and nothing begins.
 * For whoever takes memory away before vm_destroy. The VM has stopped. Twice is no harm.
 */
void vm_detach(struct vm *vm);
void vm_destroy(struct vm *vm);

/*
 * Park: when it returns, no vCPU of @vm runs guest code or emulates an access, and none will until
 * the matching vm_unpark. Nests; any thread but a vCPU's. Devices' DMA goes on (see gmem_access).
 */
void vm_park(struct vm *vm);
void vm_unpark(struct vm *vm);

/* End @vm with a reason. From any thread, also its own vCPU's; the first reason stays. */
void vm_fail(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void vm_exit(struct vm *vm, int code);
/* A device has something for the guest: ends its sleep. */
void vm_wake(struct vm *vm);
/* CPU time that the vCPU threads have used. */
uint64_t vm_cpu_ns(struct vm *vm);
/* The CPU that its first vCPU last ran on; -1: not known. Any thread. */
int vm_cpu(struct vm *vm);

/*
 * Load what it boots into its memory, and set its first vCPU to the entry. No vCPU of it runs. At the
 * start, and after a reset.
 */
int vm_boot(struct vm *vm, struct ob_err *e);

/* --- regs.c ------------------------------------------------------------------------------ */

/* All of a vCPU's state that decides how it translates addresses (Intel SDM, volume 3A, 4.1). */
struct vcpu_paging {
	uint64_t cr0, cr3, cr4, efer;
	unsigned int maxphyaddr; /* bits of a physical address that it was told of, 32 to 52 */
	bool has_1g;		 /* 1 GB pages */
	bool has_pdpte;		 /* pdpte says what the CPU holds (PAE paging only) */
	uint64_t pdpte[4];
};

/*
 * Read it from vCPU @index of @vm, which the caller has parked, or which was not started or has
 * stopped. 0, -EINVAL (no such vCPU), -EBUSY (it runs), or -errno of KVM, with a line in @e.
 */
int vcpu_read_paging(struct vm *vm, unsigned int index, struct vcpu_paging *out, struct ob_err *e);

/* Tell KVM of slot @slot of vm->mem, or whether it is to log writes to it. 0 or -errno. */
int vm_set_slot(struct vm *vm, unsigned int slot, bool log);

/* --- dirty.c: KVM's log of writes -------------------------------------------------------- */

/* Choose how the log is used; before the slots are made (vm_create's). */
void vm_log_init(struct vm *vm);
/*
 * Switch the log of slot @slot (index into vm->mem.slot) on or off, beside the running guest. What
 * the guest wrote before it is on is not logged. One thread at a time for a VM's vm_log_*. 0,
 * -EINVAL (no such slot), or KVM's -errno: then as it was.
 */
int vm_log_set(struct vm *vm, unsigned int slot, bool on);
/*
 * The pages of slot @slot that vCPUs have written since the collect before, one bit each from the
 * slot's first page, into @bitmap, (pages + 63) / 64 words. From when it returns, the next write to
 * each of them is logged anew. At the first collect after the log was switched on, KVM may report
 * all pages (vm_log_starts_full).
 *
 * 0, -EINVAL (no such slot, or its log is off), or KVM's -errno: @bitmap is then not to be relied
 * on, and some writes that happened before may not be reported again: take all pages as written.
 */
int vm_log_collect(struct vm *vm, unsigned int slot, uint64_t *bitmap);
/* Does a log begin with all pages set, which leaves huge pages whole until the first collect? */
bool vm_log_starts_full(const struct vm *vm);

/* --- kvmstat.c: what KVM counts ---------------------------------------------------------- */

enum kvm_stat_kind {
	KVM_STAT_CUMULATIVE, /* grows */
	KVM_STAT_INSTANT,    /* as it is now */
	KVM_STAT_PEAK,	     /* the largest so far */
	KVM_STAT_EVENTS,     /* of a histogram: how many events it has sorted; grows */
};

#define KVM_STAT_NAME	    64		  /* with its end */
#define KVM_STATS_MAX	    1024	  /* statistics of one file */
#define KVM_STATS_MAX_NAME  256		  /* bytes of a name in the file */
#define KVM_STATS_MAX_BYTES (1024 * 1024) /* no offset in the file is larger */

struct kvm_stat {
	char name[KVM_STAT_NAME]; /* as KVM has it (units are in it: _ns); printable, no blanks */
	enum kvm_stat_kind kind;
	uint32_t offset; /* bytes into the block of values */
	uint32_t values; /* of 8 bytes each, summed: 1, or a histogram's buckets */
};

/* The statistics of one VM or vCPU. One thread at a time. */
struct kvm_stats {
	int fd; /* holds on to the VM: close before vm_destroy */
	unsigned int n;
	struct kvm_stat *stat; /* [n], owned */
	uint64_t data_offset;  /* of the block of values in the file */
	uint32_t data_bytes;
	void *data;
};

/*
 * Open the statistics of @vm (@vcpu < 0) or of its vCPU @vcpu. -EOPNOTSUPP: this KVM has none.
 * -EPROTO: what it says of them makes no sense. -EINVAL: no such vCPU. Any thread.
 */
int vm_stats_open(struct vm *vm, int vcpu, struct kvm_stats *out);
/* Their values now, @values[i] of stat[i]. 0 or -errno. */
int kvm_stats_read(struct kvm_stats *s, uint64_t *values);
void kvm_stats_close(struct kvm_stats *s);

/* Understand @len bytes from the beginning of such a file, descriptors included, values not. Pure.
 * 0 (kvm_stats_close frees), or -EPROTO with nothing to free. */
int kvm_stats_parse(const void *buf, size_t len, struct kvm_stats *out);
/* The values in a block of s->data_bytes bytes. Pure. */
void kvm_stats_values(const struct kvm_stats *s, const void *data, uint64_t *values);

#endif
