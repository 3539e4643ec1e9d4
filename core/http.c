// SPDX-License-Identifier: MIT
#include "http.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"

#define DEFAULT_MAX_IN ((size_t)256 << 10)
// Room for a few of curl's pieces, which have at most CURL_MAX_WRITE_SIZE bytes each.
#define LEAST_MAX_IN ((size_t)4 * CURL_MAX_WRITE_SIZE)
#define DEFAULT_CONNECT_TIMEOUT_MS 30000

struct http {
  struct loop *loop; // held
  CURLM *multi;      // NULL when closed
  struct loop_timer timer;
  struct http_transfer *first;   // those that run
  struct http_transfer *changed; // those whose fn is to be called
  unsigned calls;                // dispatches on the C stack
  bool doomed;                   // to be freed when calls is 0 again
};

struct http_transfer {
  struct http *http;           // NULL when it does not run
  struct http_transfer *next;  // of those that run
  struct http_transfer **link; // what points here
  struct http_transfer *next_changed;
  struct http *changed_in; // NULL when it is not among the changed
  CURL *easy;              // NULL when it does not run
  struct curl_slist *headers;
  struct buf head, in;
  size_t max_in;
  size_t taken; // bytes at the front of in that the caller still looks at
  int status;
  int end;     // 0 while it runs, ERR_EOF, or why it failed
  bool paused; // curl keeps bytes back
  bool too_large;
  bool connect, tls;
  int fd; // after connect, until it is taken; else -1
  http_fn fn;
  void *data;
  char error[CURL_ERROR_SIZE];
};

// A descriptor of curl's that it wants watched.
struct http_socket {
  struct loop_fd watch;
  struct http *http;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode initialised;

static void initialise(void) {
  initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
}

// Notes that fn is to be called; not done here, because curl may be on the stack.
static void change(struct http_transfer *t) {
  if (t->changed_in == NULL && t->http != NULL) {
    t->changed_in = t->http;
    t->next_changed = t->http->changed;
    t->http->changed = t;
  }
}

static void forget_change(struct http_transfer *t) {
  if (t->changed_in == NULL) {
    return;
  }
  struct http_transfer **link = &t->changed_in->changed;
  while (*link != t) {
    link = &(*link)->next_changed;
  }
  *link = t->next_changed;
  t->changed_in = NULL;
}

static int code_of(CURLcode result, long os_errno) {
  switch (result) {
  case CURLE_OK:
    return ERR_EOF;
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_RESOLVE_PROXY:
    return ERR_RESOLVE;
  case CURLE_COULDNT_CONNECT:
    return os_errno > 0 && os_errno < 4096 ? (int)-os_errno : -ECONNREFUSED;
  case CURLE_OPERATION_TIMEDOUT:
    return ERR_TIMEOUT;
  case CURLE_OUT_OF_MEMORY:
    return -ENOMEM;
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CIPHER:
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_ISSUER_ERROR:
    return ERR_TLS;
  case CURLE_WEIRD_SERVER_REPLY:
  case CURLE_BAD_CONTENT_ENCODING:
  case CURLE_UNSUPPORTED_PROTOCOL:
    return ERR_SYNTAX;
  default:
    // The connection ended before the response did: GOT_NOTHING, RECV_ERROR, PARTIAL_FILE...
    return -ECONNRESET;
  }
}

// Takes the transfer out of curl's hands.
static void leave(struct http_transfer *t, int code) {
  if (t->easy != NULL) {
    if (t->http != NULL && t->http->multi != NULL) {
      curl_multi_remove_handle(t->http->multi, t->easy);
    }
    curl_easy_cleanup(t->easy);
    t->easy = NULL;
  }
  if (t->http != NULL) {
    *t->link = t->next;
    if (t->next != NULL) {
      t->next->link = t->link;
    }
    t->http = NULL;
  }
  curl_slist_free_all(t->headers);
  t->headers = NULL;
  t->end = code;
}

// A connection that was asked for is there: its descriptor, by whatever way the bytes go.
static int keep_connection(struct http_transfer *t) {
  curl_socket_t fd = CURL_SOCKET_BAD;
  if (curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD) {
    return -ENOTCONN;
  }
  if (t->tls) {
    return ERR_UNSUPPORTED;
  }
  // The handle closes its own; the connection lives on in this one.
  t->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  return t->fd >= 0 ? ERR_EOF : -errno;
}

static void finish(struct http_transfer *t, CURLcode result) {
  long os_errno = 0;
  curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os_errno);
  int code = t->too_large ? ERR_LIMIT : code_of(result, os_errno);
  if (code == ERR_EOF && t->connect) {
    code = keep_connection(t);
  } else if (code == ERR_EOF && t->status == 0) {
    code = -ECONNRESET;
  }
  change(t);
  leave(t, code);
}

// Collects what has ended and calls whoever has news. Ends with http freed, perhaps.
static void dispatch(struct http *http) {
  CURLMsg *message;
  int left;
  while (http->multi != NULL && (message = curl_multi_info_read(http->multi, &left)) != NULL) {
    struct http_transfer *t = NULL;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &t);
    if (message->msg == CURLMSG_DONE && t != NULL) {
      finish(t, message->data.result);
    }
  }
  http->calls++;
  while (http->changed != NULL) {
    struct http_transfer *t = http->changed;
    forget_change(t);
    if (t->fn != NULL) {
      t->fn(t, t->data);
    }
  }
  http->calls--;
  if (http->doomed && http->calls == 0) {
    loop_drop(http->loop);
    free(http);
  }
}

static void on_timer(struct loop_timer *timer) {
  struct http *http = timer->data;
  int running;
  curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  dispatch(http);
}

static int on_timeout(CURLM *multi, long timeout_ms, void *data) {
  (void)multi;
  struct http *http = data;
  if (timeout_ms < 0) {
    loop_timer_stop(&http->timer);
    return 0;
  }
  return loop_timer_start(http->loop, &http->timer, (uint64_t)timeout_ms, on_timer) == 0 ? 0 : -1;
}

static void on_ready(struct loop_fd *watch, unsigned ready) {
  struct http_socket *s = watch->data;
  struct http *http = s->http;
  int action = ((ready & LOOP_READ) != 0 ? CURL_CSELECT_IN : 0) |
               ((ready & LOOP_WRITE) != 0 ? CURL_CSELECT_OUT : 0);
  int running;
  curl_multi_socket_action(http->multi, watch->fd, action, &running);
  dispatch(http);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *data, void *socket_data) {
  (void)easy;
  struct http *http = data;
  struct http_socket *s = socket_data;
  if (what == CURL_POLL_REMOVE) {
    if (s != NULL) {
      loop_fd_stop(&s->watch);
      free(s);
      curl_multi_assign(http->multi, fd, NULL);
    }
    return 0;
  }
  unsigned want = ((what & CURL_POLL_IN) != 0 ? (unsigned)LOOP_READ : 0) |
                  ((what & CURL_POLL_OUT) != 0 ? (unsigned)LOOP_WRITE : 0);
  if (s != NULL) {
    return loop_fd_want(&s->watch, want) == 0 ? 0 : -1;
  }
  s = calloc(1, sizeof *s);
  if (s == NULL) {
    return -1;
  }
  s->http = http;
  if (loop_fd_start(http->loop, &s->watch, fd, want, on_ready) != 0) {
    free(s);
    return -1;
  }
  s->watch.data = s;
  curl_multi_assign(http->multi, fd, s);
  return 0;
}

// As curl would, but not for the programs that this process starts.
static curl_socket_t on_open(void *data, curlsocktype purpose, struct curl_sockaddr *address) {
  (void)data;
  (void)purpose;
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t on_header(char *line, size_t one, size_t size, void *data) {
  struct http_transfer *t = data;
  size *= one;
  if (t->status != 0) {
    return size; // a trailer
  }
  if (size >= 5 && memcmp(line, "HTTP/", 5) == 0) {
    // The first, or the one after an interim response.
    buf_fini(&t->head);
    return size;
  }
  if (size <= 2 && (line[0] == '\r' || line[0] == '\n')) {
    long status = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200 && status < 1000) {
      t->status = (int)status;
      change(t);
    }
    return size;
  }
  if (buf_append(&t->head, line, size) != 0) {
    t->too_large = true;
    return 0;
  }
  return size;
}

static size_t on_body(char *bytes, size_t one, size_t size, void *data) {
  struct http_transfer *t = data;
  size *= one;
  if (buf_size(&t->in) > 0 && buf_size(&t->in) + size > t->max_in) {
    t->paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  if (buf_append(&t->in, bytes, size) != 0) {
    return 0;
  }
  change(t);
  return size;
}

int http_new(struct loop *loop, struct http **out) {
  pthread_once(&once, initialise);
  if (initialised != CURLE_OK) {
    return ERR_UNSUPPORTED;
  }
  struct http *http = calloc(1, sizeof *http);
  if (http == NULL) {
    return -ENOMEM;
  }
  http->multi = curl_multi_init();
  if (http->multi == NULL) {
    free(http);
    return -ENOMEM;
  }
  http->loop = loop_hold(loop);
  http->timer.data = http;
  curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
  curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
  curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
  *out = http;
  return 0;
}

void http_close(struct http *http) {
  if (http->multi == NULL) {
    return;
  }
  while (http->first != NULL) {
    change(http->first);
    leave(http->first, ERR_CLOSED);
  }
  curl_multi_cleanup(http->multi);
  http->multi = NULL;
  loop_timer_stop(&http->timer);
  dispatch(http);
}

void http_free(struct http *http) {
  if (http == NULL) {
    return;
  }
  for (struct http_transfer *t = http->first; t != NULL; t = t->next) {
    t->fn = NULL;
  }
  while (http->changed != NULL) {
    forget_change(http->changed);
  }
  http->doomed = true;
  if (http->multi != NULL) {
    http_close(http);
  } else if (http->calls == 0) {
    dispatch(http);
  }
}

static bool is_method(const char *method) {
  for (const char *c = method; *c != 0; c++) {
    if (*c < 'A' || *c > 'Z') {
      return false;
    }
  }
  return *method != 0 && strlen(method) <= 16;
}

static int add_header(struct http_transfer *t, const char *line) {
  struct curl_slist *longer = curl_slist_append(t->headers, line);
  if (longer == NULL) {
    return -ENOMEM;
  }
  t->headers = longer;
  return 0;
}

static int add_headers(struct http_transfer *t, const struct http_request *request) {
  bool has_type = false;
  for (const char *const *line = request->headers; line != NULL && *line != NULL; line++) {
    if (strpbrk(*line, "\r\n") != NULL || strchr(*line, ':') == NULL) {
      return -EINVAL;
    }
    has_type = has_type || strncasecmp(*line, "content-type:", 13) == 0;
    if (add_header(t, *line) != 0) {
      return -ENOMEM;
    }
  }
  // Without these curl waits a second before a larger body, and calls every body a form.
  int failed = add_header(t, "Expect:");
  return failed != 0 || has_type ? failed : add_header(t, "Content-Type:");
}

// The first refusal stays in *result.
#define SET(option, value)                                                                         \
  do {                                                                                             \
    if (result == CURLE_OK) {                                                                      \
      result = curl_easy_setopt(t->easy, CURLOPT_##option, value);                                 \
    }                                                                                              \
  } while (0)

static CURLcode set_where(struct http_transfer *t, const struct http_request *request) {
  CURLcode result = CURLE_OK;
  SET(URL, request->url);
  SET(PROTOCOLS_STR, "http,https");
  SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  SET(NOSIGNAL, 1L);
  SET(PROXY, request->proxy != NULL ? request->proxy : "");
  SET(CONNECTTIMEOUT_MS, request->connect_timeout_ms > 0 ? (long)request->connect_timeout_ms
                                                         : (long)DEFAULT_CONNECT_TIMEOUT_MS);
  SET(TIMEOUT_MS, (long)request->timeout_ms);
  if (request->unix_path != NULL) {
    SET(UNIX_SOCKET_PATH, request->unix_path);
  }
  if (request->ca_file != NULL) {
    SET(CAINFO, request->ca_file);
  }
  if (request->cert_file != NULL) {
    SET(SSLCERT, request->cert_file);
  }
  if (request->key_file != NULL) {
    SET(SSLKEY, request->key_file);
  }
  return result;
}

static CURLcode set_what(struct http_transfer *t, const struct http_request *request) {
  const char *method = request->method != NULL ? request->method : "GET";
  CURLcode result = CURLE_OK;
  if (request->connect) {
    SET(CONNECT_ONLY, 1L);
  } else if (strcmp(method, "HEAD") == 0) {
    SET(NOBODY, 1L);
  } else if (request->body != NULL || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0) {
    SET(POST, 1L);
    SET(POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size);
    SET(POSTFIELDS, request->body != NULL ? (const char *)request->body : "");
    SET(CUSTOMREQUEST, method);
  } else {
    SET(CUSTOMREQUEST, method);
  }
  SET(FRESH_CONNECT, request->fresh ? 1L : 0L);
  SET(HTTPHEADER, t->headers);
  return result;
}

static CURLcode set_how(struct http_transfer *t) {
  CURLcode result = CURLE_OK;
  SET(PRIVATE, t);
  SET(OPENSOCKETFUNCTION, on_open);
  SET(ERRORBUFFER, t->error);
  SET(HEADERFUNCTION, on_header);
  SET(HEADERDATA, t);
  SET(WRITEFUNCTION, on_body);
  SET(WRITEDATA, t);
  return result;
}

static int prepare(struct http_transfer *t, const struct http_request *request) {
  t->easy = curl_easy_init();
  if (t->easy == NULL) {
    return -ENOMEM;
  }
  int failed = add_headers(t, request);
  if (failed != 0) {
    return failed;
  }
  CURLcode result = set_where(t, request);
  result = result == CURLE_OK ? set_what(t, request) : result;
  result = result == CURLE_OK ? set_how(t) : result;
  if (result != CURLE_OK) {
    return result == CURLE_OUT_OF_MEMORY   ? -ENOMEM
           : result == CURLE_URL_MALFORMAT ? -EINVAL
                                           : ERR_UNSUPPORTED;
  }
  return 0;
}

// True for a url that curl can take apart and that names http or https; *tls says which.
static bool is_url(const char *url, bool *tls) {
  CURLU *parts = curl_url();
  char *scheme = NULL;
  bool good = parts != NULL && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK;
  *tls = good && strcmp(scheme, "https") == 0;
  good = good && (*tls || strcmp(scheme, "http") == 0);
  curl_free(scheme);
  curl_url_cleanup(parts);
  return good;
}

int http_start(struct http *http, const struct http_request *request, struct http_transfer **out) {
  bool tls;
  if (http->multi == NULL) {
    return ERR_CLOSED;
  }
  if ((request->method != NULL && !is_method(request->method)) || !is_url(request->url, &tls)) {
    return -EINVAL;
  }
  struct http_transfer *t = calloc(1, sizeof *t);
  if (t == NULL) {
    return -ENOMEM;
  }
  t->fd = -1;
  t->tls = tls;
  t->connect = request->connect;
  t->fn = request->fn;
  t->data = request->data;
  t->max_in = request->max_in == 0             ? DEFAULT_MAX_IN
              : request->max_in < LEAST_MAX_IN ? LEAST_MAX_IN
                                               : request->max_in;
  buf_init(&t->head, HTTP_HEAD_MAX);
  buf_init(&t->in, t->max_in);
  int failed = prepare(t, request);
  if (failed == 0 && curl_multi_add_handle(http->multi, t->easy) != CURLM_OK) {
    failed = -ENOMEM;
  }
  if (failed != 0) {
    http_transfer_free(t);
    return failed;
  }
  t->http = http;
  t->next = http->first;
  t->link = &http->first;
  if (t->next != NULL) {
    t->next->link = &t->next;
  }
  http->first = t;
  *out = t;
  return 0;
}

void http_transfer_free(struct http_transfer *t) {
  if (t == NULL) {
    return;
  }
  forget_change(t);
  leave(t, ERR_CLOSED);
  if (t->fd >= 0) {
    close(t->fd);
  }
  buf_fini(&t->head);
  buf_fini(&t->in);
  free(t);
}

int http_status(const struct http_transfer *t) {
  return t->status;
}

const char *http_head(const struct http_transfer *t, size_t *size) {
  *size = buf_size(&t->head);
  return buf_peek(&t->head);
}

int http_read(struct http_transfer *t, size_t max, const char **bytes, size_t *size) {
  buf_consume(&t->in, t->taken);
  t->taken = 0;
  if (t->paused && t->easy != NULL && buf_size(&t->in) <= t->max_in / 2) {
    // May call on_body at once.
    t->paused = false;
    curl_easy_pause(t->easy, CURLPAUSE_CONT);
  }
  size_t there = buf_size(&t->in);
  if (there == 0) {
    return t->end != 0 ? t->end : -EAGAIN;
  }
  t->taken = there < max ? there : max;
  *bytes = buf_peek(&t->in);
  *size = t->taken;
  return 0;
}

const char *http_error_text(const struct http_transfer *t) {
  return t->error;
}

bool http_is_live(const struct http_transfer *t) {
  return t->end == 0;
}

int http_take_fd(struct http_transfer *t, int *fd) {
  if (t->end != ERR_EOF || !t->connect) {
    return t->end != 0 && t->end != ERR_EOF ? t->end : -EAGAIN;
  }
  if (t->fd < 0) {
    return ERR_CLOSED;
  }
  *fd = t->fd;
  t->fd = -1;
  return 0;
}
