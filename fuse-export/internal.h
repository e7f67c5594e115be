/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share. One *served file* an export: a file system whose root is a regular file, mounted
 * on a regular file. Each request has a coroutine of its own; the functions of libfuse are called between two waits
 * only.
 *
 * Messages of the kernel are read, and answers written, on the export's loop (channel.c); everything else happens on
 * the loop of the node. Without an iothread that is the same one.
 *
 * This is the one place that knows libfuse. Of it we use what turns messages into calls and answers into messages;
 * waiting, buffers and mounting are our own.
 */
#ifndef FUSE_EXPORT_INTERNAL_H
#define FUSE_EXPORT_INTERNAL_H

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>
#include "base/co.h"
#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/math.h"
#include "block/export.h"
#include "block/request.h"

struct doorman;

enum {
    MAX_TRANSFER = 1 << 20, /* bytes of one read or write */
    MAX_IN_FLIGHT = 128,    /* then the kernel keeps what comes */
    ANSWER_PIECES = 4,
    ANSWER_SMALL = 256,
    BACKGROUND = 64, /* what the kernel hands out at once of requests that nobody sleeps for: asynchronous I/O */
};

/* A message of the kernel and room for the data that belongs to it. What a write brings lies at `data`, which is
 * aligned for direct I/O; what a read fetches goes there too. */
struct message {
    struct list link; /* file->free_messages, or file->handled */
    struct served_file *file;
    uint8_t *area, *start, *data;
    size_t length;
    /* The answer, when another loop is to write it: pieces, of which the short ones lie in `small`. */
    struct iovec answer[ANSWER_PIECES];
    int answer_count; /* 0: none */
    _Alignas(8) uint8_t small[ANSWER_SMALL];
};

struct served_file {
    struct block_export *export;
    struct edge *edge;
    struct loop *loop;  /* the node's, */
    struct loop *front; /* and where messages come and go */
    struct doorman *doorman;
    bool growable;

    char *path;      /* the mount point, absolute */
    bool mounted;    /* by us; somebody else may have unmounted it since */
    uint64_t device; /* of the mounted file system; 0: not known */

    struct fuse_session *session; /* NULL: not there (yet) */
    int fd;                       /* of /dev/fuse; the session's */
    atomic_bool gone;             /* the kernel has ended the connection */
    bool mmap_needs_cache;        /* an old kernel maps shared only what goes through its page cache */
    uint64_t kernel_flags;        /* what the kernel offered */
    enum { AS_IT_IS, COMPLETE_INIT, COMPLETE_OPEN } completion; /* what the next answer lacks */
    struct message *current; /* from here to the handler that it is for; nothing waits between */
    struct list handled;     /* messages whose answers another loop will write */
    atomic_size_t opened;    /* file handles of clients */

    /* On `front`: */
    struct loop_watch watch;
    bool watching;
    struct co_group requests;
    struct list free_messages;
    size_t kept;

    struct co_mutex size_lock;     /* one change of size at a time; looked at again under the lock */
    struct co_rwlock content_lock; /* writes share it; filling holes needs it alone */

    /* What a file has beyond its bytes; lives as long as the export. */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    struct timespec atime, mtime, ctime;
};

/* mount.c. All YIELD. */
bool mount_point_prepare(struct served_file *file, const char *mount_point, struct error *err);
int mount_point_mount(struct served_file *file, bool allow_other, bool *auto_other, struct error *err);
void mount_point_find_device(struct served_file *file);
void mount_point_unmount(struct served_file *file);

/* channel.c */
bool channel_open(struct served_file *file, int fd, struct error *err); /* takes the descriptor, also when it fails */
void channel_close(struct served_file *file);                           /* YIELDS: waits for requests in flight */
void channel_look(struct served_file *file); /* takes what the kernel has for us now. YIELDS */

/* attributes.c and data.c: the handlers of libfuse's low level interface. They YIELD. */
void served_init(void *user, struct fuse_conn_info *connection);
void served_getattr(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info);
void served_setattr(fuse_req_t request, fuse_ino_t node, struct stat *values, int which, struct fuse_file_info *info);
void served_open(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info);
void served_release(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info);
void served_statfs(fuse_req_t request, fuse_ino_t node);

void served_read(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset, struct fuse_file_info *info);
void served_write(fuse_req_t request, fuse_ino_t node, const char *data, size_t size, off_t offset,
                  struct fuse_file_info *info);
void served_flush(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info);
void served_fsync(fuse_req_t request, fuse_ino_t node, int only_data, struct fuse_file_info *info);
void served_fallocate(fuse_req_t request, fuse_ino_t node, int mode, off_t offset, off_t length,
                      struct fuse_file_info *info);
void served_lseek(fuse_req_t request, fuse_ino_t node, off_t offset, int whence, struct fuse_file_info *info);

/* size.c: 0 or -errno. YIELD. */
int served_grow(struct served_file *file, uint64_t size, bool allocate); /* never makes it smaller */
int served_set_size(struct served_file *file, uint64_t size);
void served_touch(struct served_file *file); /* its content has changed. Does not yield */

#endif
