/* SPDX-License-Identifier: Apache-2.0 */
/* The format drivers of this build, for graph_new() and graph_add_drivers(). Ends with NULL. */
#ifndef FORMATS_TABLE_H
#define FORMATS_TABLE_H

#include "block/driver.h"

extern const struct block_driver *const formats_table[];

extern const struct block_driver luks_driver;
extern const struct block_driver raw_driver;
extern const struct block_driver qcow2_driver; /* formats/qcow2 */

#endif
