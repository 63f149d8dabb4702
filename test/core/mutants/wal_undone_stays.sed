# What a transaction has left in the buffer is written by a later one, over another program's.
# found by test_wal_file what_was_acknowledged
s/f->locked = f->n = f->through = 0;/f->locked = f->through = 0;/
