# Finds libcurl by pkg-config as the imported target PkgConfig::LIBCURL.
pkg_check_modules(LIBCURL IMPORTED_TARGET libcurl>=7.86)
if(NOT LIBCURL_FOUND)
  message(FATAL_ERROR "libcurl 7.86 is missing: run vendor/setup.sh build")
endif()
