# SPDX-License-Identifier: Apache-2.0
# Decoder, instruction data and translation are generated from the instruction tables.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(riscv_gen ${CMAKE_BINARY_DIR}/gen/emulator/cpu/riscv)
set(riscv_tables fields rv_i rv_m rv_a rv_fd rv_c rv_b rv_v system)
list(TRANSFORM riscv_tables REPLACE "(.+)" "${SPINDLE_FOLDER}/\\1.decode")
file(GLOB riscv_generator CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/decode/*.py)
add_custom_command(
  OUTPUT ${riscv_gen}/insn.h ${riscv_gen}/insn_decode.c ${riscv_gen}/insn_data.c ${riscv_gen}/insn_translate.c
  COMMAND ${CMAKE_COMMAND} -E env PYTHONDONTWRITEBYTECODE=1 ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/decode/generate.py
          --prefix riscv --folder emulator/cpu/riscv --out ${riscv_gen} ${riscv_tables}
  DEPENDS ${riscv_generator} ${riscv_tables}
  COMMENT "RISC-V instruction tables")
target_sources(${SPINDLE_TARGET} PRIVATE ${riscv_gen}/insn_decode.c ${riscv_gen}/insn_data.c ${riscv_gen}/insn_translate.c ${riscv_gen}/insn.h)
