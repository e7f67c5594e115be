/* SPDX-License-Identifier: Apache-2.0 */
/* The list of protocol drivers. A new one is one line here and one in table.h. */
#include "protocol/table.h"

const struct block_driver *const protocol_table[] = {
    &file_driver, &host_device_driver, &nbd_driver, &null_co_driver, &null_aio_driver, NULL,
};
