# Finds libssh2 by pkg-config as the imported target PkgConfig::LIBSSH2.
pkg_check_modules(LIBSSH2 IMPORTED_TARGET libssh2>=1.10)
if(NOT LIBSSH2_FOUND)
  message(FATAL_ERROR "libssh2 1.10 is missing: run vendor/setup.sh build")
endif()
