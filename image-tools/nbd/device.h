/* SPDX-License-Identifier: Apache-2.0 */
/* spindle-nbd -c and -d: the image as a disk of this machine, by the kernel's NBD client. */
#ifndef IMAGE_TOOLS_NBD_DEVICE_H
#define IMAGE_TOOLS_NBD_DEVICE_H

#include "base/error.h"

struct device;
struct edge;
struct loop;
struct nbd_export;

/* Before there are walls, a loop and threads: forks the attendant, which keeps the privileges that it takes. */
struct device *device_begin(const char *path, struct error *err);
/* The device is there when this returns true; `left` is called when it is gone. YIELDS. */
bool device_connect(struct device *device, struct nbd_export *export, struct edge *edge, void (*left)(void *user),
                    void *user, struct error *err);
/* Disconnects it, unless somebody else has, and frees it. NULL is allowed. YIELDS. */
void device_end(struct device *device);

/* -d; an exit status. */
int device_disconnect(const char *path);

#endif
