# What is known is applied once more, as if it were new.
/if \(p->sequence <= known\) continue;/d
s/\|\| duplicate\)/|| (duplicate \&\& local))/
s/if \(!local && !newest\) rc = replic__log_newer/if (!local \&\& !newest \&\& !duplicate) rc = replic__log_newer/
