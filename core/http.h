// SPDX-License-Identifier: MIT
#ifndef FARCALL_HTTP_H
#define FARCALL_HTTP_H

// HTTP/1.1 requests on a loop, by libcurl's multi interface: over a Unix socket, TCP or TLS. One
// client keeps its idle connections for the next request. Bodies of responses are read by pull and
// bounded: who stops reading stops the sender. Heads are bounded too (HTTP_HEAD_MAX). Nothing is
// taken from the process' environment (no proxy variables, no .netrc), no redirect is followed, and
// nothing but http and https is spoken. It belongs to the loop's thread.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop.h"

enum { HTTP_HEAD_MAX = 65536 };

struct http;
struct http_transfer;

// Something new: the head, bytes after a read had answered -EAGAIN, or the end. From the loop,
// never from within a function of this file but http_close. It may free the transfer or close the
// client.
typedef void (*http_fn)(struct http_transfer *transfer, void *data);

struct http_request {
  const char *method;         // upper case; NULL: GET
  const char *url;            // http://... or https://...
  const char *unix_path;      // connect to this socket instead of the url's host; or NULL
  const char *const *headers; // "Name: value", NULL-terminated; NULL: none
  const void *body;           // borrowed until the transfer has ended; NULL: none
  size_t body_size;
  const char *ca_file, *cert_file, *key_file; // PEM; NULL: the system's authorities, no certificate
  const char *proxy;                          // url; NULL: none
  uint64_t connect_timeout_ms;                // 0: 30 s
  uint64_t timeout_ms;                        // of the whole transfer; 0: none
  size_t max_in; // bytes of the response kept for the reader; 0: 256 KiB, at least 64 KiB
  bool fresh;    // on a connection of its own: curl sends again what meets a dead old one
  bool connect;  // only connect; then see http_take_fd
  http_fn fn;
  void *data;
};

// 0, -ENOMEM or ERR_UNSUPPORTED when libcurl cannot be initialised.
int http_new(struct loop *loop, struct http **out);
// Ends what runs with ERR_CLOSED and tells it so; closes the idle connections. Idempotent.
void http_close(struct http *http);
// The same without telling anybody, and frees. Accepts NULL. Transfers are freed on their own.
void http_free(struct http *http);

// 0, -EINVAL (a header with a line break, a method that is none, a url that cannot be parsed),
// ERR_UNSUPPORTED (what this libcurl was built without), ERR_CLOSED or -ENOMEM. Everything else
// happens later and is told by http_read.
int http_start(struct http *http, const struct http_request *request, struct http_transfer **out);
// Gives the transfer up if it runs. Accepts NULL.
void http_transfer_free(struct http_transfer *transfer);

// The response's status, 0 while its head has not come.
int http_status(const struct http_transfer *transfer);
// The head's lines with their line ends, without the status line; borrowed until the end.
const char *http_head(const struct http_transfer *transfer, size_t *size);
// Up to max bytes of the body, borrowed until the next call. 0; -EAGAIN; ERR_EOF at the end of a
// complete response; ERR_RESOLVE, ERR_TLS, ERR_TIMEOUT, ERR_LIMIT (the head), ERR_SYNTAX, or
// -errno.
int http_read(struct http_transfer *transfer, size_t max, const char **bytes, size_t *size);
// What libcurl says of the error; may be empty.
const char *http_error_text(const struct http_transfer *transfer);
// True until the end, or a failure, has come from the other side.
bool http_is_live(const struct http_transfer *transfer);

// After `connect`, once http_read answers ERR_EOF: the connected socket, the caller's from here on.
// -EAGAIN when not connected, ERR_CLOSED when taken.
int http_take_fd(struct http_transfer *transfer, int *fd);

#endif
