// statement.h - a statement of the application's and its parameters, as a call was given them.
#pragma once

#include <napi.h>

#include "job.h"

struct Statement {
  const char *sql = nullptr; // in the arena of the job, as all of it
  size_t len = 0;
  replic_param *params = nullptr;
  size_t n_params = 0;
  // Reads the arguments (sql, params, ...). False: the failure of `job` is set, or an exception
  // pending.
  bool given(const Napi::CallbackInfo &info, Job &job) {
    return given_sql(info, job) &&
           read_params(info.Env(), info[1], job.arena, job.failure, &params, &n_params);
  }
  // Reads (sql, ...), which has no parameters.
  bool given_sql(const Napi::CallbackInfo &info, Job &job) {
    sql = read_string(info.Env(), info[0], "sql", job.arena, job.failure, &len);
    return sql;
  }
  int start(replic_reader *db) const {
    return replic_reader_start(db, sql, len, params, n_params);
  }
};
