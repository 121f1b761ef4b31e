/* Small files that must be whole or absent: write to a temporary name, fsync, rename, fsync the
 * directory. */
#ifndef RAP_BASE_FILE_H
#define RAP_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

/* mode is exact (not masked by umask). -ERR_IO with the path and errno text in em. */
int file_write_atomic(const char *path, struct blob content, int mode, struct errmsg *em);
/* Appends to out, whose maximum is the bound. -ERR_NOT_FOUND when absent, -ERR_TOO_LARGE. */
int file_read(const char *path, struct buf *out, struct errmsg *em);
/* Each missing component, mode 0700 for those it makes. */
int file_mkdirs(const char *path, struct errmsg *em);
/* Ends a rename, create or unlink: fsync of the directory. */
int file_sync_dir(const char *path, struct errmsg *em);
bool file_exists(const char *path);

/* Opens and locks (flock) a file: one process a directory. -ERR_BUSY when held by another.
 * The lock lasts until the descriptor is closed. */
int file_lock(const char *path, int *ret_fd, struct errmsg *em);

/* "dir/name", caller frees. */
char *path_join(const char *dir, const char *name);

#endif
