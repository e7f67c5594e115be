# SPDX-License-Identifier: Apache-2.0
# Types, tables and event emitters are generated from the schema here. The table of a module's commands names their handlers, so it
# is compiled into the library of the folder that has the handlers: that folder's folder.cmake says `qmp_add_module(job)`.

set(QMP_GENERATED ${CMAKE_BINARY_DIR}/gen/qmp/schema)
set(QMP_GENERATOR ${CMAKE_SOURCE_DIR}/tools/schema/generate.py)
set(QMP_MANUAL ${CMAKE_BINARY_DIR}/docs/reference/qmp.md)
file(GLOB qmp_schema_files CONFIGURE_DEPENDS ${SPINDLE_FOLDER}/*.json)
file(GLOB qmp_generator_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/schema/*.py)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${qmp_schema_files} ${qmp_generator_files})

find_program(SPINDLE_PYTHON NAMES python3 REQUIRED)
execute_process(COMMAND ${SPINDLE_PYTHON} -B ${QMP_GENERATOR} ${SPINDLE_FOLDER}/schema.json --list ${QMP_GENERATED}
                OUTPUT_VARIABLE qmp_generated OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\n" ";" qmp_generated "${qmp_generated}")
set(qmp_stamp ${QMP_GENERATED}/generated.stamp)
add_custom_command(
  OUTPUT ${qmp_stamp}
  BYPRODUCTS ${qmp_generated} ${QMP_MANUAL}
  COMMAND ${SPINDLE_PYTHON} -B ${QMP_GENERATOR} ${SPINDLE_FOLDER}/schema.json --sources ${QMP_GENERATED} --manual ${QMP_MANUAL}
  COMMAND ${CMAKE_COMMAND} -E touch ${qmp_stamp}
  DEPENDS ${qmp_schema_files} ${qmp_generator_files}
  COMMENT "Generating the interface from qmp/schema"
  VERBATIM)
set_source_files_properties(${qmp_generated} PROPERTIES GENERATED TRUE)
target_sources(${SPINDLE_TARGET} PRIVATE ${qmp_stamp} ${QMP_GENERATED}/types.c ${QMP_GENERATED}/events.c ${QMP_GENERATED}/types.h
               ${QMP_GENERATED}/commands.h ${QMP_GENERATED}/events.h)

# qmp_add_module(module...): compiles the command tables of schema modules into the library of the calling folder.
macro(qmp_add_module)
  foreach(module ${ARGN})
    string(REPLACE "-" "_" module_source ${module})
    target_sources(${SPINDLE_TARGET} PRIVATE ${CMAKE_BINARY_DIR}/gen/qmp/schema/module_${module_source}.c)
  endforeach()
endmacro()
