/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of spindle-nbd share: its options. */
#ifndef IMAGE_TOOLS_NBD_NBD_H
#define IMAGE_TOOLS_NBD_NBD_H

#include "image-tools/nbd/device.h"
#include "image-tools/options.h"
#include "image-tools/tool.h"

struct nbd_options {
    const char *port, *bind, *socket, *shared, *handshake_limit;
    const char *name, *description, *offset;
    struct texts bitmaps;
    const char *format, *snapshot, *cache, *aio, *discard, *detect_zeroes;
    const char *tls_creds, *tls_hostname, *tls_authz, *pidfile, *selinux_label, *trace;
    struct texts objects;
    const char *connect; /* a device of the kernel's */
    bool disconnect;
    bool persistent, verbose, allocation_depth, list, fork, read_only, temporary, no_cache, image_opts, version;
    const char *image;     /* NULL: none was given */
    int ready_fd;          /* of --fork; -1: none */
    struct device *device; /* of --connect; NULL: none */
};

/* serve.c, list.c: exit statuses. YIELD. */
int nbd_serve(struct tool *tool, struct nbd_options *options);
int nbd_list(struct tool *tool, const struct nbd_options *options);

#endif
