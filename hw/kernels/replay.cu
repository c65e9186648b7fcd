// A replayed step around look-up, movement and attention: what a selection kernel would leave behind, frames and the
// readings made of them, the entry that every step appends, growth, device times, and the bytes that say whose they are.
//
// Streams are numbered layer by layer: g = layer x streams + i. A step of the script begins with 8 words per stream
// (blocks selected, near misses, whether the newest block is selected, the block filled by this step or NONE, the newest
// block, its tokens, two unused), then come the lists at the offsets that `Script` names.

struct Meta { u32 count, near_count, newest, grown, newest_block, newest_tokens, unused[2]; };

// Where the lists of one step stand, in words from its beginning; `frames` is zero where slots keep their frames.
struct Script { const u32 *words; const u32 *step; u64 step_words; u32 blocks, near, slots, counts, fills, bytes, scores, frames; };

// Sizes of a layer: streams, blocks per selection, near misses, fills per stream, slots.
struct Sizes { u32 streams, k, near, fills, slots, blocks; };

// Moves of a layer, as one list or as one per request: list i begins at i x capacity and ends, so far, at ends[i].
struct Lists { uint2 *moves; u32 *ends; u32 count, capacity; };

__device__ __forceinline__ void clear(const Lists &lists) {
    for (u32 i = threadIdx.x; i < lists.count; i += blockDim.x) lists.ends[i] = i * lists.capacity;
}

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
     Lists demand, u32 *write_back, u32 *scores) {
    const u32 *step = now(script);
    u32 g = layer * z.streams + blockIdx.x;
    Meta meta = ((const Meta *)step)[g];
    const u32 *from = step + script.blocks + (u64)g * z.k, *from_near = step + script.near + (u64)g * z.near;
    for (u32 i = threadIdx.x; i < meta.count; i += blockDim.x) selected[(u64)g * z.k + i] = from[i];
    if (scores)
        for (u32 i = threadIdx.x; i < meta.count; i += blockDim.x) scores[(u64)g * z.k + i] = step[script.scores + (u64)g * z.k + i];
    for (u32 i = threadIdx.x; i < meta.near_count; i += blockDim.x) near[(u64)g * z.near + i] = from_near[i];
    if (threadIdx.x == 0) counts[g] = meta.count, near_counts[g] = meta.near_count, grown[g] = meta.grown, metas[g] = meta;
    if (blockIdx.x > 0) return;
    clear(demand);
    if (threadIdx.x == 0) *write_back = 0;
}

// Takes a layer's decisions from the script: the host has made them. What is brought before the look-up stands behind the
// other fills and is taken by itself (`early`), when the layer that it was decided on has looked up. One block per stream.
extern "C" __global__ void __launch_bounds__(128)
take_plan(Script script, Sizes z, u32 layer, u32 early, u32 *slots_out, uint4 *fills, u32 *fill_counts, u32 *block_of, u32 *frame_of) {
    const u32 *step = now(script);
    u32 g = layer * z.streams + blockIdx.x, n = early ? 0 : ((const Meta *)step)[g].count;
    const u32 *slots = step + script.slots + (u64)g * z.k, *counts = step + script.counts + (u64)g * 4;
    const uint4 *from = (const uint4 *)(step + script.fills) + (u64)g * z.fills;
    const u32 *frames = step + script.frames + (u64)g * z.fills;
    u32 rest = counts[0] + counts[1] + counts[2], growth = counts[2] ? rest - 1 : NONE;
    u32 first = early ? rest : 0, end = early ? rest + counts[3] : rest;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) slots_out[(u64)g * z.k + i] = slots[i];
    for (u32 i = first + threadIdx.x; i < end; i += blockDim.x) {
        uint4 fill = from[i];
        fills[(u64)g * z.fills + i] = fill;
        block_of[(u64)g * z.slots + fill.y] = fill.x;
        // A block that has grown keeps the reserved frame, which `grow` sees to.
        if (script.frames && i != growth) frame_of[(u64)g * (z.slots + 1) + fill.y] = frames[i];
    }
    if (threadIdx.x < 4) fill_counts[g * 4 + threadIdx.x] = counts[threadIdx.x];
}

const u32 HOME = 0; // source of a fill that is brought from home
const u32 HITS = 1, MISSES = 2, FULL_BLOCKS = 3;

// Entries and tokens of one stream's part of a selection: what was resident (hits and warm hits) with the newest block, the
// misses, all but the newest block, or else all.
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
        const u32 *fill_counts, const u32 *missed, const u32 *frame_of, u32 *entries, uint4 *rows) {
    extern __shared__ u32 is_missed[]; // bitmap over slots
    __shared__ u32 warp_tiles[4];
    u32 stream = blockIdx.x, g0 = layer * z.streams, g = g0 + stream, lane = threadIdx.x & 31, tiles = 0, tokens;
    for (u32 s = threadIdx.x; s < stream; s += blockDim.x) {
        part_entries(part, metas[g0 + s], missed[g0 + s], page, tokens);
        tiles += (tokens + 15) / 16;
    }
    tiles = __reduce_add_sync(FULL, tiles);
    if (lane == 0) warp_tiles[threadIdx.x / 32] = tiles;
    u32 words = (z.slots + 31) / 32, misses = missed[g], loads = fill_counts[g * 4];
    for (u32 i = threadIdx.x; i < words; i += blockDim.x) is_missed[i] = 0;
    __syncthreads();
    bool split = part == HITS || part == MISSES;
    if (split)
        for (u32 i = threadIdx.x; i < loads; i += blockDim.x) {
            uint4 fill = fills[(u64)g * z.fills + i];
            if (fill.w == HOME) atomicOr(&is_missed[fill.y / 32], 1u << (fill.y % 32));
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
            bool is_miss = slot != NONE && (is_missed[slot / 32] >> (slot % 32) & 1);
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

// The token of this step: one entry of every stream's newest block. What was prefetched for the layer has arrived by now, so
// that its list can begin again. One block per stream.
extern "C" __global__ void __launch_bounds__(128)
append(Sizes z, u32 layer, Cells c, const u64 *owners, const Meta *metas, const u32 *frame_of, uint4 *frames, Lists prefetch) {
    if (blockIdx.x == 0) clear(prefetch);
    u32 g = layer * z.streams + blockIdx.x;
    Meta meta = metas[g];
    uint4 *frame = frames + (u64)frame_of[(u64)g * (z.slots + 1) + z.slots] * c.words;
    for (u32 i = threadIdx.x; i < c.halves * c.row; i += blockDim.x) {
        u32 word = i / c.row * c.page * c.row + (meta.newest_tokens - 1) * c.row + i % c.row;
        frame[word] = identity(owners[g], meta.newest_block, word, c.fp8);
    }
}

// Blocks that this step fills go home, and where they found a slot their frame stays and the slot's becomes the reserved
// one, or the frame that the script names.
extern "C" __global__ void __launch_bounds__(256)
grow(Script script, Sizes z, u32 layer, const u32 *grown, const uint4 *fills, const u32 *fill_counts, u32 *frame_of, uint2 *moves, u32 *count) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < z.streams; i += gridDim.x * blockDim.x) {
        u32 g = layer * z.streams + i, block = grown[g];
        if (block == NONE) continue;
        u32 *frames = frame_of + (u64)g * (z.slots + 1), reserved = frames[z.slots];
        moves[atomicAdd(count, 1)] = make_uint2(g * z.blocks + block, reserved);
        const u32 *counts = fill_counts + g * 4;
        if (counts[2] == 0) continue;
        u32 at = counts[0] + counts[1], slot = fills[(u64)g * z.fills + at].y;
        frames[z.slots] = script.frames ? now(script)[script.frames + (u64)g * z.fills + at] : frames[slot];
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

// Copies a finished step's decisions to the log: per stream four counts, the slots, then the fills. The fourth count is of
// fills before the look-up where the host decides (`told`), else of prefetches dropped. One block per stream.
extern "C" __global__ void __launch_bounds__(128)
log_step(Sizes z, const u32 *step, const u32 *counts, const u32 *slots_out, const uint4 *fills, const u32 *fill_counts, u32 *log, u32 told) {
    u32 g = blockIdx.x, n = fill_counts[g * 4] + fill_counts[g * 4 + 1] + fill_counts[g * 4 + 2] + (told ? fill_counts[g * 4 + 3] : 0);
    u64 words = 4 + z.k + (u64)z.fills * 4;
    log += ((u64)(*step - 1) * gridDim.x + g) * words;
    if (threadIdx.x < 4) log[threadIdx.x] = fill_counts[g * 4 + threadIdx.x];
    for (u32 i = threadIdx.x; i < counts[g]; i += blockDim.x) log[4 + i] = slots_out[(u64)g * z.k + i];
    n = min(n, z.fills);
    const u32 *from = (const u32 *)(fills + (u64)g * z.fills);
    for (u32 i = threadIdx.x; i < n * 4; i += blockDim.x) log[4 + z.k + i] = from[i];
}

// A request takes its seat: its prompt's full blocks at home, the begun block in its reserved frame.
// `ids` are its streams, all with `full` blocks and `tokens` in the begun one. One row of blocks per stream.
extern "C" __global__ void __launch_bounds__(256)
seat(Sizes z, Cells c, const u32 *ids, u32 full, u32 tokens, const u64 *owners, const u32 *frame_of, uint4 *frames, uint4 *home) {
    u32 g = ids[blockIdx.y];
    u32 thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    for (u64 i = thread; i < (u64)full * c.words; i += threads) {
        u32 block = (u32)(i / c.words), word = (u32)(i % c.words);
        home[((u64)g * z.blocks + block) * c.words + word] = identity(owners[g], block, word, c.fp8);
    }
    uint4 *begun = frames + (u64)frame_of[(u64)g * (z.slots + 1) + z.slots] * c.words;
    for (u32 word = thread; word < c.words; word += threads)
        if (entry_of(c, word) < tokens) begun[word] = identity(owners[g], full, word, c.fp8);
}

// Counts a word that was compared, and whether it is wrong.
__device__ __forceinline__ void check_word(uint4 is, u64 owner, u32 block, u32 word, u32 fp8, u32 &seen, u32 &wrong) {
    uint4 must = identity(owner, block, word, fp8);
    seen++;
    wrong += is.x != must.x || is.y != must.y || is.z != must.z || is.w != must.w;
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
    auto check = [&](uint4 is, u32 block, u32 word) { check_word(is, owners[g], block, word, c.fp8, seen, wrong); };
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

// The same of the warm pages, each (stream, block, frame). One row of blocks per page.
extern "C" __global__ void __launch_bounds__(256)
compare_pages(Cells c, const u64 *owners, const uint4 *pages, u32 count, const uint4 *frames, u64 *result) {
    u32 seen = 0, wrong = 0;
    for (u32 at = blockIdx.x; at < count; at += gridDim.x)
        for (u32 word = threadIdx.x; word < c.words; word += blockDim.x)
            check_word(frames[(u64)pages[at].z * c.words + word], owners[pages[at].x], pages[at].y, word, c.fp8, seen, wrong);
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
