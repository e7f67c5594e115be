/* SPDX-License-Identifier: Apache-2.0 */
/* The list of format drivers. A new one is one line here and one in table.h. */
#include "formats/table.h"

const struct block_driver *const formats_table[] = {
    &luks_driver,
    &qcow2_driver,
    &raw_driver,
    NULL,
};
