// Moves scattered blocks between pinned host memory and frames. One flat grid over all 16-byte words of all blocks
// keeps many reads in flight whatever the batch; one block per request (the design of SGLang HiSparse) is here as
// the yardstick.

// Copies word by word; `moves` pairs a home block (x) with a frame (y). Every thread block starts at another place
// of its chunk. Without that, 32 blocks of 32 KiB moved at 25 GB/s instead of 43 (H100, PCIe 5.0): presumably all
// thread blocks walk their blocks in step and meet in the same channels of host memory.
template <bool TO_DEVICE>
__device__ __forceinline__ void move_flat(uint4 *home, uint4 *frames, const uint2 *moves, u32 count, u32 words) {
    const u32 UNROLL = 4;
    u32 total = count * words;
    u32 chunk = blockDim.x * UNROLL, turn = blockIdx.x * 416 % chunk;
    for (u32 base = blockIdx.x * chunk; base < total; base += gridDim.x * chunk) {
        uint4 value[UNROLL];
        uint4 *to[UNROLL];
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) {
            u32 within = u * blockDim.x + threadIdx.x + turn;
            u32 at = base + (within < chunk ? within : within - chunk);
            to[u] = nullptr;
            if (at < total) {
                u32 block = at / words, word = at - block * words;
                uint2 move = moves[block];
                uint4 *host = home + (u64)move.x * words + word, *frame = frames + (u64)move.y * words + word;
                value[u] = load_once(TO_DEVICE ? host : frame);
                to[u] = TO_DEVICE ? frame : host;
            }
        }
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++)
            if (to[u]) *to[u] = value[u];
    }
}

extern "C" __global__ void __launch_bounds__(512)
swap_in(uint4 *home, uint4 *frames, const uint2 *moves, const u32 *count, u32 words) {
    move_flat<true>(home, frames, moves, *count, words);
}

extern "C" __global__ void __launch_bounds__(512)
write_back(uint4 *home, uint4 *frames, const uint2 *moves, const u32 *count, u32 words) {
    move_flat<false>(home, frames, moves, *count, words);
}

// The yardstick: one block per request, one warp per miss; a request's moves stand from `first` to `end`.
extern "C" __global__ void __launch_bounds__(1024)
swap_in_per_request(const uint4 *home, uint4 *frames, const uint2 *moves, const u32 *first, const u32 *ends, u32 words) {
    u32 end = ends[blockIdx.x];
    for (u32 at = first[blockIdx.x] + threadIdx.x / 32; at < end; at += blockDim.x / 32) {
        uint2 move = moves[at];
        for (u32 word = threadIdx.x & 31; word < words; word += 32)
            frames[(u64)move.y * words + word] = load_once(home + (u64)move.x * words + word);
    }
}

// Turns the fills of each stream into one flat list of moves, in ascending home address within a stream, because
// the translation of host addresses is what limits small blocks. A bitmap over the stream's blocks sorts distinct
// ids in two passes. Streams take their place in the list as they come; the order between streams decides nothing.
// A fill is (block, slot, victim, source); only those from home (source 0) move.
extern "C" __global__ void __launch_bounds__(1024)
order_moves(const uint4 *fills, const u32 *fill_count, u32 fill_stride, const u32 *home_base, const u32 *frame_base,
            u32 blocks, uint2 *moves, u32 *count) {
    extern __shared__ u32 shared[];
    u32 bitmap_words = (blocks + 31) / 32;
    u32 *bitmap = shared, *below = shared + bitmap_words;
    __shared__ u32 warp_sum[32], base;
    u32 stream = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32 n = fill_count[stream];
    if (n == 0) return;
    fills += (u64)stream * fill_stride;
    for (u32 i = threadIdx.x; i < bitmap_words; i += blockDim.x) bitmap[i] = 0;
    __syncthreads();
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        uint4 fill = fills[i];
        if (fill.w == 0) atomicOr(&bitmap[fill.x / 32], 1u << (fill.x % 32));
    }
    __syncthreads();
    // Each warp counts a contiguous run of bitmap words; `below` first holds counts within the warp's run.
    u32 run = (bitmap_words + 1023) / 1024 * 32, start = warp * run, sum = 0;
    for (u32 i = start + lane; i < start + run; i += 32) {
        u32 total, set = i < bitmap_words ? __popc(bitmap[i]) : 0;
        u32 before = exclusive_scan(set, total);
        if (i < bitmap_words) below[i] = sum + before;
        sum += total;
    }
    if (lane == 0) warp_sum[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        u32 total;
        u32 before = exclusive_scan(warp_sum[lane], total);
        warp_sum[lane] = before;
        if (lane == 0) base = atomicAdd(count, total);
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        uint4 fill = fills[i];
        if (fill.w != 0) continue;
        u32 word = fill.x / 32;
        u32 place = warp_sum[word / run] + below[word] + __popc(bitmap[word] & ((1u << (fill.x % 32)) - 1));
        moves[base + place] = make_uint2(home_base[stream] + fill.x, frame_base[stream] + fill.y);
    }
}
