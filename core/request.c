// SPDX-License-Identifier: MIT
#include "request.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const double SECONDS_MAX = 1e9;

// Written twice by the same functions: without a request it only measures.
struct writer {
  struct request *request;
  char *bytes; // where the next go
  size_t count;
  size_t size; // of all bytes
};

static const char *copy(struct writer *writer, const char *from, size_t size) {
  writer->size += size + 1;
  if (writer->request == NULL) {
    return NULL;
  }
  char *to = writer->bytes;
  if (size > 0) {
    memcpy(to, from, size);
  }
  to[size] = '\0';
  writer->bytes += size + 1;
  return to;
}

static void put(struct writer *writer, const char *group, const char *name, const void *value,
                size_t size) {
  // Names at the top are static, names in a map are the caller's.
  const char *key = group != NULL && name != NULL ? copy(writer, name, strlen(name)) : name;
  const char *text = copy(writer, value, size);
  if (writer->request != NULL) {
    writer->request->fields[writer->count] =
        (struct request_field){.group = group, .name = key, .value = text, .size = size};
  }
  writer->count++;
}

static void put_text(struct writer *writer, const char *name, const char *text) {
  if (text != NULL) {
    put(writer, NULL, name, text, strlen(text));
  }
}

static void put_list(struct writer *writer, const char *group, const char *const *list) {
  for (; list != NULL && *list != NULL; list++) {
    put(writer, group, NULL, *list, strlen(*list));
  }
}

static void put_pairs(struct writer *writer, const char *group, const struct farcall_pair *pairs) {
  for (; pairs != NULL && pairs->name != NULL; pairs++) {
    put(writer, group, pairs->name, pairs->value, strlen(pairs->value));
  }
}

static void put_command(struct writer *writer, const void *from) {
  const struct farcall_command *command = from;
  put_text(writer, "backend", command->backend);
  put_pairs(writer, "options", command->options);
  put_text(writer, "command", command->command);
  put_list(writer, "argv", command->argv);
  if (command->stdin_bytes != NULL) {
    put(writer, NULL, "stdin", command->stdin_bytes, command->stdin_size);
  }
  put_pairs(writer, "env", command->env);
  put_text(writer, "cwd", command->cwd);
}

static void put_job(struct writer *writer, const void *from) {
  const struct farcall_job *job = from;
  put_text(writer, "script", job->script);
  put_text(writer, "filename", job->filename);
  put_text(writer, "language", job->language);
  put_list(writer, "args", job->args);
  put_text(writer, "backend", job->backend);
  put_pairs(writer, "options", job->options);
  put_pairs(writer, "env", job->env);
  put_list(writer, "allow", job->allow);
  put_text(writer, "transport", job->transport);
}

static int make(void (*write)(struct writer *, const void *), const void *from, const char *kind,
                struct request **out) {
  struct writer measure = {0};
  write(&measure, from);
  size_t head = sizeof(struct request) + measure.count * sizeof(struct request_field);
  struct request *request = malloc(head + measure.size);
  if (request == NULL) {
    return FARCALL_ENOMEM;
  }
  *request = (struct request){.kind = kind, .count = measure.count};
  struct writer writer = {.request = request, .bytes = (char *)request + head};
  write(&writer, from);
  *out = request;
  return FARCALL_OK;
}

static bool are_pairs(const struct farcall_pair *pairs) {
  for (; pairs != NULL && pairs->name != NULL; pairs++) {
    if (pairs->name[0] == '\0' || pairs->value == NULL) {
      return false;
    }
  }
  return true;
}

static bool are_variables(const struct farcall_pair *pairs) {
  for (const struct farcall_pair *pair = pairs; pair != NULL && pair->name != NULL; pair++) {
    if (strchr(pair->name, '=') != NULL) {
      return false;
    }
  }
  return are_pairs(pairs);
}

// 0 is none; NaN is nothing.
static bool is_seconds(double seconds) {
  return seconds >= 0 && seconds <= SECONDS_MAX;
}

static bool is_command(const struct farcall_command *command) {
  bool has_argv = command->argv != NULL;
  return (command->command != NULL) != has_argv && (!has_argv || command->argv[0] != NULL) &&
         are_pairs(command->options) && are_variables(command->env) &&
         (command->stdin_bytes != NULL || command->stdin_size == 0) && is_seconds(command->timeout);
}

static int make_command(const struct farcall_command *command, const char *kind,
                        struct request **out) {
  int code = make(put_command, command, kind, out);
  if (code == FARCALL_OK) {
    (*out)->numbers[0] = (struct request_number){"timeout", command->timeout};
    (*out)->numbers[1] = (struct request_number){"max_output", (double)command->max_output};
  }
  return code;
}

int request_of_oneshot(const struct farcall_command *command, struct request **out) {
  return command != NULL && is_command(command) ? make_command(command, "oneshot", out)
                                                : FARCALL_EINVAL;
}

int request_of_shell(const struct farcall_command *command, struct request **out) {
  bool fine = command != NULL && command->command != NULL && is_command(command) &&
              command->stdin_bytes == NULL && command->env == NULL && command->cwd == NULL;
  return fine ? make_command(command, "shell", out) : FARCALL_EINVAL;
}

int request_of_job(const struct farcall_job *job, struct request **out) {
  if (job == NULL || job->script == NULL || !are_pairs(job->options) || !are_variables(job->env) ||
      !is_seconds(job->timeout)) {
    return FARCALL_EINVAL;
  }
  int code = make(put_job, job, "run", out);
  if (code == FARCALL_OK) {
    (*out)->numbers[0] = (struct request_number){"timeout", job->timeout};
    (*out)->numbers[1] = (struct request_number){"max_calls", job->max_calls};
  }
  return code;
}
