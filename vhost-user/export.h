/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The export type `vhost-user-blk`: a virtio block device whose queues, in a guest's memory, are worked on by this
 * process. The front end is an emulator (ours, QEMU, crosvm, Cloud Hypervisor ...) that connects to a unix socket; one
 * at a time, again and again. See block/export.h; it needs no server object.
 */
#ifndef VHOST_USER_EXPORT_H
#define VHOST_USER_EXPORT_H

extern const struct export_driver vhost_user_blk_export_driver;

#endif
