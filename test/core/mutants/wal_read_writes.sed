# Reading writes what is in the buffer, and loses it where that fails.
# found by test_wal_file what_was_acknowledged
s/^  const wal_file \*f = wal_of\(file\);$/  wal_file *f = wal_of(file); int flushed = flush(file); f->n = 0; f->failed = SQLITE_OK; if (flushed != SQLITE_OK) return flushed;/
