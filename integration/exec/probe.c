/* Makes system calls by number, as x86_64 and as i386, and prints what the kernel says to each. */
#include <stdio.h>

static long native(long number, long first, long second)
{
    long result;
    register long fourth __asm__("r10") = 0;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(0L), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}

static long i386(long number, long first)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(first), "c"(0L), "d"(0L), "S"(0L), "D"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}

int main(void)
{
    const long wide = 1L << 32, newuser = 0x10000000;
    printf("socket alg %ld %ld\n", native(41, 38, 5), native(41, wide + 38, 5));
    printf("socket vsock %ld %ld\n", native(41, 40, 1), native(41, wide + 40, 1));
    printf("clone newuser %ld\n", native(56, newuser | 17, 0));
    printf("clone3 %ld\n", native(435, 0, 0));
    printf("unshare %ld\n", native(272, newuser, 0));
    printf("keyctl %ld\n", native(250, 0, 0));
    printf("io_uring_setup %ld\n", native(425, 0, 0));
    printf("bpf %ld\n", native(321, 0, 0));
    printf("x32 getpid %ld\n", native(0x40000000 | 39, 0, 0));
    printf("beyond %ld\n", native(500, 0, 0));
    printf("getpid %ld\n", native(39, 0, 0));
    printf("i386 unshare %ld\n", i386(310, newuser));
    printf("i386 socket alg %ld\n", i386(359, 38));
    printf("i386 mount %ld\n", i386(21, 0));
    printf("i386 beyond %ld\n", i386(500, 0));
    return 0;
}
