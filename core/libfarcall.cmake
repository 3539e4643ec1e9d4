# libfarcall, for programs that embed the engine: shared, static, header and pkg-config file.
add_library(farcall_shared SHARED)
target_link_libraries(farcall_shared PRIVATE embed tree bind core ${CMAKE_DL_LIBS})
set_target_properties(farcall_shared PROPERTIES OUTPUT_NAME farcall LINKER_LANGUAGE C
  VERSION ${PROJECT_VERSION} SOVERSION 0)
target_include_directories(farcall_shared INTERFACE core)
# A thread in a name look-up may outlive the handle that started it.
target_link_options(farcall_shared PRIVATE -Wl,-z,nodelete
  -Wl,--version-script=${CMAKE_SOURCE_DIR}/core/farcall.map)
set_target_properties(farcall_shared PROPERTIES LINK_DEPENDS ${CMAKE_SOURCE_DIR}/core/farcall.map)

# One object in which only the interface is visible: names such as loop_new are the program's own.
add_custom_command(OUTPUT libfarcall.o
  COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o libfarcall.o
          $<TARGET_OBJECTS:embed> $<TARGET_OBJECTS:tree> $<TARGET_OBJECTS:bind>
          $<TARGET_OBJECTS:core>
  COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=farcall_* libfarcall.o
  DEPENDS embed tree bind core
          $<TARGET_OBJECTS:embed> $<TARGET_OBJECTS:tree> $<TARGET_OBJECTS:bind>
          $<TARGET_OBJECTS:core>
  COMMAND_EXPAND_LISTS VERBATIM)
add_library(farcall_static STATIC libfarcall.o)
target_link_libraries(farcall_static INTERFACE PkgConfig::LUAJIT Threads::Threads ${CMAKE_DL_LIBS})
set_target_properties(farcall_static PROPERTIES OUTPUT_NAME farcall LINKER_LANGUAGE C)
target_include_directories(farcall_static INTERFACE core)

# The prefix seen from the file itself, so that an installation can be moved.
file(RELATIVE_PATH PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(core/farcall.pc.in farcall.pc @ONLY)

if(SPECS)
  add_executable(embed_example examples/embed.c)
  target_link_libraries(embed_example PRIVATE farcall_shared)
  set_target_properties(embed_example PROPERTIES OUTPUT_NAME embed
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/examples)
endif()

install(TARGETS farcall_shared farcall_static DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES core/farcall.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${CMAKE_BINARY_DIR}/farcall.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
