/* A network of two operators on Hexagon: network WEIGHTS INPUT OUTPUT
 *
 * A convolution of 3x3, 8-bit in and 32-bit out, and a ReLU. It counts in packets, which are what this processor issues, so
 * that its figures are the same in every run. It stands alone: Linux's system calls, and no C library.
 *
 * WEIGHTS  [CHANNELS][CHANNELS][3][3] bytes, signed
 * INPUT    [CHANNELS][SIDE + 2][SIDE + 2] bytes, signed, padded
 * OUTPUT   [CHANNELS][SIDE][SIDE] words, signed, little endian
 * Exit code: 0 done; 2 unusable arguments.
 */
#define CHANNELS 8
#define SIDE 16
#define PADDED (SIDE + 2)

enum { OPENAT = 56, READ = 63, WRITE = 64, HERE = -100, FRESH = 01 | 0100 | 01000 };

static signed char weights[CHANNELS * CHANNELS * 9], input[CHANNELS * PADDED * PADDED];
static int output[CHANNELS * SIDE * SIDE];

static long system_call(long number, long first, long second, long third, long fourth)
{
    register long r6 __asm__("r6") = number;
    register long r0 __asm__("r0") = first;
    register long r1 __asm__("r1") = second;
    register long r2 __asm__("r2") = third;
    register long r3 __asm__("r3") = fourth;
    __asm__ volatile("trap0(#1)" : "+r"(r0) : "r"(r6), "r"(r1), "r"(r2), "r"(r3) : "memory");
    return r0;
}

/* r0 = c20: packets so far. The assembler has no name for a register that only an emulator counts in. */
static unsigned packets(void)
{
    unsigned count;
    __asm__ volatile(".word 0x6a14c000\n\t%0 = r0" : "=r"(count) : : "r0", "memory");
    return count;
}

static void print(const char *text)
{
    long length = 0;
    while (text[length])
        length++;
    system_call(WRITE, 1, (long)text, length, 0);
}

static void print_number(unsigned number)
{
    char digits[12];
    int place = sizeof digits - 1;
    digits[place] = 0;
    do { /* there is no instruction that divides, nor a library that does */
        unsigned quotient = (unsigned)(((unsigned long long)number * 0xCCCCCCCDull) >> 35);
        digits[--place] = (char)('0' + (number - quotient * 10));
        number = quotient;
    } while (number);
    print(digits + place);
}

static void print_row(const char *name, unsigned number, const char *unit)
{
    print(name);
    print(": ");
    print_number(number);
    print(unit);
}

static int read_all(const char *path, void *target, long size)
{
    long file = system_call(OPENAT, HERE, (long)path, 0, 0), done = 0, count;
    if (file < 0)
        return 0;
    while (done < size && (count = system_call(READ, file, (long)target + done, size - done, 0)) > 0)
        done += count;
    return done == size;
}

static int write_all(const char *path, const void *source, long size)
{
    long file = system_call(OPENAT, HERE, (long)path, FRESH, 0640);
    return file >= 0 && system_call(WRITE, file, (long)source, size, 0) == size;
}

static int unusable(const char *path)
{
    print("network: not all of it can be read or written: ");
    print(path);
    print("\n");
    return 2;
}

__attribute__((noinline)) static void convolve(void)
{
    for (int to = 0; to < CHANNELS; to++)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++) {
                int sum = 0;
                for (int from = 0; from < CHANNELS; from++)
                    for (int row = 0; row < 3; row++)
                        for (int column = 0; column < 3; column++)
                            sum += input[(from * PADDED + y + row) * PADDED + x + column]
                                 * weights[((to * CHANNELS + from) * 3 + row) * 3 + column];
                output[(to * SIDE + y) * SIDE + x] = sum;
            }
}

__attribute__((noinline)) static void rectify(void)
{
    for (int index = 0; index < CHANNELS * SIDE * SIDE; index++)
        if (output[index] < 0)
            output[index] = 0;
}

int main(int count, char **arguments)
{
    if (count != 4) {
        print("network WEIGHTS INPUT OUTPUT\n");
        return 2;
    }
    if (!read_all(arguments[1], weights, sizeof weights))
        return unusable(arguments[1]);
    if (!read_all(arguments[2], input, sizeof input))
        return unusable(arguments[2]);

    unsigned begin = packets();
    convolve();
    unsigned middle = packets();
    rectify();
    unsigned end = packets();

    unsigned checksum = 0;
    for (int index = 0; index < CHANNELS * SIDE * SIDE; index++)
        checksum += (unsigned)output[index];
    if (!write_all(arguments[3], output, sizeof output))
        return unusable(arguments[3]);
    print("backend dsp\n");
    print_row("NET", end - begin, " packets\n");
    print_row("ID_0_convolve", middle - begin, " packets\n");
    print_row("ID_1_rectify", end - middle, " packets\n");
    print_row("checksum", checksum, "\n");
    return 0;
}
