/* Records what a process does to the files below one folder, for `disk.py` to lose some of it.
 *
 * Preloaded (ld.so(8)), it stands before libc's wrappers of the system calls that change files. With
 * POWER_ROOT (a real path) and POWER_TRACE set, each change below the root that succeeded is
 * appended to the trace, in the order in which the changes took place: a lock is held from before
 * the call to after its record, in all processes. An fsync has two records, since only what was
 * written before it began is durable when it has ended.
 *
 * A record: operation (1 byte), three numbers (8 bytes each), the lengths of two byte strings (4
 * each), the strings. Files and folders are told by their inode numbers. Not seen: writes to mapped
 * memory (SQLite maps its index of the log, which no recovery reads) and programs linked statically.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define HIGH 900 /* descriptors of our own, where no program looks */
#define REAL(type, name, ...)                                                                      \
    static type (*real)(__VA_ARGS__);                                                              \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static const char *root;
static size_t root_length;
static int trace = -1, lock_file = -1;
static uint64_t sync_count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void prepare(void) { pthread_mutex_lock(&mutex); }
static void release(void) { pthread_mutex_unlock(&mutex); }

static int open_high(const char *path, int flags)
{
    REAL(int, "open64", const char *, int, ...);
    int low = real(path, flags | O_CLOEXEC, 0600);
    int high = fcntl(low, F_DUPFD_CLOEXEC, HIGH);
    close(low);
    return high;
}

__attribute__((constructor)) static void set_up(void)
{
    const char *path = getenv("POWER_TRACE");
    root = getenv("POWER_ROOT");
    if (!root || !path) return;
    root_length = strlen(root);
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s.lock", path);
    lock_file = open_high(name, O_RDWR | O_CREAT);
    trace = open_high(path, O_WRONLY | O_CREAT | O_APPEND);
    pthread_atfork(prepare, release, release);
}

static void hold(short type)
{
    struct flock whole = {.l_type = type, .l_whence = SEEK_SET};
    while (fcntl(lock_file, F_SETLKW, &whole) < 0 && errno == EINTR) {}
}

static void enter(void)
{
    pthread_mutex_lock(&mutex);
    hold(F_WRLCK);
}

static void leave(void)
{
    int saved = errno;
    hold(F_UNLCK);
    pthread_mutex_unlock(&mutex);
    errno = saved;
}

static void record(char operation, uint64_t a, uint64_t b, uint64_t c, const void *first,
                   uint32_t first_length, const void *second, uint32_t second_length)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    char head[33];
    head[0] = operation;
    memcpy(head + 1, &a, 8);
    memcpy(head + 9, &b, 8);
    memcpy(head + 17, &c, 8);
    memcpy(head + 25, &first_length, 4);
    memcpy(head + 29, &second_length, 4);
    struct iovec parts[] = {
        {head, sizeof head}, {(void *)first, first_length}, {(void *)second, second_length}};
    ssize_t expected = (ssize_t)(sizeof head + first_length + second_length);
    int saved = errno;
    if (real(trace, parts, 3) != expected) abort();
    errno = saved;
}

static int is_below(const char *path)
{
    return !strncmp(path, root, root_length) && (!path[root_length] || path[root_length] == '/');
}

/* Whether an open file or folder is below the root; its status. */
static int is_ours(int descriptor, struct stat *status)
{
    char link[64], path[PATH_MAX];
    int saved = errno;
    if (trace < 0 || descriptor == trace) return 0;
    int ours = !fstat(descriptor, status) && (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode));
    if (ours) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length < 0 ? 0 : length] = 0;
        ours = is_below(path);
    }
    errno = saved;
    return ours;
}

/* The folder that an entry is in, and the entry's name; 0 if it is not below the root. */
struct place {
    uint64_t folder;
    char name[NAME_MAX + 1];
};

static int locate(int at, const char *path, struct place *place)
{
    REAL(int, "openat64", int, const char *, int, ...);
    char parent[PATH_MAX];
    struct stat status;
    int saved = errno, ours = 0;
    if (trace < 0 || !path || strlen(path) >= sizeof parent) return 0;
    strcpy(parent, path);
    size_t end = strlen(parent);
    while (end > 1 && parent[end - 1] == '/') parent[--end] = 0;
    char *slash = strrchr(parent, '/');
    const char *name = slash ? slash + 1 : parent;
    if (strlen(name) >= sizeof place->name) return 0;
    strcpy(place->name, name);
    if (slash) slash[slash == parent] = 0;
    int folder = real(at, slash ? parent : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        ours = is_ours(folder, &status);
        place->folder = status.st_ino;
        close(folder);
    }
    errno = saved;
    return ours;
}

static uint64_t inode_at(int at, const char *path)
{
    struct stat status;
    int saved = errno;
    uint64_t inode = fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW) ? 0 : status.st_ino;
    errno = saved;
    return inode;
}

/* -- opening --------------------------------------------------------------------------------- */

static int open_at(int at, const char *path, int flags, mode_t mode)
{
    REAL(int, "openat64", int, const char *, int, ...);
    struct place place;
    struct stat status;
    int is_unnamed = (flags & O_TMPFILE) == O_TMPFILE;
    if (!(flags & (O_CREAT | O_TRUNC)) && !is_unnamed) return real(at, path, flags, mode);
    if (is_unnamed) {
        int descriptor = real(at, path, flags, mode);
        if (descriptor >= 0 && is_ours(descriptor, &status)) {
            enter();
            record('T', status.st_ino, 0, 0, NULL, 0, NULL, 0);
            leave();
        }
        return descriptor;
    }
    if (!locate(at, path, &place)) return real(at, path, flags, mode);
    enter();
    uint64_t before = inode_at(at, path);
    int descriptor = real(at, path, flags, mode);
    if (descriptor >= 0 && !fstat(descriptor, &status)) {
        if (!before)
            record('C', place.folder, status.st_ino, 0, place.name, strlen(place.name), NULL, 0);
        else if (flags & O_TRUNC)
            record('Z', status.st_ino, 0, 0, NULL, 0, NULL, 0);
    }
    leave();
    return descriptor;
}

#define OPEN(name, flags)                                                                          \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;                  \
        va_end(rest);                                                                              \
        return open_at(AT_FDCWD, path, flags, mode);                                               \
    }
#define OPENAT(name, flags)                                                                        \
    int name(int at, const char *path, int flags, ...)                                             \
    {                                                                                              \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;                  \
        va_end(rest);                                                                              \
        return open_at(at, path, flags, mode);                                                     \
    }
OPEN(open, flags)
OPEN(open64, flags)
OPENAT(openat, flags)
OPENAT(openat64, flags)
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }
int creat(const char *path, mode_t mode)
{
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* -- contents -------------------------------------------------------------------------------- */

#define WRITTEN(descriptor, call, offset, data)                                                    \
    struct stat status;                                                                            \
    if (!is_ours(descriptor, &status)) return call;                                                \
    enter();                                                                                       \
    ssize_t done = call;                                                                           \
    if (done > 0) record('W', status.st_ino, offset, 0, data, done, NULL, 0);                      \
    leave();                                                                                       \
    return done

ssize_t write(int descriptor, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    WRITTEN(descriptor, real(descriptor, data, size), lseek(descriptor, 0, SEEK_CUR) - done, data);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    WRITTEN(descriptor, real(descriptor, data, size, offset), offset, data);
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset)
{
    return pwrite64(descriptor, data, size, offset);
}

/* What was copied by the kernel is read back: the descriptor itself may be for writing only. */
static void record_copied(int descriptor, uint64_t inode, off64_t offset, size_t size)
{
    REAL(int, "open64", const char *, int, ...);
    char link[64], *data = malloc(size);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int again = real(link, O_RDONLY | O_CLOEXEC);
    if (!data || again < 0 || pread(again, data, size, offset) != (ssize_t)size) abort();
    record('W', inode, offset, 0, data, size, NULL, 0);
    close(again);
    free(data);
}

#define COPIED(descriptor, call, offset)                                                           \
    struct stat status;                                                                            \
    if (!is_ours(descriptor, &status)) return call;                                                \
    enter();                                                                                       \
    ssize_t done = call;                                                                           \
    if (done > 0) record_copied(descriptor, status.st_ino, offset, done);                          \
    leave();                                                                                       \
    return done

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    COPIED(descriptor, real(descriptor, parts, count), lseek(descriptor, 0, SEEK_CUR) - done);
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t size)
{
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    COPIED(out, real(out, in, offset, size), lseek(out, 0, SEEK_CUR) - done);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size)
{
    return sendfile64(out, in, offset, size);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags)
{
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    COPIED(out, real(in, from, out, to, size, flags),
           (to ? *to : lseek(out, 0, SEEK_CUR)) - done);
}

int ftruncate64(int descriptor, off64_t size)
{
    REAL(int, "ftruncate64", int, off64_t);
    struct stat status;
    if (!is_ours(descriptor, &status)) return real(descriptor, size);
    enter();
    int failed = real(descriptor, size);
    if (!failed) record('Z', status.st_ino, size, 0, NULL, 0, NULL, 0);
    leave();
    return failed;
}
int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

int posix_fallocate64(int descriptor, off64_t offset, off64_t size)
{
    REAL(int, "posix_fallocate64", int, off64_t, off64_t);
    struct stat status;
    if (!is_ours(descriptor, &status)) return real(descriptor, offset, size);
    enter();
    int failed = real(descriptor, offset, size);
    if (!failed && offset + size > status.st_size)
        record('Z', status.st_ino, offset + size, 0, NULL, 0, NULL, 0);
    leave();
    return failed;
}
int posix_fallocate(int descriptor, off_t offset, off_t size)
{
    return posix_fallocate64(descriptor, offset, size);
}

static int synced(int descriptor, int (*real)(int))
{
    struct stat status;
    if (!is_ours(descriptor, &status)) return real(descriptor);
    enter();
    uint64_t token = ((uint64_t)getpid() << 32) + ++sync_count;
    record('S', status.st_ino, token, 0, NULL, 0, NULL, 0);
    leave();
    int failed = real(descriptor);
    if (!failed) {
        enter();
        record('E', status.st_ino, token, 0, NULL, 0, NULL, 0);
        leave();
    }
    return failed;
}
int fsync(int descriptor)
{
    REAL(int, "fsync", int);
    return synced(descriptor, real);
}
int fdatasync(int descriptor)
{
    REAL(int, "fdatasync", int);
    return synced(descriptor, real);
}

/* -- entries of folders ---------------------------------------------------------------------- */

int mkdirat(int at, const char *path, mode_t mode)
{
    REAL(int, "mkdirat", int, const char *, mode_t);
    struct place place;
    if (!locate(at, path, &place)) return real(at, path, mode);
    enter();
    int failed = real(at, path, mode);
    if (!failed)
        record('D', place.folder, inode_at(at, path), 0, place.name, strlen(place.name), NULL, 0);
    leave();
    return failed;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int linkat(int from_at, const char *from, int at, const char *path, int flags)
{
    REAL(int, "linkat", int, const char *, int, const char *, int);
    struct place place;
    if (!locate(at, path, &place)) return real(from_at, from, at, path, flags);
    enter();
    int failed = real(from_at, from, at, path, flags);
    if (!failed)
        record('L', place.folder, inode_at(at, path), 0, place.name, strlen(place.name), NULL, 0);
    leave();
    return failed;
}
int link(const char *from, const char *path)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, path, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    REAL(int, "unlinkat", int, const char *, int);
    struct place place;
    if (!locate(at, path, &place)) return real(at, path, flags);
    enter();
    int failed = real(at, path, flags);
    if (!failed) record('U', place.folder, 0, 0, place.name, strlen(place.name), NULL, 0);
    leave();
    return failed;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int renameat2(int from_at, const char *from, int at, const char *path, unsigned flags)
{
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    struct place old, new;
    int is_from = locate(from_at, from, &old), is_to = locate(at, path, &new);
    if (!is_from && !is_to) return real(from_at, from, at, path, flags);
    if (!is_from || !is_to) abort(); /* into or out of the root: not recorded, so not done */
    enter();
    uint64_t inode = inode_at(from_at, from);
    int failed = real(from_at, from, at, path, flags);
    if (!failed)
        record('R', old.folder, new.folder, inode, old.name, strlen(old.name), new.name,
               strlen(new.name));
    leave();
    return failed;
}
int renameat(int from_at, const char *from, int at, const char *path)
{
    return renameat2(from_at, from, at, path, 0);
}
int rename(const char *from, const char *path)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, path, 0);
}
