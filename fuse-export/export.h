/* SPDX-License-Identifier: Apache-2.0 */
/* The export type `fuse`: a file that is the disk. Its server is the doorman (confined/doorman.h), which mounts. */
#ifndef FUSE_EXPORT_EXPORT_H
#define FUSE_EXPORT_EXPORT_H

#include "block/export.h"

extern const struct export_driver fuse_export_driver;

#endif
