/* Preloaded into a process of the campaign: lets allocations fail. glibc only, whose own names of
 * the functions are called. */
#include <errno.h>
#include <stddef.h>
#include <stdatomic.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static atomic_long left = -1; /* allocations until one fails; below 0: none does */
static atomic_int all;        /* and all after it */
static atomic_long failed;

/* From now on the n-th allocation (from 0) fails; n < 0: no more. Returns how many have failed. */
long fail_allocation(long n, int and_all_others) {
  const long before = atomic_exchange(&failed, 0);
  atomic_store(&all, and_all_others);
  atomic_store(&left, n);
  return before;
}

static int fails(void) {
  if (atomic_load_explicit(&left, memory_order_relaxed) < 0) return 0;
  const long mine = atomic_fetch_sub(&left, 1);
  if (mine != 0) return 0;
  if (atomic_load(&all)) atomic_store(&left, 0);
  atomic_fetch_add(&failed, 1);
  errno = ENOMEM;
  return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) {
  return fails() ? NULL : __libc_memalign(alignment, size);
}
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void **made, size_t alignment, size_t size) {
  void *block = memalign(alignment, size);
  if (block == NULL) return ENOMEM;
  *made = block;
  return 0;
}
