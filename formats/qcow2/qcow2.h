/* SPDX-License-Identifier: Apache-2.0 */
/* The qcow2 image format: one driver table, everything else is private to this folder (see state.h for the tour). */
#ifndef FORMATS_QCOW2_QCOW2_H
#define FORMATS_QCOW2_QCOW2_H

#include "block/driver.h"

extern const struct block_driver qcow2_driver;

#endif
