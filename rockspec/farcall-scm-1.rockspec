-- What it needs beside LuaJIT comes from the system's packages: lua-argparse for the program.
-- No dependencies are named, so that building needs no network.
rockspec_format = "3.0"
package = "farcall"
version = "scm-1"

source = {
  url = "git+file://.",
}

description = {
  summary = "A script runs far away; its function calls come home.",
  detailed = [[
Runs a script, usually one that a language model wrote, in an environment of your choice and serves
the tools that it calls on your side, under your policies.]],
  license = "MIT",
}

supported_platforms = { "linux" }

build = {
  type = "cmake",
  variables = {
    CMAKE_BUILD_TYPE = "RelWithDebInfo",
    CMAKE_INSTALL_PREFIX = "$(PREFIX)",
    CMAKE_INSTALL_BINDIR = "$(BINDIR)",
    LUA_DIR = "$(LUADIR)",
    CMODULE_DIR = "$(LIBDIR)",
    SPECS = "OFF",
    LIBRARY = "OFF",
  },
}
