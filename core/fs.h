// SPDX-License-Identifier: MIT
#ifndef FARCALL_FS_H
#define FARCALL_FS_H

// What file systems need beyond one system call: whole trees removed, regular files read without
// ever hanging on something else, lines appended by one write. Everything blocks on the disk for as
// long as the disk wants; from loop code only small things, the rest through work.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// One write(2), done again only when a signal came before anything was written. Bytes written, or
// -errno. A file size limit is told as -EFBIG; the SIGXFSZ that comes with it is swallowed.
ssize_t fs_write_once(int fd, const void *bytes, size_t size);

// Makes directory path with mode (umask applies). With parents, missing directories above it are
// made as well, with mode but always usable by their owner, and an existing directory is success.
int fs_mkdir(const char *path, mode_t mode, bool parents);

// The names in directory path, without . and .., in no order, each ended by a NUL, in *names (to be
// freed by the caller, never NULL) of *size bytes in all.
int fs_list(const char *path, char **names, size_t *size);

struct fs_bytes {
  char *bytes; // to be freed by the caller; never NULL on success
  size_t size;
  uint64_t file_size; // as the system says: 0 for files that are made up as they are read (/proc)
};

// Reads at most max bytes from offset of a regular file. A directory is -EISDIR; a FIFO, socket or
// device is ERR_NOTFILE and is not opened, so nothing waits and nothing happens to it.
int fs_read(const char *path, uint64_t offset, size_t max, struct fs_bytes *out);

// Opens path for lines: created with mode (umask applies) if missing, never truncated, every write
// at its end, never through a symbolic link (-ELOOP). A descriptor, or a negative code as fs_read.
int fs_append_open(const char *path, mode_t mode);

// Appends by exactly one write, so that lines of several processes do not mix and a kill leaves a
// line whole or out. 0, -errno with nothing written, or ERR_PARTIAL with a part of it written.
int fs_append(int fd, const void *bytes, size_t size);

// Locks the file at path, made with mode (umask applies) if missing, until the descriptor is closed
// or the process ends. The holder may remove the file. A descriptor; -EAGAIN while another has it;
// -errno.
int fs_lock(const char *path, mode_t mode);

// Removes path and everything below it; success if there is nothing. Never follows a symbolic link
// and never enters another mount (-EXDEV), however the tree is changed meanwhile; any depth. A
// directory of this user that is closed to him (mode 0000) is opened up first. Goes on after a
// failure and returns the first one. "/", "." and ".." are -EINVAL.
int fs_rmtree(const char *path);

#endif
