// One step of residency for the policies that give every slot a number and evict the smallest: fading scores, recency
// moved by rank, counts, and echo. The order of a step is that of lookup.cu, whose first lines come before these; what
// differs is how numbers age, what a selection credits, and what a block that enters starts with. Victims go by (number,
// slot), so that no order depends on timing. One block per stream; every thread settles slots of its own, four
// neighbours at a time, from what shared memory says of their ranks, and keeps the numbers of the first four in
// registers. One long function, because the phases of a step share registers and shared memory.

enum Kind { AGED_SCORE, ATTENTION_MASS, REGION_UTILITY, RANK_RECENCY, HYPERBOLIC, LFU_AGING, ECHO };

// Constants of the policies at their defaults, as the decision plane states them.
const u32 ONE = 1 << 16, KEEP = 205;
const u32 REGION_BITS = 3, REGION_SHARE = 32;
const u32 TICKS = 256, RANK_BONUS = 8 * TICKS, NEAR_LAG = 4 * TICKS;
const u32 HALVE_EVERY = 16;

// The mark of ranks whose block this step has brought. Shared memory holds fewer slots than there are ranks.
const u32 LOADED = 0x8000;

// Whether a policy keeps a second number, and whether it reads near misses.
__device__ constexpr bool keeps_two(Kind k) { return k == HYPERBOLIC || k == LFU_AGING || k == ECHO; }
__device__ constexpr bool reads_near(Kind k) { return k == RANK_RECENCY || k == ECHO; }

// What all slots of a stream share in a step.
struct Step {
    u32 number; // of the step, from 1
    u32 n, k;   // blocks selected, and at most
    u32 decay;  // echo: what each 32nd that repeats takes from a worth, of 2^13
    u32 keep;   // and what is left of it
    u32 weight; // echo: what a count of the ghost is worth
};

// A slot's first number after ageing, which comes before victims and before credit.
template <Kind K>
__device__ __forceinline__ u32 aged(u32 a, const Step &s) {
    if (K == AGED_SCORE || K == ATTENTION_MASS || K == REGION_UTILITY) return a * KEEP >> 8;
    if (K == LFU_AGING) return s.number % HALVE_EVERY == 0 ? a / 2 : a;
    if (K == ECHO) return echo_aged(a, s.keep);
    return a;
}

// What a slot is worth; `now` is the step by which stays are counted, `own` as for the function below. Below 2^44.
template <Kind K>
__device__ __forceinline__ u64 worth(u32 a, u32 b, u32 block, const u32 *own, u32 now, const Step &s) {
    if (K == REGION_UTILITY) return a + (((u64)own[block >> REGION_BITS] * REGION_SHARE) >> 8);
    if (K == HYPERBOLIC) return ((u64)a << 32) / (now - b);
    if (K == LFU_AGING) return (u64)a << 22 | b;
    if (K == ECHO) return (u64)a + ECHO_RECENCY * (ECHO_RECENT - min(b, ECHO_RECENT)) + (u64)s.weight * ghost_count(own, block);
    return a;
}

// Ages a slot's numbers and credits it for its ranks in the selection and among the near misses. For echo these are not
// ranks, but what they earn; and `near` of a slot whose block was just loaded is what that starts with.
template <Kind K>
__device__ __forceinline__ void settle(u32 &a, u32 &b, u32 rank, u32 near, const u32 *scores, const Step &s) {
    bool selected = rank != UNRANKED, loaded = selected && rank & LOADED;
    a = !loaded ? aged<K>(a, s) : K == ECHO ? near : 0;
    rank &= ~LOADED;
    if (K == ECHO && !loaded && near != UNRANKED) a = min(a + near, ECHO_MOST);
    if (K == ECHO && !selected) b = min(b + 1, 255u);
    if (selected) {
        if (K == AGED_SCORE || K == REGION_UTILITY) a += ONE;
        if (K == ATTENTION_MASS) a += scores ? scores[rank] : ONE - 1;
        if (K == RANK_RECENCY) a = s.number * TICKS + NEAR_LAG + TICKS + RANK_BONUS * (s.n - rank) / s.n;
        if (K == HYPERBOLIC || K == LFU_AGING) a = a == NONE ? NONE : a + 1;
        if (K == LFU_AGING || (K == HYPERBOLIC && loaded)) b = s.number;
        if (K == ECHO) a = min(a + rank, ECHO_MOST), b = 0;
    }
    if (K == RANK_RECENCY && near != UNRANKED) a = max(a, s.number * TICKS + TICKS);
}

// What a block starts with that grows into a slot, or is prefetched as near miss number `rank`.
template <Kind K>
__device__ __forceinline__ void enter(u32 &a, u32 &b, bool grows, u32 rank, const Step &s) {
    if (K == AGED_SCORE || K == REGION_UTILITY) a = grows ? ONE : 0;
    if (K == ATTENTION_MASS) a = grows ? ONE - 1 : 0;
    if (K == RANK_RECENCY) a = s.number * TICKS + NEAR_LAG + TICKS + (grows ? RANK_BONUS : 0);
    if (K == HYPERBOLIC || K == LFU_AGING) a = 1, b = s.number;
    if (K == ECHO) a = grows ? ECHO_GROWN : near_credit(rank, s.k), b = grows ? 0 : 1;
}

// One of the four values at `at`, all of which are read at once.
__device__ __forceinline__ u32 of_four(const u16 *at, u32 which) { return (u32)(*(const u64 *)at >> 16 * which) & 0xffff; }

// Numbers of four neighbouring slots.
typedef u32 Four[KEPT];

__device__ __forceinline__ void load_four(const u32 *from, Four &to) {
    uint4 v = *(const uint4 *)from;
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

__device__ __forceinline__ void save_four(u32 *to, const Four &from) {
    *(uint4 *)to = make_uint4(from[0], from[1], from[2], from[3]);
}

// Calls `f(slot, numbers, more)` for every four slots of this thread, which are one in each group of 4 x THREADS; the
// numbers of the first group are `kept` and `kept_more`.
template <Kind K, typename F>
__device__ __forceinline__ void each_four(const u32 *numbers, const u32 *more, u32 slots, Four &kept, Four &kept_more, F f) {
    u32 first = KEPT * threadIdx.x;
    if (first < slots) f(first, kept, kept_more);
    for (u32 i = first + KEPT * THREADS; i < slots; i += KEPT * THREADS) {
        Four x, y = {};
        load_four(numbers + i, x);
        if (keeps_two(K)) load_four(more + i, y);
        f(i, x, y);
    }
}

// Ages the scores of all regions, four at a time.
__device__ __forceinline__ void age_regions(u32 *own, u32 words) {
#pragma unroll 4
    for (u32 i = threadIdx.x; i < words / 4; i += THREADS) {
        uint4 v = ((uint4 *)own)[i];
        ((uint4 *)own)[i] = make_uint4(v.x * KEEP >> 8, v.y * KEEP >> 8, v.z * KEEP >> 8, v.w * KEEP >> 8);
    }
}

// `numbers` and `more` hold each slot's two numbers, `slots` padded to a multiple of four per state; `own` words of the
// stream's own: scores of its regions, or echo's ghost. `steps` counts each stream's steps. The rest as for lru-step.
// Near misses are distinct, and outside the selection.
template <Kind K>
__device__ __forceinline__ void look_up_scored(const u32 *ids, const u32 *selected, const u32 *selected_count, const u32 *scores, u32 k,
                                               const u32 *near, const u32 *near_count, u32 near_stride, u32 budget, const u32 *grown,
                                               u32 *slot_of, u32 blocks, u32 *block_of, u32 *filled, u32 slots, u32 *slots_out, uint4 *fills,
                                               u32 *fill_counts, u32 *numbers, u32 *more, u32 *own, u32 own_words, u32 *steps,
                                               const u32 *warm, u32 warm_words) {
    extern __shared__ u64 keys[];
    u32 stride = (slots + 3) / 4 * 4, *bins = (u32 *)(keys + padded_to(slots)), *wanted = bins + COUNTERS;
    u16 *rank_of = (u16 *)(wanted + budget / 2 * 2 + 2), *near_of = rank_of + stride;
    __shared__ u32 warp_misses[MOST_WARPS], warp_repeats[MOST_WARPS];
    __shared__ __align__(16) u32 ghost[GHOST_WORDS];
    __shared__ u32 ghost_first[GHOST_SETS], ghost_counts[GHOST_SETS], ghost_listed;
    __shared__ __align__(8) u16 ghost_ranks[3 * GHOST_ENTRIES];
    // The marks are read before there are keys; together with the counters there is room for them.
    GhostLists lists = {(u32 *)keys, near_of + stride, ghost_first, ghost_counts, &ghost_listed,
                        ghost_ranks, ghost_ranks + GHOST_ENTRIES, ghost_ranks + 2 * GHOST_ENTRIES};
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32 stream = blockIdx.x, id = ids[stream], n = selected_count[stream], newly = grown ? grown[stream] : NONE;
    selected += (u64)stream * k;
    slots_out += (u64)stream * k;
    near += (u64)stream * near_stride;
    if (scores) scores += (u64)stream * k;
    numbers += (u64)id * stride;
    more += (u64)id * stride;
    own += (u64)id * own_words;
    u32 near_n = near_count[stream], was_filled = filled[id];
    Step s = {steps[id] + 1, n, k, K == ECHO ? echo_decay(slots, k) : 0, 0, 0};
    Buffer b = {slot_of + (u64)id * blocks, block_of + (u64)id * slots, fills + (u64)stream * (k + budget + 1),
                warm ? warm + (u64)id * warm_words : nullptr};
    u32 first = KEPT * threadIdx.x;
    Four kept = {}, kept_more = {};
    for (u32 i = threadIdx.x; i < stride; i += THREADS) ((u32 *)rank_of)[i] = FULL; // and near_of, which follows
    u32 words[GHOST_SHARE];
    if (K == ECHO) {
#pragma unroll
        for (u32 j = 0; j < GHOST_SHARE; j++) words[j] = threadIdx.x + j * THREADS < GHOST_WORDS ? own[threadIdx.x + j * THREADS] : 0;
        for (u32 i = threadIdx.x; i < (n + 31) / 32 * GHOST_ROW; i += THREADS) lists.marks[i] = 0;
        for (u32 i = threadIdx.x; i < 3 * GHOST_ENTRIES / 2; i += THREADS) ((u32 *)ghost_ranks)[i] = FULL;
        if (threadIdx.x == 0) ghost_listed = 0;
    }
    u32 near_block = reads_near(K) && threadIdx.x < near_n ? near[threadIdx.x] : NONE, near_slot = NONE;
    if (first < slots) {
        load_four(numbers + first, kept);
        if (keeps_two(K)) load_four(more + first, kept_more);
    }
    if (K == REGION_UTILITY) age_regions(own, own_words);
    // While the page table is read, which is what a step waits for longest, the selection is dealt to the ghost.
    auto ready = [&]() {
        if (near_block != NONE) near_slot = b.slot_of[near_block];
        if (K == ECHO) {
#pragma unroll
            for (u32 j = 0; j < GHOST_SHARE; j++)
                if (threadIdx.x + j * THREADS < GHOST_WORDS) ghost[threadIdx.x + j * THREADS] = words[j];
            __syncthreads();
            ghost_mark(ghost, lists, selected, n);
        }
        __syncthreads(); // ranks are cleared, and the selection is marked
        if (K == ECHO) ghost_list(lists, n);
    };
    auto hit = [&](u32 slot, u32 rank) { rank_of[slot] = K == ECHO ? selected_credit(rank, k) : rank; };
    u32 my_misses = look_up(selected, n, b.slot_of, slots_out, ready, hit);
    if (lane == 0) warp_misses[warp] = my_misses;
    if (reads_near(K))
        for (u32 i = threadIdx.x; i < near_n; i += THREADS) {
            if (i != threadIdx.x) near_block = near[i], near_slot = b.slot_of[near_block];
            u32 entry = K == ECHO ? ghost_entry(ghost, near_block) : NONE, means = K == ECHO ? near_credit(i, k) : i;
            if (near_slot != NONE) near_of[near_slot] = means;
            if (entry != NONE) lists.near[entry] = means;
        }
    __syncthreads();
    if (K == ECHO) {
        u32 repeats = 0;
        each_four<K>(numbers, more, slots, kept, kept_more, [&](u32 slot, Four &, Four &since) {
#pragma unroll
            for (u32 j = 0; j < KEPT; j++) repeats += of_four(rank_of + slot, j) != UNRANKED && since[j] == 0;
        });
        repeats = __reduce_add_sync(FULL, repeats);
        if (lane == 0) warp_repeats[warp] = repeats;
        __syncthreads();
        warp_prefix(warp_repeats, repeats);
        s.keep = echo_keep(s.decay, k, repeats);
    }

    u32 misses, miss = warp_prefix(warp_misses, misses);
    u32 used = min(misses, slots - was_filled), need = misses - used;
    // The `count` smallest of the `unpinned` by (number, slot) to the front of `keys`; the numbers are this step's once
    // they are settled.
    auto choose = [&](bool settled, u32 unpinned, u32 count) {
        const u32 *remembered = K == ECHO ? ghost : own;
        if (K == ECHO) s.weight = GHOST_WEIGHT * slots / k;
        u64 own_keys[KEPT] = {NO_KEY, NO_KEY, NO_KEY, NO_KEY};
        each_four<K>(numbers, more, slots, kept, kept_more, [&](u32 slot, Four &x, Four &y) {
#pragma unroll
            for (u32 j = 0; j < KEPT; j++) {
                u64 key = NO_KEY;
                if (slot + j < was_filled && of_four(rank_of + slot, j) == UNRANKED) {
                    u32 block = K == ECHO || K == REGION_UTILITY ? b.block_of[slot + j] : 0, near = of_four(near_of + slot, j);
                    u64 number = worth<K>(settled ? x[j] : aged<K>(x[j], s), y[j], block, remembered, s.number + settled, s);
                    if (K == ECHO && !settled && near != UNRANKED) number += near * 7 >> 2;
                    key = number << 20 | (slot + j);
                }
                if (slot == first) own_keys[j] = key;
                else keys[slot + j] = key;
            }
        });
        smallest(own_keys, keys, slots, unpinned, count, bins);
    };
    if (need > 0) choose(false, was_filled - (n - misses), need);

    if (misses > 0) {
        u32 ranks = run_length(n);
        for (u32 base = warp * ranks; base < (warp + 1) * ranks; base += 32) {
            u32 rank = base + lane;
            bool missed = rank < n && slots_out[rank] == NONE;
            u32 mask = __ballot_sync(FULL, missed), at = miss + lanes_below(mask);
            if (missed) {
                u32 slot = at < used ? was_filled + at : (u32)keys[at - used] & 0xfffff;
                fill_slot(b, at, selected[rank], slot, at >= used, b.source(selected[rank]));
                slots_out[rank] = slot;
                hit(slot, rank);
                rank_of[slot] |= LOADED;
                if (reads_near(K)) near_of[slot] = K == ECHO ? echo_aged(ghost_worth(ghost, selected[rank]), s.keep) : UNRANKED;
            }
            miss += __popc(mask);
        }
        __syncthreads();
    }
    if (K == ECHO) ghost_select(ghost, own, lists, selected, k, s.keep);
    each_four<K>(numbers, more, slots, kept, kept_more, [&](u32 slot, Four &x, Four &y) {
#pragma unroll
        for (u32 j = 0; j < KEPT; j++) settle<K>(x[j], y[j], of_four(rank_of + slot, j), of_four(near_of + slot, j), scores, s);
        save_four(numbers + slot, x);
        if (keeps_two(K)) save_four(more + slot, y);
    });
    // Eight blocks a step at most add to a region, so its score stays below 41 selections and needs no clamp.
    if (K == REGION_UTILITY)
        for (u32 rank = threadIdx.x; rank < n; rank += THREADS) atomicAdd(own + (selected[rank] >> REGION_BITS), ONE);

    u32 now_filled = was_filled + used, *counts = fill_counts + stream * 4;
    u32 found = 0, prefetched = 0, grows = 0;
    if (budget > 0 || newly != NONE) {
        found = candidates(near, budget > 0 ? near_n : 0, budget, b.slot_of, wanted, warp_misses);
        u32 room = slots - n;
        prefetched = min(found, room), grows = newly != NONE && room > prefetched;
        u32 inserted = prefetched + grows, free_used = min(inserted, slots - now_filled);
        if (inserted > free_used) choose(true, now_filled - n, inserted - free_used);
        for (u32 i = threadIdx.x; i < inserted; i += THREADS) {
            u32 slot = i < free_used ? now_filled + i : (u32)keys[i - free_used] & 0xfffff;
            bool is_growth = i == prefetched;
            u32 rank = is_growth ? 0 : wanted[i], block = is_growth ? newly : near[rank];
            fill_slot(b, misses + i, block, slot, i >= free_used, is_growth ? 2 : b.source(block));
            enter<K>(numbers[slot], more[slot], is_growth, rank, s);
        }
        now_filled += free_used;
    }
    if (threadIdx.x == 0) {
        counts[0] = misses, counts[1] = prefetched, counts[2] = grows, counts[3] = found - prefetched;
        filled[id] = now_filled, steps[id] = s.number;
    }
}

#define LOOK_UP_SCORED(NAME, KIND)                                                                                     \
    extern "C" __global__ void __launch_bounds__(1024) NAME(                                                           \
        const u32 *ids, const u32 *selected, const u32 *selected_count, const u32 *scores, u32 k, const u32 *near,     \
        const u32 *near_count, u32 near_stride, u32 budget, const u32 *grown, u32 *slot_of, u32 blocks, u32 *block_of, \
        u32 *filled, u32 slots, u32 *slots_out, uint4 *fills, u32 *fill_counts, u32 *numbers, u32 *more, u32 *own,     \
        u32 own_words, u32 *steps, const u32 *warm, u32 warm_words) {                                                  \
        look_up_scored<KIND>(ids, selected, selected_count, scores, k, near, near_count, near_stride, budget, grown,   \
                             slot_of, blocks, block_of, filled, slots, slots_out, fills, fill_counts, numbers, more,   \
                             own, own_words, steps, warm, warm_words);                                                 \
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
    u32 stride = (slots + 3) / 4 * 4;
    for (u32 i = threadIdx.x; i < slots; i += blockDim.x) numbers[(u64)id * stride + i] = a, more[(u64)id * stride + i] = b;
    for (u32 i = threadIdx.x; i < own_words; i += blockDim.x) own[(u64)id * own_words + i] = 0;
    if (threadIdx.x == 0) steps[id] = 0;
}
