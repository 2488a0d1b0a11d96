/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h: how a device model hangs on a VM: the bus that MMIO and port accesses go through, the
 * virtqueue that a virtio device reads its work from, and the devices of this folder.
 *
 * Everything that a guest passes (addresses, lengths, indices) is checked here or in the device;
 * what the device cannot make sense of stops that VM with a reason (vm_fail), never the process.
 */
#ifndef OVERBOOK_KERNEL_DEVICE_H
#define OVERBOOK_KERNEL_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "kernel/mem.h"

struct vm;

/* --- bus.c: address ranges of devices ------------------------------------------------------- */

struct bus_range;

/* @off is from the start of the range, @size 1, 2, 4 or 8. Called on the vCPU's thread, with that
 * vCPU counted as running (a park waits for it). */
struct bus_ops {
	uint64_t (*read)(void *dev, uint64_t off, unsigned int size);
	void (*write)(void *dev, uint64_t off, unsigned int size, uint64_t value);
};

struct bus_range {
	uint64_t base;
	uint64_t len;
	const struct bus_ops *ops;
	void *dev;
};

#define BUS_MAX 24
struct bus {
	struct bus_range range[BUS_MAX];
	unsigned int n;
	_Atomic uint64_t unclaimed; /* accesses that no device claimed: reads are all ones */
};

/* -EEXIST when the range overlaps another, -ENOSPC when the bus is full.
 * Before the VM runs only. */
int bus_add(struct bus *b, uint64_t base, uint64_t len, const struct bus_ops *ops, void *dev);
/* False when no device claims all of the access (reads then give all ones). */
bool bus_read(struct bus *b, uint64_t addr, unsigned int size, uint64_t *value);
bool bus_write(struct bus *b, uint64_t addr, unsigned int size, uint64_t value);

/* --- serial.c, serial_out.c: a 16550 whose output goes to a file descriptor ------------------- */

#define SERIAL_COM1  0x3f8
#define SERIAL_PORTS 8
#define SERIAL_IRQ   4

#define SERIAL_LINE 200 /* of the line that says why a kernel panicked, with its end */

struct serial {
	/* The UART (serial.c). */
	uint8_t ier, lcr, mcr, scr, dll, dlm, fcr;
	bool thre;	 /* the "transmitter empty" interrupt is pending */
	uint8_t rx[256]; /* received and not read: a ring of rx_fill bytes from rx_at */
	unsigned int rx_at, rx_fill;
	void (*irq)(void *arg, bool level);
	void *irq_arg;
	bool irq_level;	  /* as the registers have it now */
	bool irq_dropped; /* it was low since it was last told */
	bool irq_told;	  /* what irq was last called with */
	bool irq_telling; /* somebody is calling it: he will see what changes */

	/* Its output (serial_out.c). */
	int fd;	       /* where output goes; -1 drops it. Not owned. */
	char buf[256]; /* written out at a newline, when full, and by serial_flush */
	unsigned int fill;
	char tail[4096];  /* the last output, for reports: a ring */
	uint64_t total;	  /* bytes ever written */
	uint64_t limit;	  /* of bytes written to a regular file: a guest may not fill the disk */
	uint64_t sent;	  /* bytes that were given to fd */
	uint64_t dropped; /* bytes that fd did not take in time: nobody reads the console */
	size_t part;	/* at most so many bytes in one write: they never block once fd is ready */
	bool stalled;	/* the last output was dropped: look for room, but do not wait for it */
	uint64_t began; /* what total was when this kernel started */
	const char *ready;	  /* what it says when it has booted; NULL: nobody waits for it */
	bool is_ready;		  /* this kernel has said it */
	unsigned int times_ready; /* kernels that have, one after another */
	unsigned int resets;
	char panic
		[SERIAL_LINE]; /* the line in which Linux says why it panicked; empty: it has not */
	unsigned int panic_fill;
	bool panic_open; /* that line is being written */
	bool panic_end;	 /* the line that ends what it has to say is being written */
	bool panic_over; /* and was */
	bool panic_told;
	void (*panicked)(void *arg, const char *line);
	void *panic_arg;

	struct ob_mutex lock;
};

extern const struct bus_ops serial_bus_ops;
void serial_init(struct serial *s, int fd);
/*
 * Who is told of the interrupt line: @irq is called when it changes, by whoever used a register or
 * serial_input, with nothing locked, one call at a time; a line that was low for a moment is told
 * as low, then high. Before the guest runs. NULL: nobody (as after serial_init).
 */
void serial_on_irq(struct serial *s, void (*irq)(void *arg, bool level), void *arg);
/* Type @n bytes. Returns how many were taken: the rest when the guest has read some. Any thread. */
size_t serial_input(struct serial *s, const void *bytes, size_t n);
/* As at power-on: registers, input, and what was seen of a panic and of being ready. Output is kept.
 * Nobody may be using the registers. */
void serial_reset(struct serial *s);
void serial_exit(struct serial *s);

void serial_flush(struct serial *s);
/* The last line of output that is not empty, cut to @n - 1 bytes, control characters replaced. */
void serial_last_line(struct serial *s, char *out, size_t n);
/* The last lines, some ten, of about 1000 bytes, at most @n - 1, from the beginning of a line if
 * possible; with newlines between, other control characters replaced. Any thread. */
void serial_tail(struct serial *s, char *out, size_t n);
/*
 * Who is told when Linux has panicked and has said all that it has to say ("---[ end Kernel panic"):
 * @panicked is called once until serial_reset, on the vCPU's thread with nothing locked, with the
 * line that says why. Before the guest runs.
 */
void serial_on_panic(struct serial *s, void (*panicked)(void *arg, const char *line), void *arg);
/* That line, also when the end has not come (a kernel with panic=N resets instead); false and empty
 * when there is none. As all of the console, it is what the guest says. Any thread. */
bool serial_panic_line(struct serial *s, char *out, size_t n);
/* A kernel has booted when it has said @text, which has no line end in it and stays where it is.
 * Before the guest runs. */
void serial_wait_for(struct serial *s, const char *text);
struct serial_heard {
	unsigned int resets;
	uint64_t bytes;	    /* of the kernel that runs now, since the last serial_reset */
	bool ready;	    /* it has said what is waited for */
	unsigned int times; /* kernels that have, this one included */
};
/* Any thread. */
void serial_heard(struct serial *s, struct serial_heard *h);

/* --- virtqueue.c: split virtqueues (virtio 1.2, 2.7) ------------------------------------------ */

#define VIRTQ_MAX	256 /* queue size that we offer */
#define VIRTQ_MAX_CHAIN 128 /* buffers in one chain, indirect ones included */

struct virtq_buf {
	gpa_t gpa;
	uint32_t len;
	bool write; /* the device writes it */
};

struct virtq {
	struct gmem *mem;
	uint16_t size; /* power of two, 0 = not ready */
	uint16_t last_avail;
	uint16_t used_idx;
	gpa_t desc, avail, used;
	bool ready;
	bool indirect;	    /* the driver may use indirect descriptors (set before enable) */
	const char *broken; /* what the driver did wrong, until reset */
};

/* A chain taken from the available ring: checked to be finite and in order (device-readable buffers
 * first), each buffer inside RAM. */
struct virtq_chain {
	uint16_t head;
	unsigned int n;
	uint64_t read_len, write_len; /* bytes of all readable / writable buffers */
	struct virtq_buf buf[VIRTQ_MAX_CHAIN];
};

/* Check and enable with what the driver has set: sizes and addresses inside RAM, aligned, no wrap.
 * -EINVAL otherwise, with the reason in @why. */
int virtq_enable(struct virtq *q, const char **why);
void virtq_reset(struct virtq *q);
/*
 * Take the next chain. 1 = taken, 0 = none, -errno = the driver has broken the ring: @why says how.
 * A broken ring stays broken until reset; -EBUSY is not broken: nothing was taken, ask again.
 * Not thread-safe: one consumer at a time per queue.
 */
int virtq_pop(struct virtq *q, struct virtq_chain *c, const char **why);
/* Give a chain back with @len bytes written. 0, -EBUSY (nothing done, ask again), or broken. */
int virtq_push(struct virtq *q, uint16_t head, uint32_t len, const char **why);
/* Must the driver be interrupted (VIRTQ_AVAIL_F_NO_INTERRUPT not set)? */
bool virtq_wants_irq(struct virtq *q);

/* --- virtio_dev.c: a device; virtio_mmio.c: its transport (virtio 1.2, 4.2.2, version 2) ------- */

#define VIRTIO_MAX_QUEUES      4
#define VIRTIO_REG_NOTIFY      0x050 /* what the driver writes the number of a queue to */
#define VIRTIO_F_INDIRECT_DESC (1ULL << 28)
#define VIRTIO_F_VERSION_1     (1ULL << 32)

struct virtio_dev;

struct virtio_dev_ops {
	uint32_t device_id;   /* 2 = block, 3 = console, 4 = entropy source */
	uint64_t features;    /* offered, VIRTIO_F_VERSION_1 is added */
	unsigned int nqueues; /* at most so many */
	/* The driver rang queue @q. Runs on the vCPU's thread; long work goes to the I/O worker. */
	void (*notify)(struct virtio_dev *d, unsigned int q);
	/* Device-specific configuration, @off from 0x100. */
	uint64_t (*config_read)(struct virtio_dev *d, uint64_t off, unsigned int size);
	/* The driver reset the device: all work under way must be over when this returns. */
	void (*reset)(struct virtio_dev *d);
};

struct virtio_dev {
	const struct virtio_dev_ops *ops;
	/* That this device has and offers: may be changed after virtio_dev_init, until the guest runs.
	 * First all that ops has, and queues of VIRTQ_MAX. */
	unsigned int nqueues;
	unsigned int queue_max; /* entries of a queue, a power of two */
	uint64_t features;
	struct vm *vm;
	struct gmem *mem;
	struct virtq q[VIRTIO_MAX_QUEUES];
	struct ob_mutex lock; /* all of the below, and the queues while they are set up */
	uint32_t status;
	uint32_t dev_sel, drv_sel, q_sel;
	uint64_t drv_features;
	uint32_t irq_status;
	bool broken;	 /* needs reset: the driver has done something impossible */
	const char *why; /* what that was: a string constant */
	bool resetting; /* work under way is waited for: registers but STATUS = 0 and ACK do nothing */
	bool reset_wanted; /* what is waited for is to be a reset, and not of one queue alone */
	pthread_cond_t at_rest; /* resetting is over */
	int irq_fd; /* an eventfd that is ticked for an interrupt; -1: none. Not owned. */
};

extern const struct bus_ops virtio_mmio_bus_ops;
void virtio_dev_init(struct virtio_dev *d, const struct virtio_dev_ops *ops, struct vm *vm,
		     struct gmem *mem);
void virtio_dev_exit(struct virtio_dev *d);
/* Used buffers are there: set the interrupt status and wake the guest. Any thread. */
void virtio_dev_interrupt(struct virtio_dev *d, unsigned int q);
/* The driver rang queue @q, and KVM has taken it (an eventfd). Not on a vCPU's thread. */
void virtio_dev_doorbell(struct virtio_dev *d, unsigned int q);
/* As the driver's own reset. No vCPU of the VM runs. Not on the I/O worker's thread. */
void virtio_dev_reset(struct virtio_dev *d);
/* May the device take work? False when it was reset, is being reset, or is broken. Any thread. */
bool virtio_dev_live(struct virtio_dev *d);
/* The driver did something that the device cannot go on from: stops the VM with the reason, a
 * string constant; the first one stays. Any thread. A device with no VM (tests) only becomes
 * broken. */
void virtio_dev_fail(struct virtio_dev *d, const char *why);

/* --- virtio_work.c: what the work of all devices has in common; on the I/O worker ------------- */

/* What a device does for one guest before the others of the cell have their turn. */
#define VIRTIO_TURN_REQUESTS 32
#define VIRTIO_TURN_BYTES    OB_MIB

/* Rest before trying again what said -EBUSY; false when it has been tried long enough. Start with
 * *@tries = 0. */
void virtio_rest(uint64_t ns);
bool virtio_busy_again(unsigned int *tries);
/* As gmem_read and gmem_write, but busy memory is waited for. 0 or -errno. */
int virtio_dev_read(struct virtio_dev *d, gpa_t at, void *buf, uint64_t len);
int virtio_dev_write(struct virtio_dev *d, gpa_t at, const void *buf, uint64_t len);
/* As virtq_pop of queue @q of a live device: true when a chain was taken; false with *@why (which was
 * NULL) set when the device cannot go on. */
bool virtio_dev_pop(struct virtio_dev *d, unsigned int q, struct virtq_chain *c, const char **why);
/* As virtq_push. NULL, or why the device cannot go on. */
const char *virtio_dev_push(struct virtio_dev *d, unsigned int q, uint16_t head, uint32_t len);

/* --- io.c: one thread per cell that does the devices' slow work -------------------------- */

struct io_worker;
struct io_work {
	void (*run)(struct io_work *w);
	struct io_work *next;
	bool queued;
};

/* A doorbell: an eventfd that somebody else ticks. @ring is called on the worker's thread, which may
 * have heard several ticks as one. */
struct io_bell {
	int fd; /* owned by whoever adds it; non-blocking */
	void (*ring)(struct io_bell *b);
};

int io_worker_start(struct io_worker **out);
void io_worker_stop(struct io_worker *w); /* finishes what is queued */
/* Queue @work; queued twice before it runs, it runs once. Any thread. */
void io_worker_queue(struct io_worker *w, struct io_work *work);
/* Returns when @work is neither queued nor running. Not from the worker itself. */
void io_worker_drain(struct io_worker *w, struct io_work *work);
/*
 * For how long the item that runs has run; 0: none does. All devices wait for it: a slow disk of the host
 * (a flush that takes minutes) keeps them from being served, the ports by which agents speak too.
 */
uint64_t io_worker_busy_ns(struct io_worker *w);
/* Listen to @b, until io_worker_unbell returns, which is not for the worker itself to call. */
int io_worker_bell(struct io_worker *w, struct io_bell *b);
void io_worker_unbell(struct io_worker *w, struct io_bell *b);

/* --- virtio_blk.c: a disk over a raw image ------------------------------------------ */

#define VIRTIO_BLK_SECTOR 512

/*
 * What a disk tells whoever wants to know where its blocks lie in guest memory; blocks are the size
 * of a page. Called on the I/O worker when an access is over (gmem_access_end) and before the guest
 * is told: cheap, and never waits for anything.
 */
struct blk_hint_ops {
	/* RAM pages [page, page + n) hold blocks [block, block + n), whole. The guest may have asked
	 * for several reads into one page, so this is what it said and no proof: compare. */
	void (*read)(void *arg, uint64_t page, uint64_t n, uint64_t block);
	/* Blocks [block, block + n) have been written, in part at least: what they held is no more. */
	void (*written)(void *arg, uint64_t block, uint64_t n);
};

struct virtio_blk {
	struct virtio_dev dev;
	struct io_worker *worker;
	struct io_work work;
	int fd;		  /* image, not owned */
	uint64_t sectors; /* capacity */
	bool writable;	  /* fd is open for reading and writing */
	char id[20];	  /* what the guest may ask for (VIRTIO_BLK_T_GET_ID) */
	unsigned int next_queue;
	_Atomic uint64_t read_bytes, written_bytes;
	_Atomic uint64_t syncs; /* how often the image was flushed to its disk */
	_Atomic uint64_t
		delay_ns; /* tests: wait so long in the middle of each read, and before a sync */
	_Atomic uint64_t rejected;	 /* requests answered with an error status */
	const struct blk_hint_ops *hint; /* NULL: nobody wants to know */
	void *hint_arg;
};

/*
 * @fd is a regular file or a block device of at least one sector; a last partial sector is not seen by the guest. When
 * it is open for writing as well, the guest may write: then it is the image of this guest alone.
 */
int virtio_blk_init(struct virtio_blk *b, struct vm *vm, struct gmem *mem, struct io_worker *w,
		    int fd, struct ob_err *e);
void virtio_blk_exit(struct virtio_blk *b);
/* Before the guest runs: offer @n queues, 1 to VIRTIO_MAX_QUEUES (others are made to fit); 1 unless
 * said. And its serial number, cut to 20 bytes; "overbook-disk" unless said. */
void virtio_blk_set_queues(struct virtio_blk *b, unsigned int n);
void virtio_blk_set_id(struct virtio_blk *b, const char *id);
/* Who is told of blocks read and written; NULL: nobody. Before the guest runs. */
void virtio_blk_on_io(struct virtio_blk *b, const struct blk_hint_ops *hint, void *arg);

/* --- virtio_rng.c: an entropy source ------------------------------------------------------- */

struct virtio_rng {
	struct virtio_dev dev;
	struct io_worker *worker;
	struct io_work work;
	_Atomic uint64_t bytes; /* given to the guest */
};

void virtio_rng_init(struct virtio_rng *r, struct vm *vm, struct gmem *mem, struct io_worker *w);
void virtio_rng_exit(struct virtio_rng *r);

/* --- virtio_console.c: a console device with one named port ---------------------------------- */

/* What happens at the port. Called on the I/O worker, one at a time, with nothing locked; opened
 * also where the device is reset, when nothing else is called any more. */
struct virtio_console_ops {
	/* The guest has written @n bytes, 1 to 4096: a stream, cut anywhere. A copy. */
	void (*out)(void *arg, const void *bytes, size_t n);
	/* The guest has opened or closed the port; what it wrote before has been handed out. May be
	 * NULL. */
	void (*opened)(void *arg, bool open);
};

struct virtio_console_control {
	uint32_t port;
	uint16_t event;
	uint16_t value;
};

struct virtio_console {
	struct virtio_dev dev;
	struct io_worker *worker;
	struct io_work work;
	const char *name; /* of the port; not owned */
	const struct virtio_console_ops *ops;
	void *arg;
	unsigned int owed; /* control messages that the guest is still to be sent, bits */
	bool open;	   /* by the guest */
	bool asked;	   /* a control message was taken and not looked at yet: */
	uint16_t asked_head;
	struct virtio_console_control question;
	bool out_taken; /* output that is not yet handed out, up to byte out_at of a buffer of it: */
	unsigned int out_buf;
	uint32_t out_at;
	struct virtq_chain out;
	_Atomic uint64_t out_bytes;
	_Atomic uint64_t odd; /* control messages that make no sense here, and were ignored */
};

/* One port, number 0, which the guest finds as @name (at most 63 bytes). Nothing is sent to it. */
void virtio_console_init(struct virtio_console *c, struct vm *vm, struct gmem *mem,
			 struct io_worker *w, const char *name,
			 const struct virtio_console_ops *ops, void *arg);
void virtio_console_exit(struct virtio_console *c);

#endif
