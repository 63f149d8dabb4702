# How our SQLite is compiled. Sorted; docs/sqlite-options.md explains every line. Also read by
# test/core/Makefile and by test/01.sqlite-options.test.js, line by line: an option per line, and
# nothing else that starts with a capital.
{
  'variables': {
    'sqlite_posix_options': [
      'HAVE_FDATASYNC=1',
      'HAVE_LOCALTIME_R=1',
    ],
    'sqlite_options': [
      'SQLITE_DEFAULT_CACHE_SIZE=-16000',
      'SQLITE_DEFAULT_FOREIGN_KEYS=1',
      'SQLITE_DEFAULT_MEMSTATUS=0',
      'SQLITE_DQS=0',
      'SQLITE_ENABLE_COLUMN_METADATA',
      'SQLITE_ENABLE_DBSTAT_VTAB',
      'SQLITE_ENABLE_FTS5',
      'SQLITE_ENABLE_MATH_FUNCTIONS',
      'SQLITE_ENABLE_RTREE',
      'SQLITE_ENABLE_STAT4',
      'SQLITE_LIKE_DOESNT_MATCH_BLOBS',
      'SQLITE_MAX_MMAP_SIZE=0',
      'SQLITE_MAX_WORKER_THREADS=0',
      'SQLITE_OMIT_DEPRECATED',
      'SQLITE_OMIT_LOAD_EXTENSION',
      'SQLITE_OMIT_SHARED_CACHE',
      'SQLITE_OMIT_TCL_VARIABLE',
      'SQLITE_TEMP_STORE=2',
      'SQLITE_THREADSAFE=2',
      'SQLITE_TRUSTED_SCHEMA=0',
      'SQLITE_USE_ALLOCA',
    ],
  },
}
