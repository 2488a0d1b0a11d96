#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# No folder but kernel/ and ept/ contains a memory system call (docs/design.md, "One host seam").
# Prints each one that stands elsewhere, as FILE:LINE: TEXT, and exits 1 when there is any.
# Usage: seam.sh [FILE...]   (default: all of the folders that are not the seam)
# workloads/linux is left out: a program that runs inside a guest, on memory of its own.
#
# Comments do not count, nor does what stands in a text for a person, but for the names of files by
# which memory is reached. What is a call is what would be compiled as one: by name, by its number
# through syscall(), or an ioctl's code.
set -eu
cd "$(dirname "$0")/.."

if [ $# = 0 ]; then
	set -- $(ls ksm/*.[ch] balloon/*.[ch] overcommit/*.[ch] harness/*.[ch] workloads/*.[ch] \
		workloads/common/*.[ch] workloads/microguest/*.[ch] 2>/dev/null)
fi

exec awk '
BEGIN {
	calls = "mmap|mmap64|munmap|mremap|mprotect|pkey_mprotect|madvise|posix_madvise|process_madvise" \
		"|process_mrelease|memfd_create|memfd_secret|fallocate|posix_fallocate|remap_file_pages" \
		"|mlock|mlock2|munlock|mlockall|munlockall|msync|mincore|mbind|move_pages|migrate_pages" \
		"|set_mempolicy|process_vm_readv|process_vm_writev|userfaultfd|shmget|shmat|shmdt|shm_open|vmsplice"
	called = "(^|[^A-Za-z0-9_])(" calls ")[ \t]*\\("
	numbered = "(SYS|__NR)_(" calls ")([^A-Za-z0-9_]|$)"
	codes = "(^|[^A-Za-z0-9_])(UFFDIO_[A-Z_]+|USERFAULTFD_IOC_[A-Z_]+|PAGEMAP_SCAN|PROCMAP_QUERY" \
		"|KVM_(GET|CLEAR)_DIRTY_LOG|KVM_RESET_DIRTY_RINGS|KVM_SET_USER_MEMORY_REGION2?" \
		"|KVM_SET_MEMORY_ATTRIBUTES|KVM_PRE_FAULT_MEMORY|KVM_CREATE_GUEST_MEMFD" \
		"|MADV_[A-Z_]+|MREMAP_[A-Z_]+|FALLOC_FL_[A-Z_]+|PR_SET_VMA[A-Z_]*)([^A-Za-z0-9_]|$)"
	files = "\"/(proc/[^\"]*/?(pagemap|mem|clear_refs)|dev/userfaultfd|dev/mem)\""
}

FNR == 1 { comment = 0 }

{
	# Texts become "", unless all of one is the name of such a file; comments become nothing.
	code = ""
	line = $0
	while (line != "") {
		if (comment) {
			at = index(line, "*/")
			if (!at)
				break
			line = substr(line, at + 2)
			comment = 0
			continue
		}
		if (!match(line, /["\047]|\/\*|\/\//)) {
			code = code line
			break
		}
		code = code substr(line, 1, RSTART - 1)
		what = substr(line, RSTART, RLENGTH)
		line = substr(line, RSTART + RLENGTH)
		if (what == "//")
			break
		if (what == "/*") {
			comment = 1
			code = code " "
			continue
		}
		text = what
		while (line != "") {
			c = substr(line, 1, 1)
			line = substr(line, 2)
			text = text c
			if (c == "\\") {
				text = text substr(line, 1, 1)
				line = substr(line, 2)
			} else if (c == what)
				break
		}
		code = code (text ~ files ? text : what what)
	}
	if (code ~ called || code ~ numbered || code ~ codes || code ~ files) {
		sub(/^[ \t]+/, "")
		print FILENAME ":" FNR ": " $0
		bad = 1
	}
}

END { exit bad }
' "$@"
