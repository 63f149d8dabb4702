# A jump rests on pieces that were read after it was made.
s/return \*rc != REPLIC_OK \|\| newest > age;/return *rc != REPLIC_OK;/
