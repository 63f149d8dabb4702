# What a migration drops or converts is not kept.
# found by schemas_converge
s/if \(rc == REPLIC_OK && may_have_lost\(b\)\) rc = keep_lost\(b\);//
