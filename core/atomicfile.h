// SPDX-License-Identifier: MIT
#ifndef FARCALL_ATOMICFILE_H
#define FARCALL_ATOMICFILE_H

// Replaces a whole file so that everybody, at any moment and after any kill, sees either all of the
// old bytes or all of the new ones. The bytes go to a new file beside the old one, which is then
// renamed over it. It blocks on the disk: loop code goes through work. Not for files that several
// names share (the other hard links keep the old bytes), and nothing of the old file is carried
// over: mode comes from the caller, owner and group from the process.

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct atomicfile_options {
  mode_t mode; // of the new file, exactly, whatever the umask
  bool sync;   // true: on the disk (file and directory) when the call returns 0
  bool follow; // true: a symbolic link at path stays, and the file it leads to is replaced
};

// Puts size bytes at path. What may be replaced is nothing or a regular file: a directory is
// -EISDIR, a symbolic link -ELOOP (unless follow), a FIFO, socket or device ERR_NOTFILE. On any
// failure (-ENOSPC, -EDQUOT, -EFBIG, ...) the old file is untouched and the new one removed; the
// exception is a failing fsync of the directory, when the new bytes are in place but may not
// survive a power cut. Without sync a network file system may find out too late that it has no
// room.
int atomicfile_write(const char *path, const void *bytes, size_t size,
                     const struct atomicfile_options *options);

// A killed writer leaves its new file behind, as .NAME.farcall-XXXXXXXXXXXXXXXX (16 hex digits).
// Removes those in directory dir whose writer is dead (writers hold a lock on theirs), and adds
// their number to *removed, which may be NULL. 0 or -errno.
int atomicfile_clean(const char *dir, size_t *removed);

#endif
