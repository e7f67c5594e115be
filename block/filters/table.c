/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filters/table.h"

#include "block/driver.h"
#include "block/filters/filters.h"

const struct block_driver *const filters_table[] = {
    &blkdebug_driver,
    &blklogwrites_driver,
    &blkverify_driver,
    &compress_driver,
    &copy_before_write_driver,
    &copy_on_read_driver,
    &preallocate_driver,
    &quorum_driver,
    &snapshot_access_driver,
    &throttle_driver,
    NULL,
};
