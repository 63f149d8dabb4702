// What the addon needs of a C++ runtime, for the binaries that are published: so they depend on no
// libstdc++ or libc++, whose versions differ from system to system, and the same few lines serve
// glibc and musl. It is used with libc++'s headers, which declare these functions, and without
// exceptions. Who builds for the own machine uses the compiler's runtime instead of this file.

#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string>

// ---- memory: without exceptions there is nobody to tell --------------------------------------------

void *operator new(std::size_t size) {
  void *memory = std::malloc(size ? size : 1);
  if (!memory) std::abort();
  return memory;
}
void *operator new(std::size_t size, const std::nothrow_t &) noexcept {
  return std::malloc(size ? size : 1);
}
void *operator new[](std::size_t size) {
  return operator new(size);
}
void *operator new[](std::size_t size, const std::nothrow_t &nothrow) noexcept {
  return operator new(size, nothrow);
}
void operator delete(void *memory) noexcept {
  std::free(memory);
}
void operator delete[](void *memory) noexcept {
  std::free(memory);
}
void operator delete(void *memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void *memory, std::size_t) noexcept {
  std::free(memory);
}
const std::nothrow_t std::nothrow{};

// ---- <mutex>, <condition_variable>, <chrono>, <string> ---------------------------------------------

_LIBCPP_BEGIN_NAMESPACE_STD

void mutex::lock() {
  if (pthread_mutex_lock(&__m_) != 0) std::abort();
}
void mutex::unlock() noexcept {
  pthread_mutex_unlock(&__m_);
}

#ifndef _LIBCPP_HAS_TRIVIAL_MUTEX_DESTRUCTION
mutex::~mutex() noexcept {
  pthread_mutex_destroy(&__m_);
}
#endif

#ifndef _LIBCPP_HAS_TRIVIAL_CONDVAR_DESTRUCTION
condition_variable::~condition_variable() {
  pthread_cond_destroy(&__cv_);
}
#endif
void condition_variable::notify_all() noexcept {
  pthread_cond_broadcast(&__cv_);
}
void condition_variable::__do_timed_wait(
    unique_lock<mutex> &lock,
    chrono::time_point<chrono::system_clock, chrono::nanoseconds> until) noexcept {
  const long long ns = until.time_since_epoch().count();
  const timespec at = {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
  pthread_cond_timedwait(&__cv_, lock.mutex()->native_handle(), &at);
}

void __throw_system_error(int, const char *) {
  std::abort();
}

static chrono::nanoseconds now_of(clockid_t clock) {
  timespec at;
  clock_gettime(clock, &at);
  return chrono::seconds(at.tv_sec) + chrono::nanoseconds(at.tv_nsec);
}
namespace chrono {
steady_clock::time_point steady_clock::now() noexcept {
  return time_point(now_of(CLOCK_MONOTONIC));
}
system_clock::time_point system_clock::now() noexcept {
  return time_point(duration_cast<duration>(now_of(CLOCK_REALTIME)));
}
} // namespace chrono

string to_string(unsigned value) {
  return to_string(static_cast<unsigned long>(value));
}
string to_string(unsigned long value) {
  char text[24];
  std::snprintf(text, sizeof text, "%lu", value);
  return text;
}

// The number of buckets of a hash table: any odd number that no small prime divides will do.
size_t __next_prime(size_t least) {
  for (size_t n = least | 1;; n += 2) {
    size_t divisor = 3;
    while (divisor * divisor <= n && n % divisor != 0) divisor += 2;
    if (divisor * divisor > n) return n;
  }
}

_LIBCPP_END_NAMESPACE_STD

// ---- what the compiler calls -----------------------------------------------------------------------

extern "C" {

void *__dso_handle = nullptr; // the library is never unloaded (-z nodelete)

void __cxa_pure_virtual() {
  std::abort();
}

// Destructors of thread_local objects: run at the end of their thread. The C libraries have this
// under different names.
struct Destructor {
  void (*run)(void *);
  void *object;
  Destructor *next;
};

static pthread_key_t destructors;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void run_destructors(void *list) {
  for (Destructor *each = static_cast<Destructor *>(list); each;) {
    each->run(each->object);
    Destructor *next = each->next;
    std::free(each);
    each = next;
  }
}

static void make_key() {
  if (pthread_key_create(&destructors, run_destructors) != 0) std::abort();
}

int __cxa_thread_atexit(void (*run)(void *), void *object, void *) {
  pthread_once(&once, make_key);
  Destructor *added = static_cast<Destructor *>(std::malloc(sizeof *added));
  if (!added) return -1;
  *added = {run, object, static_cast<Destructor *>(pthread_getspecific(destructors))};
  return pthread_setspecific(destructors, added);
}

// ---- glibc before 2.33 has these under other names only --------------------------------------------

#ifdef __GLIBC__
#ifdef __aarch64__
enum { STAT_VERSION = 0 };
#else
enum { STAT_VERSION = 1 };
#endif
int __xstat64(int, const char *, void *);
int __lxstat64(int, const char *, void *);
int __fxstat64(int, int, void *);
int old_stat(const char *path, void *out) __asm__("stat64");
int old_lstat(const char *path, void *out) __asm__("lstat64");
int old_fstat(int file, void *out) __asm__("fstat64");
int old_stat(const char *path, void *out) {
  return __xstat64(STAT_VERSION, path, out);
}
int old_lstat(const char *path, void *out) {
  return __lxstat64(STAT_VERSION, path, out);
}
int old_fstat(int file, void *out) {
  return __fxstat64(STAT_VERSION, file, out);
}
#endif

} // extern "C"
