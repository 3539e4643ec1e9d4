// SPDX-License-Identifier: MIT
#ifndef FARCALL_ERR_H
#define FARCALL_ERR_H

// The one list of failures of the core. A function that can fail returns an int: 0, or a negative
// code. Codes down to -4095 are -errno; farcall's own start at -4096, beyond what errno can be.
// Number, name and text stand in one row, so that they cannot drift apart.
#define ERR_LIST(X)                                                                                \
  X(TIMEOUT, -4096, "the deadline has passed")                                                     \
  X(LIMIT, -4097, "larger than the limit that was set")                                            \
  X(SYNTAX, -4098, "malformed")                                                                    \
  X(DEPTH, -4099, "nested too deeply")                                                             \
  X(DUPLICATE, -4100, "the same key twice in one object")                                          \
  X(UTF8, -4101, "not valid UTF-8")                                                                \
  X(NUMBER, -4102, "not a number that JSON has")                                                   \
  X(TYPE, -4103, "a value of a type that cannot be represented")                                   \
  X(EOF, -4104, "end of the stream")                                                               \
  X(CLOSED, -4105, "already closed")                                                               \
  X(CANCELLED, -4106, "cancelled")                                                                 \
  X(UNSUPPORTED, -4107, "not supported here")                                                      \
  X(RAISED, -4108, "the code raised an error")                                                     \
  X(INSTRUCTIONS, -4109, "ran more instructions than it may")                                      \
  X(MEMORY, -4110, "used more memory than it may")                                                 \
  X(RESOLVE, -4111, "the host name could not be resolved")                                         \
  X(NOTFILE, -4112, "not a regular file")                                                          \
  X(PARTIAL, -4113, "only a part could be written")                                                \
  X(TLS, -4114, "no trusted TLS connection")

enum err {
#define ERR_ENUM(name, number, text) ERR_##name = (number),
  ERR_LIST(ERR_ENUM)
#undef ERR_ENUM
};

// One sentence for any code, own or -errno, never NULL. The pointer is to static storage for own
// codes and to a per-thread buffer for -errno, valid until this thread's next call.
const char *err_text(int code);

// The symbolic name: "TIMEOUT" for an own code, "ENOENT" for -errno, "UNKNOWN" otherwise. Static.
const char *err_name(int code);

#endif
