//! The memory functions that compilers call, in few bytes: by words where addresses are aligned. A firmware without them takes those of its compiler, which
//! are larger, and faster on long pieces; kernels copy with their own code.

core::arch::global_asm!(
    "
    .syntax unified
    .section .text.memcpy, \"ax\", %progbits
    .thumb

    // r0: destination, r1: source, r2: bytes.
    .global memcpy, __aeabi_memcpy, __aeabi_memcpy4, __aeabi_memcpy8
    .type   memcpy, %function
    .type   __aeabi_memcpy, %function
    .type   __aeabi_memcpy4, %function
    .type   __aeabi_memcpy8, %function
    .thumb_func
memcpy:
    .thumb_func
__aeabi_memcpy:
    .thumb_func
__aeabi_memcpy4:
    .thumb_func
__aeabi_memcpy8:
    mov     r12, r0
    mov     r3, r0
    orrs    r3, r1
    lsls    r3, r3, #30
    bne     3f
    subs    r2, #8
    blo     2f
1:
    ldm     r1!, {{r3}}
    stm     r0!, {{r3}}
    ldm     r1!, {{r3}}
    stm     r0!, {{r3}}
    subs    r2, #8
    bhs     1b
2:
    adds    r2, #4
    blo     5f
    ldm     r1!, {{r3}}
    stm     r0!, {{r3}}
    subs    r2, #4
5:
    adds    r2, #4
3:
    subs    r2, #1
    blo     4f
    ldrb    r3, [r1]
    strb    r3, [r0]
    adds    r1, #1
    adds    r0, #1
    b       3b
4:
    mov     r0, r12
    bx      lr
    .size   memcpy, . - memcpy

    .section .text.memset, \"ax\", %progbits
    // r0: destination, r1: value, r2: bytes.
    .global memset
    .type   memset, %function
    .thumb_func
memset:
    mov     r3, r1
    mov     r1, r2
    mov     r2, r3
    b       5f
    .size   memset, . - memset

    // r0: destination, r1: bytes.
    .global __aeabi_memclr, __aeabi_memclr4, __aeabi_memclr8
    .type   __aeabi_memclr, %function
    .type   __aeabi_memclr4, %function
    .type   __aeabi_memclr8, %function
    .thumb_func
__aeabi_memclr:
    .thumb_func
__aeabi_memclr4:
    .thumb_func
__aeabi_memclr8:
    movs    r2, #0
    .size   __aeabi_memclr, . - __aeabi_memclr

    // r0: destination, r1: bytes, r2: value.
    .global __aeabi_memset, __aeabi_memset4, __aeabi_memset8
    .type   __aeabi_memset, %function
    .type   __aeabi_memset4, %function
    .type   __aeabi_memset8, %function
    .thumb_func
__aeabi_memset:
    .thumb_func
__aeabi_memset4:
    .thumb_func
__aeabi_memset8:
5:
    mov     r12, r0
    uxtb    r2, r2
    lsls    r3, r2, #8
    orrs    r2, r3
    lsls    r3, r2, #16
    orrs    r2, r3
    lsls    r3, r0, #30
    bne     8f
    subs    r1, #4
    blo     7f
6:
    stm     r0!, {{r2}}
    subs    r1, #4
    bhs     6b
7:
    adds    r1, #4
8:
    subs    r1, #1
    blo     9f
    strb    r2, [r0]
    adds    r0, #1
    b       8b
9:
    mov     r0, r12
    bx      lr
    .size   __aeabi_memset, . - __aeabi_memset
    .text
    "
);
