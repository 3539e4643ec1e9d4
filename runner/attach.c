// SPDX-License-Identifier: MIT
#include "attach.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "door.h"
#include "words.h"

#define MOST ((uint64_t)1 << 62) // of bytes and milliseconds: sums of two stay in range

// The numbers behind the token: what has been received, and of a turn FROM, SIZE and HOLD_MS.
static bool read_numbers(char *text, struct door_knock *knock) {
  uint64_t *const numbers[] = {&knock->received, &knock->from, &knock->size, &knock->hold_ms};
  size_t count = 0;
  for (char *word = text, *next; word != NULL; word = next) {
    next = strchr(word, ' ');
    if (next != NULL) {
      *next++ = '\0';
    }
    if (count == 4 || !words_number(word, 10, MOST, numbers[count++])) {
      return false;
    }
  }
  knock->turn = count == 4;
  return count == 1 || count == 4;
}

// "<TOKEN> <numbers>\n", byte by byte: what follows is for the runner.
static bool read_line(struct door_knock *knock) {
  char line[DOOR_TOKEN + 96];
  size_t size = 0;
  for (;;) {
    ssize_t got = read(STDIN_FILENO, line + size, 1);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got != 1 || size + 1 == sizeof line) {
      return false;
    }
    if (line[size] == '\n') {
      break;
    }
    size++;
  }
  line[size] = '\0';
  if (size <= DOOR_TOKEN || line[DOOR_TOKEN] != ' ') {
    return false;
  }
  memcpy(knock->token, line, DOOR_TOKEN);
  return read_numbers(line + DOOR_TOKEN + 1, knock);
}

// Only where no other user can have put something: the token would be his. 0 or -errno.
static int go_to(const char *dir) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct stat st;
  int code = door_path(dir, address.sun_path);
  if (code != 0 || lstat(dir, &st) != 0) {
    return code != 0 ? code : -errno;
  }
  if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
    return -EPERM;
  }
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    code = -errno;
    if (fd >= 0) {
      close(fd);
    }
    return code;
  }
  return fd;
}

static bool hand_over(int fd, struct door_knock *knock) {
  union {
    struct cmsghdr head;
    char space[CMSG_SPACE(2 * sizeof(int))];
  } control = {.space = {0}};
  struct iovec bytes = {.iov_base = knock, .iov_len = sizeof *knock};
  struct msghdr message = {.msg_iov = &bytes,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof control};
  const int fds[2] = {STDIN_FILENO, STDOUT_FILENO};
  struct cmsghdr *head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof fds);
  memcpy(CMSG_DATA(head), fds, sizeof fds);
  return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof *knock;
}

static int fail(const char *mark, const char *stage, int code) {
  printf("\n%s error %s %d %s\n", mark, stage, code, strerror(code));
  return 1;
}

int attach_main(const char *mark, const char *dir) {
  struct door_knock knock = {.received = 0};
  if (strlen(mark) != DOOR_MARK) {
    return fail(mark, "mark", EINVAL);
  }
  memcpy(knock.mark, mark, DOOR_MARK);
  if (!read_line(&knock)) {
    return fail(mark, "token", EINVAL);
  }
  int fd = go_to(dir);
  if (fd < 0) {
    return fail(mark, "connect", -fd);
  }
  char answer[64];
  ssize_t size = hand_over(fd, &knock) ? recv(fd, answer, sizeof answer, 0) : -1;
  if (size <= 0) {
    return fail(mark, "connect", size < 0 ? errno : ECONNRESET);
  }
  if (answer[0] == 'e') {
    printf("\n%s %.*s\n", mark, (int)size, answer);
    return 1;
  }
  // Until the runner closes it, or ends.
  while (recv(fd, answer, sizeof answer, 0) > 0 || errno == EINTR) {
    errno = 0;
  }
  return 0;
}
