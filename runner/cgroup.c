// SPDX-License-Identifier: MIT
#include "cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// Fields of a line of /proc/self/mountinfo, up to where the optional ones begin.
enum { MOUNT_ROOT = 3, MOUNT_POINT = 4 };

struct mount {
  char root[PATH_MAX], point[PATH_MAX];
};

// Finds the hierarchy: the mount whose type and options are these.
static bool find_mount(struct mount *mount, const char *type, const char *option) {
  FILE *file = fopen("/proc/self/mountinfo", "re");
  if (file == NULL) {
    return false;
  }
  static char line[3 * PATH_MAX];
  bool found = false;
  while (!found && fgets(line, sizeof line, file) != NULL) {
    char *tail = strstr(line, " - ");
    if (tail == NULL || strncmp(tail + 3, type, strlen(type)) != 0 ||
        tail[3 + strlen(type)] != ' ' || (option != NULL && strstr(tail, option) == NULL)) {
      continue;
    }
    char *rest = NULL;
    char *field = strtok_r(line, " ", &rest);
    for (int i = 0; field != NULL && i <= MOUNT_POINT; i++, field = strtok_r(NULL, " ", &rest)) {
      if (i == MOUNT_ROOT) {
        snprintf(mount->root, sizeof mount->root, "%s", field);
      } else if (i == MOUNT_POINT) {
        snprintf(mount->point, sizeof mount->point, "%s", field);
        found = true;
      }
    }
  }
  fclose(file);
  return found;
}

// Where this process is in a hierarchy: the third field of the line of /proc/self/cgroup whose
// second field is this.
static bool find_own(char *path, size_t size, const char *controller) {
  FILE *file = fopen("/proc/self/cgroup", "re");
  if (file == NULL) {
    return false;
  }
  char line[PATH_MAX + 64];
  bool found = false;
  while (!found && fgets(line, sizeof line, file) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    char *middle = strchr(line, ':');
    char *last = middle != NULL ? strchr(middle + 1, ':') : NULL;
    if (last == NULL || (size_t)(last - middle - 1) != strlen(controller) ||
        strncmp(middle + 1, controller, strlen(controller)) != 0) {
      continue;
    }
    snprintf(path, size, "%s", last + 1);
    found = true;
  }
  fclose(file);
  return found;
}

static int open_parent(const char *type, const char *option, const char *controller) {
  struct mount mount;
  char own[PATH_MAX], path[2 * PATH_MAX];
  if (!find_mount(&mount, type, option) || !find_own(own, sizeof own, controller)) {
    return -1;
  }
  // Where only a part of the hierarchy is mounted, paths begin at that part.
  size_t skip = strcmp(mount.root, "/") == 0 ? 0 : strlen(mount.root);
  if (strncmp(own, mount.root, skip) != 0) {
    return -1;
  }
  snprintf(path, sizeof path, "%s/%s", mount.point, own + skip);
  return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int make_in(struct cgroup *group, int parent) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *group = (struct cgroup){.parent = parent, .dir = -1, .procs = -1};
  snprintf(group->name, sizeof group->name, "farcall-%ld-%lld%09ld", (long)getpid(),
           (long long)now.tv_sec, now.tv_nsec);
  if (parent >= 0 && mkdirat(parent, group->name, 0755) == 0) {
    group->dir = openat(parent, group->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  return group->dir >= 0 ? 0 : -1;
}

int cgroup_make(struct cgroup *group, bool old_version) {
  if (make_in(group, open_parent("cgroup2", NULL, "")) == 0 &&
      faccessat(group->dir, "cgroup.kill", W_OK, AT_EACCESS) == 0) {
    return 0;
  }
  cgroup_remove(group);
  if (!old_version) {
    return -1;
  }
  if (make_in(group, open_parent("cgroup", "freezer", "freezer")) == 0) {
    group->procs = openat(group->dir, "cgroup.procs", O_RDWR | O_CLOEXEC);
    group->frozen_kill = true;
    if (group->procs >= 0 && faccessat(group->dir, "freezer.state", W_OK, AT_EACCESS) == 0) {
      return 0;
    }
  }
  cgroup_remove(group);
  return -1;
}

static void write_file(int dir, const char *name, const char *text) {
  int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
  if (fd >= 0) {
    ssize_t ignored = write(fd, text, strlen(text));
    (void)ignored;
    close(fd);
  }
}

static void kill_listed(int dir) {
  int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
  FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
  if (file == NULL) {
    return;
  }
  char line[32];
  while (fgets(line, sizeof line, file) != NULL) {
    long pid = strtol(line, NULL, 10);
    // 0 is a process of another namespace: to kill that would mean our own group.
    if (pid > 0) {
      kill((pid_t)pid, SIGKILL);
    }
  }
  fclose(file);
}

// Calls visit with each group below, the deepest first, then removes it when asked to.
static void each_below(int dir, void (*visit)(int dir), bool remove) {
  int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = copy >= 0 ? fdopendir(copy) : NULL;
  if (list == NULL) {
    return;
  }
  for (const struct dirent *entry; (entry = readdir(list)) != NULL;) {
    if (entry->d_type != DT_DIR || entry->d_name[0] == '.') {
      continue;
    }
    int below = openat(dir, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (below < 0) {
      continue;
    }
    each_below(below, visit, remove);
    if (visit != NULL) {
      visit(below);
    }
    close(below);
    if (remove) {
      unlinkat(dir, entry->d_name, AT_REMOVEDIR);
    }
  }
  closedir(list);
}

void cgroup_kill(const struct cgroup *group) {
  if (group->dir < 0) {
    return;
  }
  if (!group->frozen_kill) {
    write_file(group->dir, "cgroup.kill", "1");
    return;
  }
  // What is frozen neither forks nor ends: the list stays true, and the signal waits for the thaw.
  write_file(group->dir, "freezer.state", "FROZEN");
  each_below(group->dir, kill_listed, false);
  kill_listed(group->dir);
  write_file(group->dir, "freezer.state", "THAWED");
}

static void close_fd(int *fd) {
  if (*fd >= 0) {
    close(*fd);
  }
  *fd = -1;
}

void cgroup_remove(struct cgroup *group) {
  if (group->dir >= 0) {
    each_below(group->dir, NULL, true);
    // A process that has been reaped leaves its group a moment later.
    const struct timespec moment = {0, 1000000};
    for (int i = 0;
         i < 100 && unlinkat(group->parent, group->name, AT_REMOVEDIR) != 0 && errno == EBUSY;
         i++) {
      nanosleep(&moment, NULL);
    }
  }
  close_fd(&group->procs);
  close_fd(&group->dir);
  close_fd(&group->parent);
}
