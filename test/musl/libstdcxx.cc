// As much of libstdc++ as Bun's build for musl asks for, on machines that have none for musl: Debian has
// musl, and GNU's C++ library for glibc only. Red-black trees, lists and hash tables come from that one's
// archive, as they need no C library. Nothing here throws: who would, aborts. For tests only.

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#define ABORTS(name)   \
  void name(void) {    \
    abort();           \
  }

extern "C" {
ABORTS(_ZSt20__throw_length_errorPKc)
ABORTS(_ZSt28__throw_bad_array_new_lengthv)
ABORTS(_ZSt17__throw_bad_allocv)
ABORTS(_ZSt20__throw_system_errori)
ABORTS(_ZSt24__throw_out_of_range_fmtPKcz)
ABORTS(_ZSt19__throw_logic_errorPKc)
ABORTS(_ZSt25__throw_bad_function_callv)
ABORTS(_ZSt21__glibcxx_assert_failPKciS0_S0_)
ABORTS(_ZSt9terminatev)
ABORTS(__cxa_bad_typeid)
ABORTS(__cxa_pure_virtual)

void *_ZSt13set_terminatePFvvE(void *) {
  return nullptr;
}
void *_ZSt15get_new_handlerv() {
  return nullptr;
}
char *__cxa_demangle(const char *, char *, size_t *, int *status) {
  *status = -1; // out of memory: the name stays as it is
  return nullptr;
}

void _ZdlPvm(void *memory, size_t) {
  free(memory);
}

// std::call_once
thread_local void *_ZSt15__once_callable;
thread_local void (*_ZSt11__once_call)();
void __once_proxy() {
  _ZSt11__once_call();
}

// Statics of functions: the first byte says that it is made, the second that it is being made.
static pthread_mutex_t guards = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t made = PTHREAD_COND_INITIALIZER;
int __cxa_guard_acquire(unsigned char *guard) {
  pthread_mutex_lock(&guards);
  while (guard[1]) pthread_cond_wait(&made, &guards);
  int wanted = !guard[0];
  guard[1] = (unsigned char)wanted;
  pthread_mutex_unlock(&guards);
  return wanted;
}
void __cxa_guard_release(unsigned char *guard) {
  pthread_mutex_lock(&guards);
  guard[0] = 1;
  guard[1] = 0;
  pthread_cond_broadcast(&made);
  pthread_mutex_unlock(&guards);
}

// std::condition_variable: it holds a pthread_cond_t, and a unique_lock a pointer to a mutex first.
void _ZNSt18condition_variableC1Ev(pthread_cond_t *self) {
  pthread_cond_init(self, nullptr);
}
void _ZNSt18condition_variableD1Ev(pthread_cond_t *self) {
  pthread_cond_destroy(self);
}
void _ZNSt18condition_variable10notify_oneEv(pthread_cond_t *self) {
  pthread_cond_signal(self);
}
void _ZNSt18condition_variable10notify_allEv(pthread_cond_t *self) {
  pthread_cond_broadcast(self);
}
void _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE(pthread_cond_t *self,
                                                               pthread_mutex_t **lock) {
  pthread_cond_wait(self, *lock);
}

long long _ZNSt6chrono3_V212steady_clock3nowEv() {
  timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

// Of threads that end: Bun's own are few, and what they leave goes with the process.
int __cxa_thread_atexit_impl(void (*)(void *), void *, void *) {
  return 0;
}
}
