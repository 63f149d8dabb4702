/* Included before anything else where the published binaries for glibc are compiled: libc++ shall
 * use nothing that came after glibc 2.28. */
#include <features.h>
#undef __GLIBC_MINOR__
#define __GLIBC_MINOR__ 28
