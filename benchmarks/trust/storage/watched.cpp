// Preloaded into a process of the campaign: sees the calls of the system that concern one folder, and
// acts at the n-th, or keeps a record of what they write. For glibc on Linux; Python's own calls go
// through these functions (docs/trust.md says how that was checked).
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>

namespace {

// What happens at the n-th call.
enum Action { NOTHING, KILL, TORN, FAIL, FAIL_ON, SHORT, LIE };
// What calls are of; LEAVES: something on the disk may be another afterwards.
enum Kind { READS, WRITES, LEAVES };

std::string folder;
std::atomic<unsigned char> watched[4096];  // descriptors of what is in the folder
std::atomic<bool> armed{false};
std::atomic<long> calls{0}, hits{0};
long place = -1;
int action = NOTHING, error = 0;
std::string names;  // of the calls that were counted

bool recording = false;
std::string record;
std::mutex guard;

bool within(const char* path) {
  return !folder.empty() && path != nullptr && std::strncmp(path, folder.c_str(), folder.size()) == 0;
}

bool within(int handle) { return handle >= 0 && handle < 4096 && watched[handle]; }

void watch(int handle, bool yes) {
  if (handle >= 0 && handle < 4096) watched[handle] = yes;
}

// Says what becomes of a call: done as it is, or the error to return.
struct Fate {
  bool hit = false;
  int action = NOTHING;
};

Fate fate(const char* name, Kind kind) {
  if (!armed) return {};
  const long number = calls++;
  {
    const std::lock_guard<std::mutex> lock(guard);
    names += name;
    names += kind == WRITES ? "+" : "";
    names += '\n';
  }
  if (place < 0 || number < place) return {};
  if (number > place && action != FAIL_ON) return {};
  // A full disk refuses what needs room, and nothing else.
  if (action == FAIL_ON && error == ENOSPC && kind == READS) return {};
  ++hits;
  if (action == KILL || (action == TORN && kind != WRITES)) ::kill(::getpid(), SIGKILL);
  return {true, action == FAIL_ON ? FAIL : action};
}

// A call that returns something below 0, or null, where it fails.
template <class Result, class Call>
Result perform(const char* name, Kind kind, Result failure, bool ours, Call call) {
  const Fate f = ours ? fate(name, kind) : Fate{};
  if (f.hit && f.action == FAIL) {
    errno = error;
    return failure;
  }
  Result result = call();
  if (f.hit && f.action == LIE) {
    errno = error;
    return failure;
  }
  return result;
}

// One that moves bytes; half of them where it is short.
template <class Call>
ssize_t transfer(const char* name, Kind kind, int handle, std::size_t size, Call call) {
  const Fate f = within(handle) ? fate(name, kind) : Fate{};
  if (f.hit && f.action == FAIL) {
    errno = error;
    return -1;
  }
  const bool half = f.hit && (f.action == SHORT || f.action == TORN) && size > 1;
  const ssize_t done = call(half ? (size + 1) / 2 : size);
  if (f.hit && f.action == TORN) ::kill(::getpid(), SIGKILL);
  if (f.hit && f.action == LIE) {
    errno = error;
    return -1;
  }
  return done;
}

// ---- The record: a letter, numbers and texts, each text after its length

void put(std::uint64_t number) { record.append(reinterpret_cast<const char*>(&number), 8); }

void put(const void* data, std::size_t size) {
  put(size);
  record.append(static_cast<const char*>(data), size);
}

void put(const char* text) { put(text, std::strlen(text)); }

template <class... Parts>
void note(char what, Parts... parts) {
  const std::lock_guard<std::mutex> lock(guard);
  record += what;
  (put(parts), ...);
}

void note_write(int handle, std::uint64_t offset, const void* data, std::size_t size) {
  const std::lock_guard<std::mutex> lock(guard);
  record += 'w';
  put(static_cast<std::uint64_t>(handle));
  put(offset);
  put(data, size);
}

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

#define REAL(name) static const auto original = real<decltype(&::name)>(#name)

int opened(int handle, const char* path, int flags) {
  watch(handle, true);
  if (recording && handle >= 0) {
    const std::uint64_t made = (flags & O_CREAT) != 0, emptied = (flags & O_TRUNC) != 0;
    note('o', static_cast<std::uint64_t>(handle), made, emptied, path);
  }
  return handle;
}

template <class Call>
int open_any(const char* path, int flags, Call call) {
  const bool ours = within(path);
  const int handle = perform("open", flags & O_CREAT ? LEAVES : READS, -1, ours, call);
  return ours && handle >= 0 ? opened(handle, path, flags) : handle;
}

}  // namespace

extern "C" {

// ---- What the campaign calls

void watch_folder(const char* path) { folder = path; }

// From now on calls are counted; the n-th (from 0) is acted at.
void arm(long n, int what, int number) {
  armed = false;
  place = n;
  action = what;
  error = number;
  calls = hits = 0;
  names.clear();
  armed = true;
}

// Stops that; returns how often it acted.
long disarm() {
  armed = false;
  return hits;
}

const char* names_of_calls() { return names.c_str(); }

void begin_record() {
  record.clear();
  recording = true;
}

void end_record() { recording = false; }

void note_moment(std::uint64_t number) {
  if (recording) note('m', number);
}

std::size_t record_size() { return record.size(); }

const char* record_data() { return record.data(); }

// ---- What is in their place

int open64(const char* path, int flags, ...) {
  REAL(open64);
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open_any(path, flags, [&] { return original(path, flags, mode); });
}

int openat64(int directory, const char* path, int flags, ...) {
  REAL(openat64);
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open_any(path, flags, [&] { return original(directory, path, flags, mode); });
}

// It is closed whatever is returned, as Linux does it.
int close(int handle) {
  REAL(close);
  const bool ours = within(handle);
  const Fate f = ours ? fate("close", LEAVES) : Fate{};
  watch(handle, false);
  if (ours && recording) note('c', static_cast<std::uint64_t>(handle));
  const int result = original(handle);
  if (f.hit && (f.action == FAIL || f.action == LIE)) {
    errno = error;
    return -1;
  }
  return result;
}

ssize_t read(int handle, void* data, std::size_t size) {
  REAL(read);
  return transfer("read", READS, handle, size, [&](std::size_t n) { return original(handle, data, n); });
}

ssize_t pread64(int handle, void* data, std::size_t size, off64_t offset) {
  REAL(pread64);
  return transfer("read", READS, handle, size,
                  [&](std::size_t n) { return original(handle, data, n, offset); });
}

ssize_t write(int handle, const void* data, std::size_t size) {
  REAL(write);
  return transfer("write", WRITES, handle, size, [&](std::size_t n) {
    off64_t offset = 0;
    if (within(handle) && recording) {
      const bool appends = (::fcntl(handle, F_GETFL) & O_APPEND) != 0;
      offset = ::lseek64(handle, 0, appends ? SEEK_END : SEEK_CUR);
    }
    const ssize_t done = original(handle, data, n);
    if (within(handle) && recording && done > 0) note_write(handle, offset, data, done);
    return done;
  });
}

ssize_t pwrite64(int handle, const void* data, std::size_t size, off64_t offset) {
  REAL(pwrite64);
  return transfer("write", WRITES, handle, size, [&](std::size_t n) {
    const ssize_t done = original(handle, data, n, offset);
    if (within(handle) && recording && done > 0) note_write(handle, offset, data, done);
    return done;
  });
}

// Of the first part only; who calls it goes on with the rest.
ssize_t writev(int handle, const struct iovec* parts, int count) {
  REAL(writev);
  if (!within(handle) || count < 1) return original(handle, parts, count);
  return write(handle, parts[0].iov_base, parts[0].iov_len);
}

int fsync(int handle) {
  REAL(fsync);
  const int result = perform("fsync", LEAVES, -1, within(handle), [&] { return original(handle); });
  if (result == 0 && within(handle) && recording) note('s', static_cast<std::uint64_t>(handle));
  return result;
}

int fdatasync(int handle) {
  REAL(fdatasync);
  const int result =
      perform("fdatasync", LEAVES, -1, within(handle), [&] { return original(handle); });
  if (result == 0 && within(handle) && recording) note('s', static_cast<std::uint64_t>(handle));
  return result;
}

int ftruncate64(int handle, off64_t length) {
  REAL(ftruncate64);
  return perform("ftruncate", LEAVES, -1, within(handle), [&] {
    const int result = original(handle, length);
    if (result == 0 && within(handle) && recording) {
      note('t', static_cast<std::uint64_t>(handle), static_cast<std::uint64_t>(length));
    }
    return result;
  });
}

off64_t lseek64(int handle, off64_t offset, int from) noexcept {
  REAL(lseek64);
  return perform("lseek", READS, off64_t{-1}, within(handle),
                 [&] { return original(handle, offset, from); });
}

int rename(const char* from, const char* to) {
  REAL(rename);
  return perform("rename", LEAVES, -1, within(from), [&] {
    const int result = original(from, to);
    if (result == 0 && within(from) && recording) note('r', from, to);
    return result;
  });
}

int unlink(const char* path) noexcept {
  REAL(unlink);
  // No room is needed for it.
  return perform("unlink", READS, -1, within(path), [&] {
    const int result = original(path);
    if (result == 0 && within(path) && recording) note('u', path);
    return result;
  });
}

int mkdir(const char* path, mode_t mode) noexcept {
  REAL(mkdir);
  return perform("mkdir", LEAVES, -1, within(path), [&] {
    const int result = original(path, mode);
    if (result == 0 && within(path) && recording) note('d', path);
    return result;
  });
}

int flock(int handle, int operation) noexcept {
  REAL(flock);
  return perform("flock", READS, -1, within(handle), [&] { return original(handle, operation); });
}

void* mmap64(void* address, std::size_t size, int protection, int flags, int handle,
             off64_t offset) noexcept {
  REAL(mmap64);
  return perform("mmap", READS, MAP_FAILED, within(handle),
                 [&] { return original(address, size, protection, flags, handle, offset); });
}

int stat64(const char* path, struct stat64* found) noexcept {
  REAL(stat64);
  return perform("stat", READS, -1, within(path), [&] { return original(path, found); });
}

int lstat64(const char* path, struct stat64* found) noexcept {
  REAL(lstat64);
  return perform("lstat", READS, -1, within(path), [&] { return original(path, found); });
}

int fstat64(int handle, struct stat64* found) noexcept {
  REAL(fstat64);
  return perform("fstat", READS, -1, within(handle), [&] { return original(handle, found); });
}

int fstatat64(int directory, const char* path, struct stat64* found, int flags) noexcept {
  REAL(fstatat64);
  return perform("fstatat", READS, -1, within(path),
                 [&] { return original(directory, path, found, flags); });
}

ssize_t readlink(const char* path, char* text, std::size_t size) noexcept {
  REAL(readlink);
  return perform("readlink", READS, ssize_t{-1}, within(path),
                 [&] { return original(path, text, size); });
}

DIR* opendir(const char* path) {
  REAL(opendir);
  DIR* made = perform("opendir", READS, static_cast<DIR*>(nullptr), within(path),
                      [&] { return original(path); });
  if (made != nullptr && within(path)) watch(dirfd(made), true);
  return made;
}

struct dirent64* readdir64(DIR* directory) {
  REAL(readdir64);
  return perform("readdir", READS, static_cast<struct dirent64*>(nullptr),
                 within(dirfd(directory)), [&] { return original(directory); });
}

int closedir(DIR* directory) {
  REAL(closedir);
  watch(dirfd(directory), false);
  return original(directory);
}

}  // extern "C"
