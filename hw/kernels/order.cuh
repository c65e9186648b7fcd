// The n-th of many keys by its digits, and a sort. What sorts and selects shares them.

const u64 NO_KEY = ~0ull;
const u32 DIGIT_BITS = 10, DIGITS = 1 << DIGIT_BITS;

// The digit of a key, how many keys have a smaller one, and how many the same.
struct Digit { u32 digit, below, equal; };

// The digit of the `place`-th key, from 1 on, where `fine` counts the keys of every digit and `coarse` those of every 32
// digits. Every warp finds it by itself.
__device__ __forceinline__ Digit nth_digit(const u32 *fine, const u32 *coarse, u32 place) {
    u32 lane = threadIdx.x & 31, many = coarse[lane], total, before = exclusive_scan(many, total);
    u32 group = __ffs(__ballot_sync(FULL, before < place && place <= before + many)) - 1;
    u32 few = fine[group * 32 + lane];
    before = __shfl_sync(FULL, before, group) + exclusive_scan(few, total);
    u32 which = __ffs(__ballot_sync(FULL, before < place && place <= before + few)) - 1;
    return {group * 32 + which, __shfl_sync(FULL, before, which), __shfl_sync(FULL, few, which)};
}

// Keeps the smaller of two lanes' keys in the lower lane where `up`, and else in the higher.
__device__ __forceinline__ void exchange(u64 &key, u32 step, bool up) {
    u64 other = __shfl_xor_sync(FULL, key, step);
    bool smaller = ((threadIdx.x & step) == 0) == up;
    if ((other < key) == smaller) key = other;
}

// Sorts `padded` keys, a power of two and at least 64, in ascending order: a bitonic network whose short steps are
// taken by warps in registers. Begins after a barrier and ends with one.
__device__ __forceinline__ void sort_keys(u64 *keys, u32 padded) {
    u32 lane = threadIdx.x & 31;
    for (u32 size = 64; size <= padded; size *= 2) {
        for (u32 step = size / 2; step >= 64; step /= 2) {
            for (u32 i = threadIdx.x; i < padded / 2; i += blockDim.x) {
                u32 low = (i & ~(step - 1)) * 2 | (i & (step - 1)), high = low + step;
                u64 a = keys[low], b = keys[high];
                if ((a > b) == ((low & size) == 0)) keys[low] = b, keys[high] = a;
            }
            __syncthreads();
        }
        for (u32 at = threadIdx.x / 32 * 64; at < padded; at += blockDim.x * 2) {
            u64 x = keys[at + lane], y = keys[at + 32 + lane];
            if (size == 64) {
#pragma unroll
                for (u32 small = 2; small <= 32; small *= 2)
#pragma unroll
                    for (u32 step = small / 2; step > 0; step /= 2) {
                        exchange(x, step, small == 32 || (lane & small) == 0);
                        exchange(y, step, small < 32 && (lane & small) == 0);
                    }
            }
            bool up = (at & size) == 0;
            if ((x > y) == up) {
                u64 swapped = x;
                x = y, y = swapped;
            }
#pragma unroll
            for (u32 step = 16; step > 0; step /= 2) exchange(x, step, up), exchange(y, step, up);
            keys[at + lane] = x, keys[at + 32 + lane] = y;
        }
        __syncthreads();
    }
}

// The least power of two that is at least `n`, and at least 64.
__device__ __forceinline__ u32 padded_to(u32 n) { return n <= 64 ? 64 : 1u << (32 - __clz(n - 1)); }
