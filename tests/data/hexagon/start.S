/* Where Linux begins a program for Hexagon: the stack pointer is at the number of arguments, which their addresses follow. */
        .text
        .globl _start
        .type _start, @function
_start:
        r0 = memw(r29 + #0)
        r1 = add(r29, #4)
        r29 = and(r29, #-8)
        call main
        r6 = #94                /* exit_group, with what main has returned */
        trap0(#1)
