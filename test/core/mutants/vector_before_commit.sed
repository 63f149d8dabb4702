# The vector in memory moves on before the commit, also where that fails.
s/^( *)(if .*"COMMIT", &r->commit_sql.*)/\1if (rc == REPLIC_OK) replic__vector_settle(r);\n\1\2/
