// A replayed step around look-up, movement and attention: what a selection kernel would leave behind, frames and the
// readings made of them, the entry that every step appends, growth, device times, and the bytes that say whose they are.
//
// Streams are numbered layer by layer: g = layer x streams + i. A step of the script begins with 8 words per stream
// (blocks selected, near misses, whether the newest block is selected, the block filled by this step or NONE, the newest
// block, its tokens, two unused), then come the lists at the offsets that `Script` names.

struct Meta { u32 count, near_count, newest, grown, newest_block, newest_tokens, unused[2]; };

// Where the lists of one step stand, in words from its beginning.
struct Script { const u32 *words; const u32 *step; u64 step_words; u32 blocks, near, slots, counts, fills, bytes, scores, unused; };

// Sizes of a layer: streams, blocks per selection, near misses, fills per stream, slots.
struct Sizes { u32 streams, k, near, fills, slots, blocks; };

// How a block's 16-byte words are laid out: `halves` parts (keys, values), each of `page` entries of `row` words.
struct Cells { u32 words, halves, page, row, fp8; };

__device__ __forceinline__ const u32 *now(const Script &s) { return s.words + (u64)*s.step * s.step_words; }

__device__ __forceinline__ u64 mixed(u64 z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// The word that a block of `owner` holds: random bits that only this place has, forced to be moderate numbers, so that
// attention over them is well conditioned.
__device__ __forceinline__ uint4 identity(u64 owner, u32 block, u32 word, u32 fp8) {
    u64 keep = 0x80ff80ff80ff80ffull, set = 0x3f003f003f003f00ull;
    if (fp8 && word < 32) keep = 0x8787878787878787ull, set = 0x3838383838383838ull;
    if (fp8 && word == 32) keep = 0x007fffff007fffffull, set = 0x3f0000003f000000ull;
    u64 z = owner + ((u64)block << 24 | word) * 0x9e3779b97f4a7c15ull;
    u64 a = (mixed(z) & keep) | set, b = (mixed(z ^ 0x5851f42d4c957f2dull) & keep) | set;
    return make_uint4((u32)a, (u32)(a >> 32), (u32)b, (u32)(b >> 32));
}

__device__ __forceinline__ u32 entry_of(const Cells &c, u32 word) { return word % (c.page * c.row) / c.row; }

// Puts the step's selection of one layer where look-up reads it, as a selection kernel would. One block per stream.
extern "C" __global__ void __launch_bounds__(128)
feed(Script script, Sizes z, u32 layer, u32 *selected, u32 *counts, u32 *near, u32 *near_counts, u32 *grown, Meta *metas,
     u32 *demand, u32 *prefetch, u32 *write_back, u32 *scores) {
    const u32 *step = now(script);
    u32 g = layer * z.streams + blockIdx.x;
    Meta meta = ((const Meta *)step)[g];
    const u32 *from = step + script.blocks + (u64)g * z.k, *from_near = step + script.near + (u64)g * z.near;
    for (u32 i = threadIdx.x; i < meta.count; i += blockDim.x) selected[(u64)g * z.k + i] = from[i];
    if (scores)
        for (u32 i = threadIdx.x; i < meta.count; i += blockDim.x) scores[(u64)g * z.k + i] = step[script.scores + (u64)g * z.k + i];
    for (u32 i = threadIdx.x; i < meta.near_count; i += blockDim.x) near[(u64)g * z.near + i] = from_near[i];
    if (threadIdx.x == 0) {
        counts[g] = meta.count, near_counts[g] = meta.near_count, grown[g] = meta.grown, metas[g] = meta;
        if (blockIdx.x == 0) *demand = 0, *prefetch = 0, *write_back = 0;
    }
}

// Takes a layer's decisions from the script: the host has made them. One block per stream.
extern "C" __global__ void __launch_bounds__(128)
take_plan(Script script, Sizes z, u32 layer, u32 *slots_out, uint4 *fills, u32 *fill_counts, u32 *block_of) {
    const u32 *step = now(script);
    u32 g = layer * z.streams + blockIdx.x, n = ((const Meta *)step)[g].count;
    const u32 *slots = step + script.slots + (u64)g * z.k, *counts = step + script.counts + (u64)g * 4;
    const uint4 *from = (const uint4 *)(step + script.fills) + (u64)g * z.fills;
    u32 total = counts[0] + counts[1] + counts[2];
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) slots_out[(u64)g * z.k + i] = slots[i];
    for (u32 i = threadIdx.x; i < total; i += blockDim.x) {
        uint4 fill = from[i];
        fills[(u64)g * z.fills + i] = fill;
        block_of[(u64)g * z.slots + fill.y] = fill.x;
    }
    if (threadIdx.x < 4) fill_counts[g * 4 + threadIdx.x] = counts[threadIdx.x];
}

// Appends a stream's loads (part 0) or prefetches (part 1) to the list of moves, in the order of decision.
extern "C" __global__ void __launch_bounds__(128)
list_moves(Sizes z, u32 layer, u32 part, const uint4 *fills, const u32 *fill_counts, const u32 *frame_of, uint2 *moves, u32 *count) {
    u32 g = layer * z.streams + blockIdx.x, first = part ? fill_counts[g * 4] : 0, n = fill_counts[g * 4 + part];
    __shared__ u32 base;
    if (n == 0) return;
    if (threadIdx.x == 0) base = atomicAdd(count, n);
    __syncthreads();
    fills += (u64)g * z.fills + first;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x)
        moves[base + i] = make_uint2(g * z.blocks + fills[i].x, frame_of[(u64)g * (z.slots + 1) + fills[i].y]);
}

// The same in ascending home address within the stream: a bitmap over its blocks sorts distinct ids in two passes.
extern "C" __global__ void __launch_bounds__(1024)
sort_moves(Sizes z, u32 layer, u32 part, const uint4 *fills, const u32 *fill_counts, const u32 *frame_of, uint2 *moves, u32 *count) {
    extern __shared__ u32 shared[];
    u32 g = layer * z.streams + blockIdx.x, first = part ? fill_counts[g * 4] : 0, n = fill_counts[g * 4 + part];
    u32 words = (z.blocks + 31) / 32, *bitmap = shared, *below = shared + words, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    __shared__ u32 warp_sum[32], base;
    if (n == 0) return;
    fills += (u64)g * z.fills + first;
    for (u32 i = threadIdx.x; i < words; i += blockDim.x) bitmap[i] = 0;
    __syncthreads();
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) atomicOr(&bitmap[fills[i].x / 32], 1u << (fills[i].x % 32));
    __syncthreads();
    u32 run = (words + 1023) / 1024 * 32, start = warp * run, sum = 0;
    for (u32 i = start + lane; i < start + run; i += 32) {
        u32 total, set = i < words ? __popc(bitmap[i]) : 0;
        u32 before = exclusive_scan(set, total);
        if (i < words) below[i] = sum + before;
        sum += total;
    }
    if (lane == 0) warp_sum[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        u32 total, before = exclusive_scan(warp_sum[lane], total);
        warp_sum[lane] = before;
        if (lane == 0) base = atomicAdd(count, total);
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        u32 block = fills[i].x, word = block / 32;
        u32 place = warp_sum[word / run] + below[word] + __popc(bitmap[word] & ((1u << (block % 32)) - 1));
        moves[base + place] = make_uint2(g * z.blocks + block, frame_of[(u64)g * (z.slots + 1) + fills[i].y]);
    }
}

const u32 HITS = 1, MISSES = 2, FULL_BLOCKS = 3;

// Entries and tokens of one stream's part of a selection: the hits with the newest block, the misses, all but the newest
// block, or else all.
__device__ __forceinline__ u32 part_entries(u32 part, const Meta &meta, u32 misses, u32 page, u32 &tokens) {
    u32 blocks = part == MISSES ? misses : part == HITS ? meta.count - misses : meta.count;
    bool newest = meta.newest && part != MISSES && part != FULL_BLOCKS;
    tokens = blocks * page + (newest ? meta.newest_tokens : 0);
    return blocks + newest;
}

// What attention reads of a layer: frames of the selected blocks, `stride` apart from stream to stream. Every block
// counts the tiles of the streams before its own. What attention might read ahead of a list's end names a true frame.
extern "C" __global__ void __launch_bounds__(128)
prepare(Sizes z, u32 layer, u32 part, u32 page, u32 stride, const Meta *metas, const u32 *slots_out, const uint4 *fills,
        const u32 *fill_counts, const u32 *frame_of, u32 *entries, uint4 *rows) {
    extern __shared__ u32 missed[]; // bitmap over slots
    __shared__ u32 warp_tiles[4];
    u32 stream = blockIdx.x, g0 = layer * z.streams, g = g0 + stream, lane = threadIdx.x & 31, tiles = 0, tokens;
    for (u32 s = threadIdx.x; s < stream; s += blockDim.x) {
        part_entries(part, metas[g0 + s], fill_counts[(g0 + s) * 4], page, tokens);
        tiles += (tokens + 15) / 16;
    }
    tiles = __reduce_add_sync(FULL, tiles);
    if (lane == 0) warp_tiles[threadIdx.x / 32] = tiles;
    u32 words = (z.slots + 31) / 32, misses = fill_counts[g * 4];
    for (u32 i = threadIdx.x; i < words; i += blockDim.x) missed[i] = 0;
    __syncthreads();
    bool split = part == HITS || part == MISSES;
    if (split)
        for (u32 i = threadIdx.x; i < misses; i += blockDim.x) {
            u32 slot = fills[(u64)g * z.fills + i].y;
            atomicOr(&missed[slot / 32], 1u << (slot % 32));
        }
    __syncthreads();
    Meta meta = metas[g];
    u32 n = part_entries(part, meta, misses, page, tokens), first = stream * stride;
    if (threadIdx.x == 0) {
        u32 before = warp_tiles[0] + warp_tiles[1] + warp_tiles[2] + warp_tiles[3];
        rows[stream] = make_uint4(before, first, tokens, 0);
        if (stream + 1 == z.streams) rows[z.streams] = make_uint4(before + (tokens + 15) / 16, first, 0, 0);
    }
    const u32 *frames = frame_of + (u64)g * (z.slots + 1);
    slots_out += (u64)g * z.k;
    entries += first;
    if (!split) {
        for (u32 i = threadIdx.x; i < meta.count; i += blockDim.x) entries[i] = frames[slots_out[i]];
    } else if (threadIdx.x < 32) {
        u32 found = 0;
        for (u32 base = 0; base < meta.count; base += 32) {
            u32 slot = base + lane < meta.count ? slots_out[base + lane] : NONE;
            bool is_miss = slot != NONE && (missed[slot / 32] >> (slot % 32) & 1);
            bool mine = slot != NONE && is_miss == (part == MISSES);
            u32 mask = __ballot_sync(FULL, mine);
            if (mine) entries[found + lanes_below(mask)] = frames[slot];
            found += __popc(mask);
        }
    }
    u32 full = part == MISSES ? misses : part == HITS ? meta.count - misses : meta.count;
    for (u32 i = full + threadIdx.x; i < stride; i += blockDim.x) entries[i] = frames[z.slots];
}

// Reads every word of every entry once, where no attention kernel has the shape: `parts` blocks per stream.
extern "C" __global__ void __launch_bounds__(256)
read_entries(const uint4 *frames, const u32 *entries, const uint4 *rows, u32 page, u32 words, u32 *checksum) {
    u32 stream = blockIdx.x, sum = 0, n = (rows[stream].z + page - 1) / page;
    u64 total = (u64)n * words;
    for (u64 base = (u64)blockIdx.y * blockDim.x * 4; base < total; base += (u64)gridDim.y * blockDim.x * 4) {
        uint4 v[4];
#pragma unroll
        for (u32 u = 0; u < 4; u++) {
            u64 at = base + u * blockDim.x + threadIdx.x;
            u32 entry = (u32)(at / words);
            v[u] = at < total ? load_once(frames + (u64)entries[rows[stream].y + entry] * words + at % words) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (u32 u = 0; u < 4; u++) sum ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
    }
    sum = __reduce_xor_sync(FULL, sum);
    if ((threadIdx.x & 31) == 0) atomicXor(checksum, sum);
}

// Reads as many words of a pool as the script says, from `first` on and around its end: what scoring a layer's candidates,
// or attention to a whole context, streams.
extern "C" __global__ void __launch_bounds__(512)
stream_listed(Script script, u32 at, const uint4 *pool, u64 pool_words, u64 first, u32 *checksum) {
    u64 words = now(script)[script.bytes + at], sum = 0;
    for (u64 base = (u64)blockIdx.x * blockDim.x * 8; base < words; base += (u64)gridDim.x * blockDim.x * 8) {
        uint4 v[8];
#pragma unroll
        for (u32 u = 0; u < 8; u++) {
            u64 i = base + u * blockDim.x + threadIdx.x;
            v[u] = i < words ? load_once(pool + (first + i) % pool_words) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (u32 u = 0; u < 8; u++) sum ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
    }
    u32 low = __reduce_xor_sync(FULL, (u32)sum);
    if ((threadIdx.x & 31) == 0) atomicXor(checksum, low);
}

// The token of this step: one entry of every stream's newest block. One block per stream.
extern "C" __global__ void __launch_bounds__(128)
append(Sizes z, u32 layer, Cells c, const u64 *owners, const Meta *metas, const u32 *frame_of, uint4 *frames) {
    u32 g = layer * z.streams + blockIdx.x;
    Meta meta = metas[g];
    uint4 *frame = frames + (u64)frame_of[(u64)g * (z.slots + 1) + z.slots] * c.words;
    for (u32 i = threadIdx.x; i < c.halves * c.row; i += blockDim.x) {
        u32 word = i / c.row * c.page * c.row + (meta.newest_tokens - 1) * c.row + i % c.row;
        frame[word] = identity(owners[g], meta.newest_block, word, c.fp8);
    }
}

// Blocks that this step fills go home, and where they found a slot their frame stays and the slot's becomes the reserved
// one.
extern "C" __global__ void __launch_bounds__(256)
grow(Sizes z, u32 layer, const u32 *grown, const uint4 *fills, const u32 *fill_counts, u32 *frame_of, uint2 *moves, u32 *count) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < z.streams; i += gridDim.x * blockDim.x) {
        u32 g = layer * z.streams + i, block = grown[g];
        if (block == NONE) continue;
        u32 *frames = frame_of + (u64)g * (z.slots + 1), reserved = frames[z.slots];
        moves[atomicAdd(count, 1)] = make_uint2(g * z.blocks + block, reserved);
        const u32 *counts = fill_counts + g * 4;
        if (counts[2] == 0) continue;
        u32 slot = fills[(u64)g * z.fills + counts[0] + counts[1]].y;
        frames[z.slots] = frames[slot];
        frames[slot] = reserved;
    }
}

// The time on the device's clock, in ns.
extern "C" __global__ void stamp(u64 *stamps, const u32 *step, u32 stride, u32 at) {
    u64 time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    stamps[(u64)*step * stride + at] = time;
}

extern "C" __global__ void advance(u32 *step) { *step += 1; }

// Copies a finished step's decisions to the log: per stream four counts, the slots, then the fills. One block per stream.
extern "C" __global__ void __launch_bounds__(128)
log_step(Sizes z, const u32 *step, const u32 *counts, const u32 *slots_out, const uint4 *fills, const u32 *fill_counts, u32 *log) {
    u32 g = blockIdx.x, n = fill_counts[g * 4] + fill_counts[g * 4 + 1] + fill_counts[g * 4 + 2];
    u64 words = 4 + z.k + (u64)z.fills * 4;
    log += ((u64)(*step - 1) * gridDim.x + g) * words;
    if (threadIdx.x < 4) log[threadIdx.x] = fill_counts[g * 4 + threadIdx.x];
    for (u32 i = threadIdx.x; i < counts[g]; i += blockDim.x) log[4 + i] = slots_out[(u64)g * z.k + i];
    n = min(n, z.fills);
    const u32 *from = (const u32 *)(fills + (u64)g * z.fills);
    for (u32 i = threadIdx.x; i < n * 4; i += blockDim.x) log[4 + z.k + i] = from[i];
}

// A request takes its seat: frames in order, its prompt's full blocks at home, the begun block in its reserved frame.
// `ids` are its streams, all with `full` blocks and `tokens` in the begun one. One row of blocks per stream.
extern "C" __global__ void __launch_bounds__(256)
seat(Sizes z, Cells c, const u32 *ids, u32 full, u32 tokens, const u64 *owners, u32 *frame_of, uint4 *frames, uint4 *home) {
    u32 g = ids[blockIdx.y];
    u32 thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x, first = g * (z.slots + 1);
    for (u32 i = thread; i <= z.slots; i += threads) frame_of[first + i] = first + i;
    for (u64 i = thread; i < (u64)full * c.words; i += threads) {
        u32 block = (u32)(i / c.words), word = (u32)(i % c.words);
        home[((u64)g * z.blocks + block) * c.words + word] = identity(owners[g], block, word, c.fp8);
    }
    uint4 *begun = frames + (u64)(first + z.slots) * c.words;
    for (u32 word = thread; word < c.words; word += threads)
        if (entry_of(c, word) < tokens) begun[word] = identity(owners[g], full, word, c.fp8);
}

// Compares every word of every resident block, of every begun one, and of every block at home with what it must hold:
// `result` counts words compared and words that are wrong. One row of blocks per stream.
extern "C" __global__ void __launch_bounds__(256)
compare_bytes(Sizes z, Cells c, const u64 *owners, const u32 *block_of, const u32 *frame_of, const Meta *metas, const uint4 *frames,
              const uint4 *home, u64 *result) {
    u32 g = blockIdx.y, thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x, seen = 0, wrong = 0;
    // After its last step a stream that filled its newest block has one full block more, and has begun none.
    Meta meta = metas[g];
    u32 full = meta.newest_block + (meta.grown != NONE), tokens = meta.grown == NONE ? meta.newest_tokens : 0;
    auto check = [&](uint4 is, u32 block, u32 word) {
        uint4 must = identity(owners[g], block, word, c.fp8);
        seen++;
        wrong += is.x != must.x || is.y != must.y || is.z != must.z || is.w != must.w;
    };
    for (u64 i = thread; i < (u64)(z.slots + 1) * c.words; i += threads) {
        u32 slot = (u32)(i / c.words), word = (u32)(i % c.words);
        u32 block = slot < z.slots ? block_of[(u64)g * z.slots + slot] : meta.newest_block;
        bool there = slot < z.slots ? block != NONE : entry_of(c, word) < tokens;
        if (there) check(frames[(u64)frame_of[(u64)g * (z.slots + 1) + slot] * c.words + word], block, word);
    }
    for (u64 i = thread; i < (u64)full * c.words; i += threads) {
        u32 block = (u32)(i / c.words), word = (u32)(i % c.words);
        check(home[((u64)g * z.blocks + block) * c.words + word], block, word);
    }
    seen = __reduce_add_sync(FULL, seen), wrong = __reduce_add_sync(FULL, wrong);
    if ((threadIdx.x & 31) == 0) atomicAdd(&result[0], (u64)seen), atomicAdd(&result[1], (u64)wrong);
}

// The never-moved copy: what each stream of a layer selects, written afresh where it is read. Frame i of stream s is
// s x stride + i, and rows are those of the replay.
extern "C" __global__ void __launch_bounds__(256)
write_selected(Sizes z, u32 layer, u32 stride, Cells c, const u64 *owners, const Meta *metas, const u32 *selected, uint4 *frames,
               u32 *entries) {
    u32 stream = blockIdx.y, g = layer * z.streams + stream, thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    Meta meta = metas[g];
    for (u32 i = thread; i < stride; i += threads) entries[stream * stride + i] = stream * stride + i;
    for (u64 i = thread; i < (u64)(meta.count + 1) * c.words; i += threads) {
        u32 at = (u32)(i / c.words), word = (u32)(i % c.words);
        u32 block = at < meta.count ? selected[(u64)g * z.k + at] : meta.newest_block;
        if (at < meta.count || entry_of(c, word) < meta.newest_tokens)
            frames[((u64)stream * stride + at) * c.words + word] = identity(owners[g], block, word, c.fp8);
    }
}
