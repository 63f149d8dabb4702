# Retention removes older patches of a key also where they still win a cell.
s/return wins \? REPLIC_OK : delete_patch\(s, older\);/(void)wins; return delete_patch(s, older);/
