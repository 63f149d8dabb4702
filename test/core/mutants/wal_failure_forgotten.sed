# What could not be written is tried again, and the transaction committed.
# found by test_wal_file a_failure_stays
s/if \(f->locked && rc != SQLITE_OK\) f->failed = rc;//
