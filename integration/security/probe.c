/* What a hostile step does: one kind of attack an argument. It prints what it reached. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int is_over(const struct timespec *start, long milliseconds)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000 >= milliseconds;
}

/* Opens every program that runs, then opens it again for writing. */
static int programs(long milliseconds)
{
    struct timespec start;
    long seen = 0, written = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    while (!is_over(&start, milliseconds)) {
        DIR *proc = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(proc));) {
            char path[300];
            snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
            int found = open(path, O_PATH | O_CLOEXEC);
            if (found < 0)
                continue;
            seen++;
            snprintf(path, sizeof path, "/proc/self/fd/%d", found);
            int again = open(path, O_WRONLY | O_CLOEXEC);
            if (again >= 0) {
                written += write(again, "#", 1) == 1;
                close(again);
            }
            close(found);
        }
        closedir(proc);
    }
    printf("programs %s, written %ld\n", seen > 0 ? "seen" : "unseen", written);
    return 0;
}

/* Exchanges two names again and again, until the time is over or a third one is there. */
static int swap(const char *one, const char *other, const char *stop, long milliseconds)
{
    struct timespec start;
    long done = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    while (!is_over(&start, milliseconds) && access(stop, F_OK) != 0)
        for (int i = 0; i < 100; i++)
            done += syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2) == 0;
    printf("swapped %s\n", done > 0 ? "often" : "never");
    return 0;
}

/* Sends one frame to the agent; the kind of the answer, or -1 where the connection ends. */
static int ask(const char *path, const unsigned char *frame, size_t length)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    unsigned char answer[5] = { 0 };
    size_t got = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("connect");
        exit(1);
    }
    if (write(fd, frame, length) != (ssize_t)length)
        perror("write");
    while (got < sizeof answer) {
        ssize_t count = read(fd, answer + got, sizeof answer - got);
        if (count <= 0)
            break;
        got += count;
    }
    close(fd);
    return got == sizeof answer ? answer[4] : -1;
}

/* Asks an agent for everything there is, and with lengths that no request has. */
static int agent(const char *path)
{
    int answered = 0, refused = 0, other = 0, broken = 0;
    for (int kind = 0; kind < 256; kind++) {
        unsigned char frame[5] = { 0, 0, 0, 1, kind };
        int answer = ask(path, frame, sizeof frame);
        answered += answer == 12;
        refused += answer == 5;
        other += answer != 12 && answer != 5;
    }
    const unsigned char lengths[3][5] = { { 0, 0, 0, 0, 11 }, { 0, 4, 0, 1, 11 }, { 255, 255, 255, 255, 11 } };
    for (int at = 0; at < 3; at++)
        broken += ask(path, lengths[at], 5) >= 0;
    printf("answered %d, refused %d, other %d; out of range answered %d\n", answered, refused, other, broken);
    return 0;
}

/* Tries to reach every process there could be. */
static int processes(void)
{
    long reached = 0;
    for (int pid = 1; pid <= 65535; pid++) {
        if (pid == getpid())
            continue;
        char byte;
        struct iovec here = { &byte, 1 }, there = { (void *)0x1000, 1 };
        reached += kill(pid, 0) == 0;
        reached += process_vm_readv(pid, &here, 1, &there, 1, 0) >= 0 || errno != ESRCH;
        long fd = syscall(434, pid, 0);
        reached += fd >= 0;
    }
    printf("processes reached %ld\n", reached);
    return 0;
}

static const char *name_of(int error)
{
    return error == EPERM ? "EPERM" : error == ECONNREFUSED ? "ECONNREFUSED" : error == ENETUNREACH ? "ENETUNREACH" : strerror(error);
}

/* Tells how a call ended. */
static void told(const char *what, long result)
{
    printf("%s %s\n", what, result >= 0 ? "worked" : name_of(errno));
}

/* Connects to an abstract socket `@NAME`, or to a port of an address of either family. */
static int connects(int count, char **targets)
{
    for (int i = 0; i < count; i++) {
        struct sockaddr_un local = { .sun_family = AF_UNIX };
        struct sockaddr_in four = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
        struct sockaddr_in cloud = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0xa9fea9fe), .sin_port = htons(80) };
        int fd, result;
        if (targets[i][0] == '@') {
            size_t length = strlen(targets[i]);
            memcpy(local.sun_path + 1, targets[i] + 1, length - 1);
            fd = socket(AF_UNIX, SOCK_STREAM, 0);
            result = connect(fd, (struct sockaddr *)&local, offsetof(struct sockaddr_un, sun_path) + length);
        } else if (targets[i][0] == '4') {
            four.sin_port = htons(atoi(targets[i] + 2));
            fd = socket(AF_INET, SOCK_STREAM, 0);
            result = connect(fd, (struct sockaddr *)&four, sizeof four);
        } else if (targets[i][0] == '6') {
            six.sin6_port = htons(atoi(targets[i] + 2));
            fd = socket(AF_INET6, SOCK_STREAM, 0);
            result = connect(fd, (struct sockaddr *)&six, sizeof six);
        } else {
            fd = socket(AF_INET, SOCK_STREAM, 0);
            result = connect(fd, (struct sockaddr *)&cloud, sizeof cloud);
        }
        told(targets[i], result);
        close(fd);
    }
    return 0;
}

/* What would give a step a view of cgroups, or a privilege over them. */
static int cgroups(void)
{
    told("mount cgroup2", mount("none", "/tmp", "cgroup2", 0, NULL));
    told("mount cgroup", mount("none", "/tmp", "cgroup", 0, "none,name=rbuild"));
    told("unshare cgroup", unshare(CLONE_NEWCGROUP));
    told("unshare user", unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP));
    told("enter", syscall(SYS_setns, 0, CLONE_NEWCGROUP));
    return 0;
}

/* The extended attributes of a file, a line each. */
static int attributes(const char *path)
{
    char names[65536], value[65536];
    ssize_t length = llistxattr(path, names, sizeof names);
    for (char *name = names; name < names + length; name += strlen(name) + 1) {
        ssize_t size = lgetxattr(path, name, value, sizeof value);
        printf("%s %s=", path, name);
        for (ssize_t i = 0; i < size; i++)
            printf("%02x", (unsigned char)value[i]);
        printf("\n");
    }
    return length < 0;
}

/* The session keyring's number; the filter of system calls keeps it from any step that has one. */
static int keyring(void)
{
    long number = syscall(SYS_keyctl, 0, -3, 0);
    printf("keyring %ld %s\n", number, number < 0 ? name_of(errno) : "");
    return 0;
}

#if defined(__x86_64__)
static long native(long number, long first, long rest)
{
    long result;
    register long fourth __asm__("r10") = rest;
    register long fifth __asm__("r8") = rest;
    register long sixth __asm__("r9") = rest;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(rest), "d"(rest), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    return result;
}

static long i386(long number, long first, long rest)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(first), "c"(rest), "d"(rest), "S"(rest), "D"(rest)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}

/* Makes a call in a process of its own; 1 stands for "did not come back". */
static long apart(long (*call)(long, long, long), long number)
{
    long *result = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *result = 1;
    pid_t child = fork();
    if (child == 0) {
        alarm(2);
        *result = call(number, -1, -1);
        _exit(0);
    }
    for (int status; waitpid(child, &status, 0) < 0 && errno == EINTR;)
        ;
    long value = *result;
    munmap(result, 4096);
    return value > 0 ? 1 : value;
}

/* Every number of every entry; vfork returns twice on one stack, and sync waits for all disks: both are left out. */
static int calls(void)
{
    for (long number = 0; number < 600; number++) {
        if (number != 58 && number != 162)
            printf("native %ld %ld\n", number, apart(native, number));
        if (number != 190 && number != 36)
            printf("i386 %ld %ld\n", number, apart(i386, number));
        printf("x32 %ld %ld\n", number, native(number | 0x40000000, -1, -1));
    }
    for (long family = 0; family < 64; family++)
        for (int wide = 0; wide < 2; wide++)
            printf("socket %ld %ld\n", family, native(SYS_socket, family + ((long)wide << 32), 2));
    return 0;
}
#else
static int calls(void)
{
    return 1;
}
#endif

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    signal(SIGPIPE, SIG_IGN);
    if (count == 3 && strcmp(arguments[1], "programs") == 0)
        return programs(atol(arguments[2]));
    if (count == 6 && strcmp(arguments[1], "swap") == 0)
        return swap(arguments[2], arguments[3], arguments[4], atol(arguments[5]));
    if (count == 3 && strcmp(arguments[1], "agent") == 0)
        return agent(arguments[2]);
    if (count == 2 && strcmp(arguments[1], "processes") == 0)
        return processes();
    if (count > 2 && strcmp(arguments[1], "connect") == 0)
        return connects(count - 2, arguments + 2);
    if (count == 2 && strcmp(arguments[1], "cgroups") == 0)
        return cgroups();
    if (count == 3 && strcmp(arguments[1], "attributes") == 0)
        return attributes(arguments[2]);
    if (count == 2 && strcmp(arguments[1], "keyring") == 0)
        return keyring();
    if (count == 2 && strcmp(arguments[1], "calls") == 0)
        return calls();
    return 2;
}
