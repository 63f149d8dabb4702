/* params.c - the parameters of a statement, by position or by name.
 *
 * SQLite numbers the names of a statement, and finds one by going through all of them. So they are
 * asked for once per statement and put into a hash table; then each value that is given costs one
 * look-up, however many there are. */
#include <string.h>

#include "base/base.h"

struct replic__names {
  int count;         /* of the statement's parameters */
  uint32_t mask;     /* slots - 1; there are twice as many as parameters, or more */
  int *slots;        /* the number of a parameter, from 1; 0: free */
  const char **name; /* by number, with its prefix; NULL: it has none */
  char *given;       /* by number: 1 where this call has bound it */
};

static uint32_t hash(const char *name) { /* FNV-1a */
  uint32_t h = 2166136261u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
  return h;
}

static int is_name(const char *name) {
  return name && *name != '?';
}

/* SQLite's own, by number from 1, which do not outlive a change of the schema. `*size`: of the
 * texts. The caller frees the list. */
static const char **list_names(sqlite3_stmt *stmt, int count, size_t *size) {
  const char **list = sqlite3_malloc64(((size_t)count + 1) * sizeof *list);
  *size = 0;
  for (int i = 1; list && i <= count; i++) {
    list[i] = sqlite3_bind_parameter_name(stmt, i);
    if (list[i]) *size += strlen(list[i]) + 1;
  }
  return list;
}

/* One block for all of it: the table, then room for the texts. */
static replic__names *allocate(int count, size_t text_size, char **text) {
  size_t n_slots = 2, n = (size_t)count + 1;
  while (n_slots < 2 * n) n_slots *= 2;
  size_t size = sizeof(replic__names) + n * sizeof(char *) + n_slots * sizeof(int) + n + text_size;
  replic__names *names = sqlite3_malloc64(size);
  if (!names) return NULL;
  memset(names, 0, size);
  names->count = count;
  names->mask = (uint32_t)n_slots - 1;
  names->name = (const char **)(names + 1);
  names->slots = (int *)(names->name + n);
  names->given = (char *)(names->slots + n_slots);
  *text = names->given + n;
  return names;
}

static void add_name(replic__names *names, int index) {
  if (!is_name(names->name[index])) return;
  uint32_t slot = hash(names->name[index] + 1) & names->mask;
  while (names->slots[slot]) slot = (slot + 1) & names->mask;
  names->slots[slot] = index;
}

static replic__names *make_names(sqlite3_stmt *stmt) {
  int count = sqlite3_bind_parameter_count(stmt);
  size_t size;
  char *text;
  const char **list = list_names(stmt, count, &size);
  replic__names *names = list ? allocate(count, size, &text) : NULL;
  for (int i = 1; names && i <= count; i++) {
    if (!list[i]) continue;
    size_t len = strlen(list[i]) + 1;
    names->name[i] = memcpy(text, list[i], len);
    text += len;
    add_name(names, i);
  }
  sqlite3_free(list);
  return names;
}

static int bind_value(sqlite3_stmt *stmt, int index, const replic_value *value,
                      sqlite3_destructor_type lives) {
  const void *data = value->len ? value->data : ""; /* SQLite takes a NULL pointer for a NULL */
  switch (value->type) {
  case REPLIC_INT: return sqlite3_bind_int64(stmt, index, value->i);
  case REPLIC_REAL: return sqlite3_bind_double(stmt, index, value->d);
  case REPLIC_TEXT: return sqlite3_bind_text64(stmt, index, data, value->len, lives, SQLITE_UTF8);
  case REPLIC_BLOB: return sqlite3_bind_blob64(stmt, index, data, value->len, lives);
  default: return sqlite3_bind_null(stmt, index);
  }
}

static int refuse(char **why, const char *format, ...) {
  va_list args;
  va_start(args, format);
  *why = sqlite3_vmprintf(format, args);
  va_end(args);
  return REPLIC_EUSAGE;
}

static int bind_by_position(sqlite3_stmt *stmt, const replic_param *params, size_t n_params,
                            sqlite3_destructor_type lives, char **why) {
  int count = sqlite3_bind_parameter_count(stmt), rc = SQLITE_OK;
  if ((size_t)count != n_params)
    return refuse(why, "the statement has %d parameters, %lld were given", count,
                  (sqlite3_int64)n_params);
  for (int i = 0; rc == SQLITE_OK && i < count; i++)
    rc = bind_value(stmt, i + 1, &params[i].value, lives);
  return rc;
}

/* Of one name there can be several, as :a and @a. `*found`: how many. */
static int bind_name(sqlite3_stmt *stmt, replic__names *names, const replic_param *param,
                     sqlite3_destructor_type lives, int *found) {
  int rc = SQLITE_OK, index;
  *found = 0;
  for (uint32_t slot = hash(param->name) & names->mask;
       rc == SQLITE_OK && (index = names->slots[slot]) != 0; slot = (slot + 1) & names->mask) {
    if (strcmp(names->name[index] + 1, param->name) != 0) continue;
    rc = bind_value(stmt, index, &param->value, lives);
    names->given[index] = 1;
    ++*found;
  }
  return rc;
}

/* `extra`: a name that was given and is none of the statement's, or NULL. Some packages want the
 * prefix in it, this one does not. */
static int refuse_missing(const char *name, int position, const char *extra, char **why) {
  if (!is_name(name)) return refuse(why, "parameter %d has no name: give an array", position);
  if (!extra || *extra != *name) return refuse(why, "parameter %s was not given", name);
  return refuse(why, "parameter %s was not given: give it as %s, without the %c", name, name + 1,
                name[0]);
}

static int bind_by_name(sqlite3_stmt *stmt, const replic_param *params, size_t n_params,
                        sqlite3_destructor_type lives, replic__names *names, char **why) {
  const char *extra = NULL;
  memset(names->given, 0, (size_t)names->count + 1);
  for (size_t i = 0; i < n_params; i++) {
    int found, rc = bind_name(stmt, names, &params[i], lives, &found);
    if (rc != SQLITE_OK) return rc;
    if (!found && !extra) extra = params[i].name;
  }
  for (int i = 1; i <= names->count; i++) {
    if (!names->given[i]) return refuse_missing(names->name[i], i, extra, why);
  }
  return extra ? refuse(why, "the statement has no parameter %s", extra) : SQLITE_OK;
}

int replic__bind_params(sqlite3_stmt *stmt, const replic_param *params, size_t n_params,
                        sqlite3_destructor_type lives, replic__names **names, char **why) {
  *why = NULL;
  if (!n_params || !params[0].name) return bind_by_position(stmt, params, n_params, lives, why);
  if (!*names) *names = make_names(stmt);
  return *names ? bind_by_name(stmt, params, n_params, lives, *names, why) : SQLITE_NOMEM;
}
