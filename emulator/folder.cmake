# SPDX-License-Identifier: Apache-2.0
# The schema modules whose commands have their handlers here.
qmp_add_module(machine)
