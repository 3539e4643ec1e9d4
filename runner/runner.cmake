# The program that the engine brings into environments: build/runner/farcall-runner-MACHINE, with the
# name of the machine as `uname -m` says it. Static, of one file, small, because it is sent; with
# musl, as the supervisor. For the other machine where its compiler and musl are there.
set(RUNNER_SOURCES
  attach cgroup claim connect directory door exec files link listen main port program relay remove serve
  spawn start supervisor tree watch words)
list(TRANSFORM RUNNER_SOURCES PREPEND ${CMAKE_SOURCE_DIR}/runner/)
list(APPEND RUNNER_SOURCES ${CMAKE_SOURCE_DIR}/core/buf ${CMAKE_SOURCE_DIR}/core/mux
  ${CMAKE_SOURCE_DIR}/core/mux_in ${CMAKE_SOURCE_DIR}/core/mux_out ${CMAKE_SOURCE_DIR}/core/sha256)
list(TRANSFORM RUNNER_SOURCES APPEND .c)
file(GLOB RUNNER_HEADERS ${CMAKE_SOURCE_DIR}/runner/*.h ${CMAKE_SOURCE_DIR}/core/*.h)
set(RUNNER_DIR ${CMAKE_BINARY_DIR}/runner)
file(MAKE_DIRECTORY ${RUNNER_DIR})
set(RUNNER_PROGRAMS "")

# runner_program(MACHINE COMPILER...)
# The sizes of pages: the largest there are, and so no padding in the file up to the next one.
function(runner_program machine)
  set(program ${RUNNER_DIR}/farcall-runner-${machine})
  add_custom_command(OUTPUT ${program}
    COMMAND ${ARGN} -std=c11 -D_GNU_SOURCE -Os -flto -Wall -Wextra -I${CMAKE_SOURCE_DIR}/core
            -fno-pie -no-pie -fno-asynchronous-unwind-tables -fno-unwind-tables -fomit-frame-pointer
            -ffunction-sections -static -s -Wl,--gc-sections -Wl,-z,noseparate-code -Wl,-z,norelro
            -Wl,-z,max-page-size=65536 -Wl,-z,common-page-size=65536 -o ${program} ${RUNNER_SOURCES}
    DEPENDS ${RUNNER_SOURCES} ${RUNNER_HEADERS} VERBATIM)
  set(RUNNER_PROGRAMS ${RUNNER_PROGRAMS} ${program} PARENT_SCOPE)
endfunction()

set(RUNNER_NATIVE ${CMAKE_SYSTEM_PROCESSOR})
if(MUSL_GCC)
  runner_program(${RUNNER_NATIVE} ${MUSL_GCC})
  # For the analysers, which read compile_commands.json: this folder, each file once.
  set(RUNNER_CHECKED ${RUNNER_SOURCES} ${CMAKE_SOURCE_DIR}/runner/supervisor_program.c)
  list(FILTER RUNNER_CHECKED INCLUDE REGEX "/runner/")
  add_library(runner_checked OBJECT EXCLUDE_FROM_ALL ${RUNNER_CHECKED})
  target_include_directories(runner_checked PRIVATE core)
endif()
# With sanitizers it is too large to be sent, and needs a C library: beside the one that is sent, for
# the specs that start it themselves.
if(SANITIZE OR NOT MUSL_GCC)
  set(RUNNER_OTHER ${RUNNER_DIR})
  if(MUSL_GCC)
    set(RUNNER_OTHER ${CMAKE_BINARY_DIR}/runner-checked)
  endif()
  add_executable(farcall-runner ${RUNNER_SOURCES})
  target_include_directories(farcall-runner PRIVATE core)
  set_target_properties(farcall-runner PROPERTIES POSITION_INDEPENDENT_CODE OFF
    RUNTIME_OUTPUT_DIRECTORY ${RUNNER_OTHER} OUTPUT_NAME farcall-runner-${RUNNER_NATIVE})
  if(NOT SANITIZE)
    target_link_options(farcall-runner PRIVATE -static -s)
  endif()
endif()

foreach(machine aarch64 x86_64)
  find_program(GCC_${machine} ${machine}-linux-gnu-gcc)
  find_program(MUSL_GCC_${machine} ${machine}-linux-musl-gcc)
  if(NOT machine STREQUAL RUNNER_NATIVE AND GCC_${machine} AND MUSL_GCC_${machine})
    runner_program(${machine} ${MUSL_GCC_${machine}})
  endif()
endforeach()

add_custom_target(runner ALL DEPENDS ${RUNNER_PROGRAMS})
# The Python form lies beside it.
file(CREATE_LINK ${CMAKE_SOURCE_DIR}/runner/runner.py ${RUNNER_DIR}/runner.py SYMBOLIC)
install(DIRECTORY ${RUNNER_DIR}/ DESTINATION lib/farcall/runner USE_SOURCE_PERMISSIONS
  FILES_MATCHING PATTERN "farcall-runner-*")
install(FILES runner/runner.py DESTINATION lib/farcall/runner)
