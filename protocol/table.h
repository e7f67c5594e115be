/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol drivers of this build, for graph_new() and graph_add_drivers(). Ends with NULL. */
#ifndef PROTOCOL_TABLE_H
#define PROTOCOL_TABLE_H

#include "block/driver.h"

extern const struct block_driver *const protocol_table[];

extern const struct block_driver file_driver, host_device_driver, nbd_driver, null_co_driver, null_aio_driver;

#endif
