// SPDX-License-Identifier: MIT
// Where programs are.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proc_plan.h"

#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"

// Calls visit with each absolute place where name could be. Stops at a result other than 0.
static int each_candidate(const char *name, const char *path, char *buffer, size_t size,
                          int (*visit)(const char *candidate, void *data), void *data) {
  size_t length = strlen(name);
  if (length == 0) {
    return -ENOENT;
  }
  int result = 0;
  for (const char *from = path != NULL ? path : DEFAULT_PATH; result == 0 && *from != '\0';) {
    size_t part = strcspn(from, ":");
    if (from[0] == '/') {
      if (part + length + 2 > size) {
        return -ENAMETOOLONG;
      }
      memcpy(buffer, from, part);
      buffer[part] = '/';
      memcpy(buffer + part + 1, name, length + 1);
      result = visit(buffer, data);
    }
    from += part + (from[part] == ':');
  }
  return result;
}

static int visit_which(const char *candidate, void *data) {
  struct stat st;
  if (stat(candidate, &st) != 0 || !S_ISREG(st.st_mode)) {
    return 0;
  }
  if (faccessat(AT_FDCWD, candidate, X_OK, AT_EACCESS) == 0) {
    return 1;
  }
  *(int *)data = -EACCES;
  return 0;
}

int proc_which(const char *name, const char *path, char *buffer, size_t size) {
  int missing = -ENOENT;
  int result = 0;
  if (strchr(name, '/') == NULL) {
    result = each_candidate(name, path, buffer, size, visit_which, &missing);
  } else if (name[0] == '/') {
    if (strlen(name) >= size) {
      return -ENAMETOOLONG;
    }
    memcpy(buffer, name, strlen(name) + 1);
    result = visit_which(buffer, &missing);
  }
  if (result < 0) {
    return result;
  }
  return result == 1 ? 0 : missing;
}

static int visit_collect(const char *candidate, void *data) {
  struct candidates *all = data;
  // Most elements of a PATH do not have it: asking here is cheaper than failing to execute.
  if (access(candidate, F_OK) != 0) {
    return 0;
  }
  char **list = realloc(all->list, (all->count + 2) * sizeof *list);
  if (list == NULL) {
    return -ENOMEM;
  }
  all->list = list;
  list[all->count] = strdup(candidate);
  if (list[all->count] == NULL) {
    return -ENOMEM;
  }
  list[++all->count] = NULL;
  return 0;
}

void candidates_fini(struct candidates *all) {
  for (size_t i = 0; i < all->count; i++) {
    free(all->list[i]);
  }
  free(all->list);
}

static const char *variable(char *const *envp, const char *name) {
  size_t length = strlen(name);
  for (; *envp != NULL; envp++) {
    if (strncmp(*envp, name, length) == 0 && (*envp)[length] == '=') {
      return *envp + length + 1;
    }
  }
  return NULL;
}

int candidates_init(struct candidates *all, const char *name, char *const *envp) {
  char buffer[PATH_MAX];
  if (strchr(name, '/') == NULL) {
    int code =
        each_candidate(name, variable(envp, "PATH"), buffer, sizeof buffer, visit_collect, all);
    return code == 0 && all->count == 0 ? -ENOENT : code;
  }
  all->list = calloc(2, sizeof *all->list);
  if (all->list == NULL || (all->list[0] = strdup(name)) == NULL) {
    return -ENOMEM;
  }
  all->count = 1;
  return 0;
}
