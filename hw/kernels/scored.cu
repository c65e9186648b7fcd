// One step of residency for the policies that give every slot a number and evict the smallest: fading scores, recency
// moved by rank, counts, and echo. The order of a step is that of lookup.cu, whose first lines come before these; what
// differs is how numbers age, what a selection credits, and what a block that enters starts with. Sorting is by (number,
// slot), so that no order depends on timing. One block of 1024 threads per stream; one long function, because the phases
// of a step share registers and shared memory.

enum Kind { AGED_SCORE, ATTENTION_MASS, REGION_UTILITY, RANK_RECENCY, HYPERBOLIC, LFU_AGING, ECHO };

// Constants of the policies at their defaults, as the decision plane states them.
const u32 ONE = 1 << 16, KEEP = 205;
const u32 REGION_BITS = 3, REGION_SHARE = 32;
const u32 TICKS = 256, RANK_BONUS = 8 * TICKS, NEAR_LAG = 4 * TICKS;
const u32 HALVE_EVERY = 16;
const u32 ECHO_RANKS = 32, GHOST_SETS = 64, GHOST_WAYS = 4, GHOST_STEP = 3, GHOST_FADE_EVERY = 16;
const u32 ECHO_ONE = 512, ECHO_GROWN = 1408, ECHO_RECENT = 16, ECHO_RECENCY = 8;

// What a stream keeps: two numbers per slot, words of its own (scores of regions, or echo's ghost), and its step.
struct Numbers {
    u32 *a, *b, *own;
    u32 step;
};

__device__ __forceinline__ u32 echo_credit(u32 worst, u32 gain, u32 rank, u32 k) {
    return worst + gain * (ECHO_RANKS - 1 - (u32)((u64)rank * ECHO_RANKS / k)) / ECHO_RANKS;
}

__device__ __forceinline__ u32 selected_credit(u32 rank, u32 k) { return echo_credit(448, 640, rank, k); }
__device__ __forceinline__ u32 near_credit(u32 rank, u32 k) { return rank < k ? echo_credit(96, 384, rank, k) : 0; }

// Entries of the ghost: tag << 8 | count; the word after them counts steps.
__device__ __forceinline__ u32 ghost_count(const u32 *ghost, u32 block) {
    u32 set = block % GHOST_SETS * GHOST_WAYS, tag = block / GHOST_SETS & 0xffff;
    for (u32 way = 0; way < GHOST_WAYS; way++)
        if (ghost[set + way] >> 8 == tag) return ghost[set + way] & 0xff;
    return 0;
}

// One thread per set takes the whole selection in rank order.
__device__ __forceinline__ void ghost_select(u32 *ghost, const u32 *selected, u32 n) {
    u32 set = threadIdx.x;
    bool fades = ghost[GHOST_SETS * GHOST_WAYS] + 1 == GHOST_FADE_EVERY;
    __syncthreads();
    if (set == 0) ghost[GHOST_SETS * GHOST_WAYS] = fades ? 0 : ghost[GHOST_SETS * GHOST_WAYS] + 1;
    if (set >= GHOST_SETS) return;
    u32 tags[GHOST_WAYS], counts[GHOST_WAYS];
    for (u32 way = 0; way < GHOST_WAYS; way++) {
        u32 entry = ghost[set * GHOST_WAYS + way];
        tags[way] = entry >> 8, counts[way] = entry & 0xff;
    }
    for (u32 rank = 0; rank < n; rank++) {
        u32 block = selected[rank], tag = block / GHOST_SETS & 0xffff;
        if (block % GHOST_SETS != set) continue;
        u32 known = GHOST_WAYS, smallest = 0;
#pragma unroll
        for (u32 way = 0; way < GHOST_WAYS; way++)
            if (known == GHOST_WAYS && tags[way] == tag) known = way;
        u32 least = counts[0];
#pragma unroll
        for (u32 way = 1; way < GHOST_WAYS; way++)
            if (counts[way] < least) least = counts[way], smallest = way;
#pragma unroll
        for (u32 way = 0; way < GHOST_WAYS; way++) {
            if (way == known) counts[way] = min(counts[way] + GHOST_STEP, 255u);
            if (known != GHOST_WAYS || way != smallest) continue;
            if (counts[way] <= GHOST_STEP) tags[way] = tag, counts[way] = GHOST_STEP;
            else counts[way]--;
        }
    }
    for (u32 way = 0; way < GHOST_WAYS; way++) {
        if (fades) counts[way] -= (counts[way] + 3) / 4;
        ghost[set * GHOST_WAYS + way] = tags[way] << 8 | counts[way];
    }
}

// What a slot is worth; `now` is the step by which stays are counted. Below 2^44.
template <Kind K>
__device__ __forceinline__ u64 worth(const Numbers &s, u32 slot, u32 block, u32 now, u32 ghost_weight) {
    if (K == REGION_UTILITY) return s.a[slot] + (((u64)s.own[block >> REGION_BITS] * REGION_SHARE) >> 8);
    if (K == HYPERBOLIC) return ((u64)s.a[slot] << 32) / (now - s.b[slot]);
    if (K == LFU_AGING) return (u64)s.a[slot] << 22 | s.b[slot];
    if (K == ECHO) {
        u32 recent = ECHO_RECENT - min(s.b[slot], ECHO_RECENT);
        return (u64)s.a[slot] + ECHO_RECENCY * recent + (u64)ghost_weight * ghost_count(s.own, block);
    }
    return s.a[slot];
}

// Ages every number, before victims and before credit. `repeated` is how many of the last selection this one repeats.
template <Kind K>
__device__ __forceinline__ void age(Numbers &s, u32 slots, u32 blocks, u32 k, u32 repeated) {
    u32 keep = 0;
    if (K == ECHO) {
        u32 decay = (u32)(5120ull * k / (24ull * k + 31ull * (slots - min(slots, k))));
        keep = 8192 - decay * max((u32)((u64)ECHO_RANKS * repeated / k), 3u);
    }
    for (u32 i = threadIdx.x; i < slots; i += THREADS) {
        if (K == AGED_SCORE || K == ATTENTION_MASS || K == REGION_UTILITY) s.a[i] = s.a[i] * KEEP >> 8;
        if (K == LFU_AGING && s.step % HALVE_EVERY == 0) s.a[i] /= 2;
        if (K == ECHO) s.a[i] = s.a[i] * keep >> 13;
    }
    if (K == REGION_UTILITY)
        for (u32 i = threadIdx.x; i < (blocks + 7) >> REGION_BITS; i += THREADS) s.own[i] = s.own[i] * KEEP >> 8;
}

// What one selected block earns; `loaded` if it was brought by this step.
template <Kind K>
__device__ __forceinline__ void credit(const Numbers &s, u32 slot, u32 block, u32 rank, u32 n, u32 k, const u32 *scores, bool loaded) {
    u32 before = loaded ? 0 : s.a[slot];
    if (K == AGED_SCORE || K == REGION_UTILITY) s.a[slot] = before + ONE;
    if (K == ATTENTION_MASS) s.a[slot] = before + (scores ? scores[rank] : ONE - 1);
    if (K == REGION_UTILITY) atomicAdd(&s.own[block >> REGION_BITS], ONE);
    if (K == RANK_RECENCY) s.a[slot] = s.step * TICKS + NEAR_LAG + TICKS + RANK_BONUS * (n - rank) / n;
    if (K == HYPERBOLIC || K == LFU_AGING) s.a[slot] = before == NONE ? NONE : before + 1;
    if (K == LFU_AGING || (K == HYPERBOLIC && loaded)) s.b[slot] = s.step;
    if (K == ECHO) s.a[slot] = min(before + selected_credit(rank, k), 65535u), s.b[slot] = 0;
}

// What a block starts with that grows into a slot, or is prefetched as near miss number `rank`.
template <Kind K>
__device__ __forceinline__ void enter(const Numbers &s, u32 slot, bool grows, u32 rank, u32 k) {
    if (K == AGED_SCORE || K == REGION_UTILITY) s.a[slot] = grows ? ONE : 0;
    if (K == ATTENTION_MASS) s.a[slot] = grows ? ONE - 1 : 0;
    if (K == RANK_RECENCY) s.a[slot] = s.step * TICKS + NEAR_LAG + TICKS + (grows ? RANK_BONUS : 0);
    if (K == HYPERBOLIC || K == LFU_AGING) s.a[slot] = 1, s.b[slot] = s.step;
    if (K == ECHO) s.a[slot] = grows ? ECHO_GROWN : near_credit(rank, k), s.b[slot] = grows ? 0 : 1;
}

template <Kind K>
__device__ __forceinline__ void look_up_scored(const u32 *ids, const u32 *selected, const u32 *selected_count, const u32 *scores, u32 k,
                                               const u32 *near, const u32 *near_count, u32 near_stride, u32 budget, const u32 *grown,
                                               u32 *slot_of, u32 blocks, u32 *block_of, u32 *filled, u32 slots, u32 *slots_out, uint4 *fills,
                                               u32 *fill_counts, u32 *numbers, u32 *more, u32 *own, u32 own_words, u32 *steps,
                                               const u32 *warm, u32 warm_words) {
    extern __shared__ u64 keys[];
    u32 padded = 1u << (32 - __clz(slots - 1 | 1));
    u32 *victims = (u32 *)(keys + padded), *boost = victims + slots, *wanted = boost + slots;
    u8 *held = (u8 *)(wanted + budget + 1);
    __shared__ u32 warp_misses[WARPS], wanted_count, stale_count, repeated;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32 stream = blockIdx.x, id = ids[stream], n = selected_count[stream], newly = grown ? grown[stream] : NONE;
    selected += (u64)stream * k;
    slots_out += (u64)stream * k;
    near += (u64)stream * near_stride;
    if (scores) scores += (u64)stream * k;
    u32 near_n = near_count[stream], ghost_weight = 4 * slots / k;
    Numbers s = {numbers + (u64)id * slots, more + (u64)id * slots, own + (u64)id * own_words, steps[id] + 1};
    Buffer b = {slot_of + (u64)id * blocks, block_of + (u64)id * slots, fills + (u64)stream * (k + budget + 1),
                warm ? warm + (u64)id * warm_words : nullptr};

    for (u32 i = threadIdx.x; i < (slots + 3) / 4; i += THREADS) ((u32 *)held)[i] = 0;
    if (threadIdx.x == 0) repeated = 0, stale_count = 0, wanted_count = 0;
    u32 was_filled = filled[id];
    __syncthreads();
    u32 my_misses = look_up(selected, n, b.slot_of, slots_out, held);
    if (lane == 0) warp_misses[warp] = my_misses;
    if (K == ECHO) {
        u32 mine = 0;
        __syncthreads();
        for (u32 rank = threadIdx.x; rank < n; rank += THREADS) mine += slots_out[rank] != NONE && s.b[slots_out[rank]] == 0;
        if (mine) atomicAdd(&repeated, mine);
    }
    __syncthreads();
    age<K>(s, slots, blocks, k, repeated);
    for (u32 i = threadIdx.x; i < slots; i += THREADS) boost[i] = 0;
    __syncthreads();
    if (K == ECHO)
        for (u32 i = threadIdx.x; i < min(near_n, k); i += THREADS)
            if (b.slot_of[near[i]] != NONE) boost[b.slot_of[near[i]]] = near_credit(i, k) * 7 >> 2;
    __syncthreads();

    u32 misses, miss = warp_prefix(warp_misses, misses);
    u32 used = min(misses, slots - was_filled), need = misses - used;
    // The unpinned by (number, slot), smallest first, into `victims`.
    auto rank_stale = [&](u32 now) {
        for (u32 i = threadIdx.x; i < slots; i += THREADS)
            if (i < was_filled && !held[i])
                keys[atomicAdd(&stale_count, 1)] = (worth<K>(s, i, b.block_of[i], now, ghost_weight) + boost[i]) << 20 | i;
        __syncthreads();
        sort_keys(keys, stale_count, padded);
        for (u32 i = threadIdx.x; i < stale_count; i += THREADS) victims[i] = (u32)keys[i] & 0xfffff;
        __syncthreads();
    };
    if (need > 0) rank_stale(s.step);

    u32 ranks = run_length(n);
    for (u32 base = warp * ranks; base < (warp + 1) * ranks; base += 32) {
        u32 rank = base + lane, slot = rank < n ? slots_out[rank] : 0;
        bool missed = rank < n && slot == NONE;
        u32 mask = __ballot_sync(FULL, missed), at = miss + lanes_below(mask);
        if (missed) {
            slot = at < used ? was_filled + at : victims[at - used];
            fill_slot(b, at, selected[rank], slot, at >= used, b.source(selected[rank]));
            slots_out[rank] = slot;
            held[slot] = 1;
        }
        if (rank < n) credit<K>(s, slot, selected[rank], rank, n, k, scores, missed);
        miss += __popc(mask);
    }
    __syncthreads();
    if (K == REGION_UTILITY)
        for (u32 rank = threadIdx.x; rank < n; rank += THREADS) atomicMin(&s.own[selected[rank] >> REGION_BITS], NONE >> 8);
    if (K == ECHO)
        for (u32 i = threadIdx.x; i < slots; i += THREADS)
            if (!held[i]) s.b[i] = min(s.b[i] + 1, 255u);
    if (K == ECHO || K == RANK_RECENCY)
        for (u32 i = threadIdx.x; i < near_n; i += THREADS) {
            u32 slot = b.slot_of[near[i]];
            if (slot == NONE) continue;
            if (K == RANK_RECENCY) s.a[slot] = max(s.a[slot], s.step * TICKS + TICKS);
            if (K == ECHO) s.a[slot] = min(s.a[slot] + near_credit(i, k), 65535u);
        }
    if (K == ECHO) ghost_select(s.own, selected, n);
    __syncthreads();

    u32 now_filled = was_filled + used, *counts = fill_counts + stream * 4;
    u32 found = 0, prefetched = 0, grows = 0;
    if (budget > 0 || newly != NONE) {
        if (warp == 0) {
            u32 some = budget ? candidates(near, near_n, budget, b.slot_of, wanted) : 0;
            if (lane == 0) wanted_count = some, stale_count = 0;
        }
        u32 stale = 0;
        for (u32 i = threadIdx.x; i < was_filled; i += THREADS) {
            stale += !held[i];
            boost[i] = 0;
        }
        stale = __reduce_add_sync(FULL, stale);
        if (lane == 0) warp_misses[warp] = stale;
        __syncthreads();
        u32 unpinned;
        warp_prefix(warp_misses, unpinned);
        found = wanted_count;
        u32 room = slots - now_filled + unpinned;
        prefetched = min(found, room), grows = newly != NONE && room > prefetched;
        u32 inserted = prefetched + grows, free_used = min(inserted, slots - now_filled);
        if (inserted > free_used) rank_stale(s.step + 1);
        for (u32 i = threadIdx.x; i < inserted; i += THREADS) {
            u32 slot = i < free_used ? now_filled + i : victims[i - free_used];
            bool is_growth = i == prefetched;
            u32 block = is_growth ? newly : wanted[i], rank = 0;
            if (K == ECHO && !is_growth)
                while (near[rank] != block) rank++;
            fill_slot(b, misses + i, block, slot, i >= free_used, is_growth ? 2 : b.source(block));
            enter<K>(s, slot, is_growth, rank, k);
        }
        now_filled += free_used;
    }
    if (threadIdx.x == 0) {
        counts[0] = misses, counts[1] = prefetched, counts[2] = grows, counts[3] = found - prefetched;
        filled[id] = now_filled, steps[id] = s.step;
    }
}

#define LOOK_UP_SCORED(NAME, KIND)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                                        \
        const u32 *ids, const u32 *selected, const u32 *selected_count, const u32 *scores, u32 k, const u32 *near,     \
        const u32 *near_count, u32 near_stride, u32 budget, const u32 *grown, u32 *slot_of, u32 blocks, u32 *block_of, \
        u32 *filled, u32 slots, u32 *slots_out, uint4 *fills, u32 *fill_counts, u32 *numbers, u32 *more, u32 *own,     \
        u32 own_words, u32 *steps, const u32 *warm, u32 warm_words) {                                     \
        look_up_scored<KIND>(ids, selected, selected_count, scores, k, near, near_count, near_stride, budget, grown,   \
                             slot_of, blocks, block_of, filled, slots, slots_out, fills, fill_counts, numbers, more,   \
                             own, own_words, steps, warm, warm_words);                                        \
    }

LOOK_UP_SCORED(lookup_aged_score, AGED_SCORE)
LOOK_UP_SCORED(lookup_attention_mass, ATTENTION_MASS)
LOOK_UP_SCORED(lookup_region_utility, REGION_UTILITY)
LOOK_UP_SCORED(lookup_rank_recency, RANK_RECENCY)
LOOK_UP_SCORED(lookup_hyperbolic, HYPERBOLIC)
LOOK_UP_SCORED(lookup_lfu_aging, LFU_AGING)
LOOK_UP_SCORED(lookup_echo, ECHO)

// What the blocks that a stream starts with are worth, and nothing remembered; `kind` as in Kind.
extern "C" __global__ void __launch_bounds__(256)
open_scores(const u32 *ids, u32 kind, u32 slots, u32 *numbers, u32 *more, u32 *own, u32 own_words, u32 *steps) {
    u32 id = ids[blockIdx.x], a = 1, b = 0;
    if (kind == AGED_SCORE || kind == REGION_UTILITY) a = ONE;
    if (kind == ATTENTION_MASS) a = ONE - 1;
    if (kind == RANK_RECENCY) a = NEAR_LAG + TICKS;
    if (kind == ECHO) a = ECHO_ONE, b = 1;
    for (u32 i = threadIdx.x; i < slots; i += blockDim.x) numbers[(u64)id * slots + i] = a, more[(u64)id * slots + i] = b;
    for (u32 i = threadIdx.x; i < own_words; i += blockDim.x) own[(u64)id * own_words + i] = 0;
    if (threadIdx.x == 0) steps[id] = 0;
}
