# SPDX-License-Identifier: Apache-2.0
# The handlers of these modules of the schema are in this folder.
qmp_add_module(block-bitmap block-core block-export block-job block-node block-stats fd job transaction qom)
