# Finds LuaJIT 2.1 by pkg-config as the imported target PkgConfig::LUAJIT.
find_package(PkgConfig QUIET)
if(NOT PkgConfig_FOUND)
  message(FATAL_ERROR "pkg-config is missing: run vendor/setup.sh build")
endif()
pkg_check_modules(LUAJIT IMPORTED_TARGET luajit>=2.1)
if(NOT LUAJIT_FOUND)
  message(FATAL_ERROR "LuaJIT 2.1 is missing: run vendor/setup.sh build")
endif()
