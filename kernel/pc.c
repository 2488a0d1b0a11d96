/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pc.c: a VM as a PC that unmodified kernels know: interrupt controllers (two PICs, an IOAPIC, a LAPIC
 * a vCPU) and the PIT in KVM, virtio devices with interrupts, and a few ports.
 *
 * No exit for what is often. A driver's notification is taken by KVM, which ticks an eventfd that
 * the I/O worker listens to (KVM_IOEVENTFD); an interrupt is a tick of an eventfd that KVM listens
 * to (KVM_IRQFD). The interrupts are edges: the line of a virtio-mmio device goes up with each
 * tick, and what came together the driver finds in the interrupt status.
 *
 * The legacy is small. The tables say that there is no i8042, no VGA, no CMOS clock and no PCI, so
 * kernels do not look for them; if one does, ports that nobody claims read as ones, and are only
 * counted. ACPI's fixed hardware is two registers: there are no events, and the control register
 * is there to be told SLP_EN with the type of S5, which ends the VM. The reset register is the
 * i8042's command port, so that kernels which go by ACPI and those which pulse the keyboard
 * controller's line arrive at the same place.
 *
 * A model-specific register that KVM does not know: the guest gets #GP, as from a CPU that does not
 * have it, and nothing is written to anybody's log; KVM would say each one in the host's.
 */
#include "kernel/pc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MSR_K7_EVNTSEL0 0xc0010000u
#define MSR_K7_COUNTERS 8 /* four to select, four that count; a bit each in one byte */

#define PM1_STATUS_ENABLE_LEN 4 /* two registers of 2 bytes */
#define PM1_CONTROL_LEN	      2
#define PM1_SCI_EN	      0x0001u /* there is no legacy mode to leave */
#define PM1_SLP_TYP_SHIFT     10
#define PM1_SLP_TYP_MASK      7u
#define PM1_SLP_EN	      0x2000u

static uint64_t pm_event_read(void *dev, uint64_t off, unsigned int size)
{
	struct pc *pc = dev;
	uint64_t both = (uint64_t)atomic_load(&pc->pm1_enable) << 16; /* status: nothing */

	(void)size; /* the bus cuts it off */
	return both >> (8 * off);
}

static void pm_event_write(void *dev, uint64_t off, unsigned int size, uint64_t value)
{
	struct pc *pc = dev;

	if (off == 2 && size == 2)
		atomic_store(&pc->pm1_enable, (uint32_t)value);
	else if (off == 0 && size == 4)
		atomic_store(&pc->pm1_enable, (uint32_t)(value >> 16));
}

static uint64_t pm_control_read(void *dev, uint64_t off, unsigned int size)
{
	struct pc *pc = dev;

	(void)size;
	return (atomic_load(&pc->pm1_control) | PM1_SCI_EN) >> (8 * off);
}

/* An agent says how it ends before it powers off, and that was the end then. So one that has not was
 * killed, or could not. */
static void power_off(struct vm *vm)
{
	if (vm->agent.port)
		vm_fail(vm, "powered off, its agent has not said why");
	else
		vm_exit(vm, 0);
}

static void pm_control_write(void *dev, uint64_t off, unsigned int size, uint64_t value)
{
	struct pc *pc = dev;

	if (off || size != 2)
		return;
	atomic_store(&pc->pm1_control, (uint32_t)value & ~PM1_SLP_EN);
	if (value & PM1_SLP_EN && (value >> PM1_SLP_TYP_SHIFT & PM1_SLP_TYP_MASK) == PC_SLP_TYP_S5)
		power_off(pc->vm);
}

/* The i8042's status: its input buffer is empty, so nobody waits before he writes a command. */
static uint64_t reset_read(void *dev, uint64_t off, unsigned int size)
{
	(void)dev;
	(void)off;
	(void)size;
	return 0;
}

static void reset_write(void *dev, uint64_t off, unsigned int size, uint64_t value)
{
	struct pc *pc = dev;

	(void)off;
	(void)size;
	if ((value & 0xff) == PC_RESET_VALUE)
		pc_ask_reset(pc->vm);
}

static const struct bus_ops pm_event_ops = {.read = pm_event_read, .write = pm_event_write};
static const struct bus_ops pm_control_ops = {.read = pm_control_read, .write = pm_control_write};
static const struct bus_ops reset_ops = {.read = reset_read, .write = reset_write};

void pc_add_ports(struct vm *vm)
{
	struct pc *pc = vm->pc;

	OB_ASSERT(!bus_add(&vm->pio, PC_PM1_EVENT_PORT, PM1_STATUS_ENABLE_LEN, &pm_event_ops, pc));
	OB_ASSERT(!bus_add(&vm->pio, PC_PM1_CONTROL_PORT, PM1_CONTROL_LEN, &pm_control_ops, pc));
	OB_ASSERT(!bus_add(&vm->pio, PC_RESET_PORT, 1, &reset_ops, pc));
}

bool pc_lacks(int fd, char *buf, size_t n)
{
	static const struct {
		int cap;
		const char *name;
	} need[] = {
		{KVM_CAP_IRQCHIP, "IRQCHIP"},	    {KVM_CAP_PIT2, "PIT2"},
		{KVM_CAP_IRQFD, "IRQFD"},	    {KVM_CAP_IOEVENTFD, "IOEVENTFD"},
		{KVM_CAP_PIT_STATE2, "PIT_STATE2"}, {KVM_CAP_MP_STATE, "MP_STATE"},
		{KVM_CAP_EXT_CPUID, "EXT_CPUID"},
	};
	size_t k = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < OB_ARRAY_SIZE(need) && k < n; i++)
		if (ioctl(fd, KVM_CHECK_EXTENSION, need[i].cap) <= 0)
			k += (size_t)snprintf(buf + k, n - k, " %s", need[i].name);
	return k > 0;
}

static int check_host(struct vm *vm, unsigned int vcpus, struct ob_err *e)
{
	int most = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	char lacks[PC_LACKS_MAX];

	if (pc_lacks(vm->fd, lacks, sizeof(lacks)))
		return ob_fail(e, ENOTSUP, "this KVM lacks what a PC needs (KVM_CAP_...):%s",
			       lacks);
	most = OB_MIN(OB_MAX(most, 1), VM_MAX_VCPUS);
	if (vcpus > (unsigned int)most)
		return ob_fail(e, EINVAL, "%u vCPUs: this KVM has at most %d a guest", vcpus, most);
	return 0;
}

/*
 * AMD's first performance counters have no bit in CPUID, so kernels try them. KVM knows the registers,
 * and complains in the host's log when there is no counter behind them. With a filter it does not
 * get so far.
 */
static void hide_counters(struct vm *vm)
{
	/* A bit for each register: not allowed. KVM reads whole words of them. */
	unsigned long none[1] = {0};
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = {.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			      .base = MSR_K7_EVNTSEL0,
			      .nmsrs = MSR_K7_COUNTERS,
			      .bitmap = (uint8_t *)none},
	};

	ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &filter);
}

int pc_create(struct vm *vm, const struct vm_config *cfg, struct ob_err *e)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	struct kvm_enable_cap msrs = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = {KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER},
	};
	int r = check_host(vm, OB_MAX(cfg->vcpus, 1u), e);

	if (r)
		return r;
	if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0))
		return ob_fail(e, errno, "KVM_CREATE_IRQCHIP: %s", strerror(errno));
	if (ioctl(vm->fd, KVM_CREATE_PIT2, &pit))
		return ob_fail(e, errno, "KVM_CREATE_PIT2: %s", strerror(errno));
	/* Where they are not there (before Linux 5.10), KVM does the same, and logs it. */
	ioctl(vm->fd, KVM_ENABLE_CAP, &msrs);
	hide_counters(vm);
	vm->pc = calloc(1, sizeof(*vm->pc));
	OB_ASSERT(vm->pc);
	vm->pc->vm = vm;
	vm->pc->worker = cfg->worker;
	ob_mutex_init(&vm->pc->reset_lock, OB_RANK_RESET);
	return 0;
}

/* KVM takes a level for any line that it has, so this cannot fail. */
void pc_serial_irq(void *arg, bool level)
{
	struct pc *pc = arg;
	struct kvm_irq_level line = {.irq = PC_SERIAL_IRQ, .level = level};

	OB_ASSERT(!ioctl(pc->vm->fd, KVM_IRQ_LINE, &line));
}

static void ring(struct io_bell *b)
{
	const struct pc_bell *bell = (const struct pc_bell *)(const void *)b;

	virtio_dev_doorbell(bell->dev, bell->queue);
}

static uint32_t slot_gpa(unsigned int slot)
{
	return (uint32_t)(VIRTIO_GPA + slot * VIRTIO_STRIDE);
}

static int add_bell(struct pc *pc, struct pc_slot *s, unsigned int queue, struct ob_err *e)
{
	struct pc_bell *b = &s->bell[queue];
	struct kvm_ioeventfd io = {
		.datamatch = queue,
		.addr = slot_gpa((unsigned int)(s - pc->slot)) + VIRTIO_REG_NOTIFY,
		.len = 4,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};
	int r;

	*b = (struct pc_bell){.bell.ring = ring, .dev = s->dev, .queue = queue};
	b->bell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->bell.fd < 0)
		return ob_fail(e, errno, "a queue's eventfd: %s", strerror(errno));
	io.fd = b->bell.fd;
	r = ioctl(pc->vm->fd, KVM_IOEVENTFD, &io) ? -errno : 0;
	r = r ? r : io_worker_bell(pc->worker, &b->bell);
	if (r) {
		close(b->bell.fd);
		return ob_fail(e, -r, "KVM_IOEVENTFD: %s", strerror(-r));
	}
	s->nbells++;
	return 0;
}

int pc_add_virtio(struct vm *vm, struct virtio_dev *d, struct ob_err *e)
{
	struct pc *pc = vm->pc;
	struct pc_slot *s = &pc->slot[pc->nslots];
	struct kvm_irqfd irq = {.gsi = PC_VIRTIO_GSI + pc->nslots};
	int r = 0;

	if (pc->nslots == ACPI_MAX_VIRTIO)
		return ob_fail(e, ENOSPC, "more than %d virtio devices", ACPI_MAX_VIRTIO);
	*s = (struct pc_slot){.dev = d};
	s->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->irq_fd < 0)
		return ob_fail(e, errno, "an interrupt's eventfd: %s", strerror(errno));
	irq.fd = (uint32_t)s->irq_fd;
	if (ioctl(vm->fd, KVM_IRQFD, &irq)) {
		r = ob_fail(e, errno, "KVM_IRQFD: %s", strerror(errno));
		close(s->irq_fd);
		return r;
	}
	OB_ASSERT(
		!bus_add(&vm->mmio, slot_gpa(pc->nslots), VIRTIO_STRIDE, &virtio_mmio_bus_ops, d));
	d->irq_fd = s->irq_fd;
	/* From here on pc_detach and pc_destroy undo it. */
	pc->nslots++;
	for (unsigned int q = 0; q < d->nqueues && !r; q++)
		r = add_bell(pc, s, q, e);
	return r;
}

int pc_add_agent(struct vm *vm, struct ob_err *e)
{
	struct pc *pc = vm->pc;

	agent_port_init(&pc->port, &vm->agent);
	virtio_console_init(&pc->console, vm, &vm->mem, pc->worker, AGENT_PORT_NAME,
			    &agent_port_ops, &pc->port);
	pc->has_console = true;
	return pc_add_virtio(vm, &pc->console.dev, e);
}

int pc_add_rng(struct vm *vm, struct ob_err *e)
{
	struct pc *pc = vm->pc;

	virtio_rng_init(&pc->rng, vm, &vm->mem, pc->worker);
	pc->has_rng = true;
	return pc_add_virtio(vm, &pc->rng.dev, e);
}

void pc_describe(const struct vm *vm, struct acpi_machine *out)
{
	*out = (struct acpi_machine){.vcpus = vm->nvcpus, .nvirtio = vm->pc->nslots};
	for (unsigned int i = 0; i < vm->pc->nslots; i++) {
		out->virtio[i].gpa = slot_gpa(i);
		out->virtio[i].size = VIRTIO_STRIDE;
		out->virtio[i].gsi = PC_VIRTIO_GSI + i;
	}
}

void pc_detach(struct vm *vm)
{
	struct pc *pc = vm->pc;

	if (pc->detached)
		return;
	pc->detached = true;
	for (unsigned int i = 0; i < pc->nslots; i++)
		for (unsigned int q = 0; q < pc->slot[i].nbells; q++)
			io_worker_unbell(pc->worker, &pc->slot[i].bell[q].bell);
	if (pc->has_console)
		virtio_console_exit(&pc->console);
	if (pc->has_rng)
		virtio_rng_exit(&pc->rng);
}

void pc_destroy(struct vm *vm)
{
	struct pc *pc = vm->pc;

	pc_detach(vm);
	for (unsigned int i = 0; i < pc->nslots; i++) {
		for (unsigned int q = 0; q < pc->slot[i].nbells; q++)
			close(pc->slot[i].bell[q].bell.fd);
		close(pc->slot[i].irq_fd);
	}
	if (vm->agent.port)
		agent_port_exit(&pc->port);
	vm->agent.port = NULL;
	for (unsigned int i = 0; i < VM_MAX_VCPUS; i++)
		free(pc->state[i]);
	ob_mutex_destroy(&pc->reset_lock);
	free(pc);
	vm->pc = NULL;
}
