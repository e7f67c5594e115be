# SPDX-License-Identifier: Apache-2.0
# The monitor's own commands have their handlers here.
qmp_add_module(chardev control introspect)
