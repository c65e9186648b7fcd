// One step of residency for all streams of a layer in one launch: look-up, miss compaction, victims, fill, touch,
// prefetch and growth, exactly as the decision plane does them on the host. `warm` has `warm_words` words of bits per
// state, or is null. One block per stream; every list is compacted by ballots over contiguous runs, so that no order
// depends on timing. The two kernels are long functions because the phases of a step share registers and shared memory.

// lru-step: the order is stale, loaded, hits, then what was prefetched or has grown; free slots sort with the hits.
//
// `ids` names the state of each stream. Per state: `slot_of` of `blocks`, `block_of` and `order` of `slots`,
// `filled`. Per launched stream: `selected` and `slots_out` of `k`, `near` of `near_stride`, `grown` (or NONE),
// `fills` of k + budget + 1, `fill_counts` of 4: loads, prefetches, growth, dropped prefetches.
extern "C" __global__ void __launch_bounds__(1024)
lookup_lru_step(const u32 *ids, const u32 *selected, const u32 *selected_count, u32 k, const u32 *near,
                const u32 *near_count, u32 near_stride, u32 budget, const u32 *grown, u32 *slot_of, u32 blocks,
                u32 *block_of, u32 *order, u32 *filled, u32 slots, u32 *slots_out, uint4 *fills, u32 *fill_counts, u32 *,
                const u32 *warm, u32 warm_words) {
    extern __shared__ u32 shared[];
    u32 *before = shared, *after = before + slots, *victims = after + slots, *wanted = victims + k;
    u8 *held = (u8 *)(wanted + budget + 1);
    __shared__ u32 warp_misses[MOST_WARPS], warp_stale[MOST_WARPS], warp_held[MOST_WARPS];
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32 stream = blockIdx.x, id = ids[stream], n = selected_count[stream];
    selected += (u64)stream * k;
    slots_out += (u64)stream * k;
    order += (u64)id * slots;
    Buffer b = {slot_of + (u64)id * blocks, block_of + (u64)id * slots, fills + (u64)stream * (k + budget + 1),
                warm ? warm + (u64)id * warm_words : nullptr};

    for (u32 i = threadIdx.x; i < (slots + 3) / 4; i += THREADS) ((u32 *)held)[i] = 0;
    for (u32 i = threadIdx.x; i < slots; i += THREADS) before[i] = order[i];
    u32 was_filled = filled[id];
    auto hit = [&](u32 slot, u32) { held[slot] = 1; };
    u32 my_misses = look_up(selected, n, b.slot_of, slots_out, [] { __syncthreads(); }, hit);
    if (lane == 0) warp_misses[warp] = my_misses;
    __syncthreads();

    u32 misses, miss = warp_prefix(warp_misses, misses);
    u32 used = min(misses, slots - was_filled), need = misses - used;
    // In the order so far: what is neither held nor loaded into a free slot is stale; victims are the first of it.
    u32 run = run_length(slots), start = warp * run, stale = 0, kept = 0;
    for (u32 i = start + lane; i < start + run; i += 32) {
        u32 slot = i < slots ? before[i] : NONE;
        bool is_stale = slot < was_filled && !held[slot];
        bool is_kept = slot != NONE && !is_stale && !(slot >= was_filled && slot < was_filled + used);
        stale += __popc(__ballot_sync(FULL, is_stale));
        kept += __popc(__ballot_sync(FULL, is_kept));
    }
    if (lane == 0) warp_stale[warp] = stale, warp_held[warp] = kept;
    __syncthreads();
    u32 all_stale, all_kept;
    stale = warp_prefix(warp_stale, all_stale);
    kept = warp_prefix(warp_held, all_kept);
    u32 still_stale = all_stale - need;
    for (u32 i = start + lane; i < start + run; i += 32) {
        u32 slot = i < slots ? before[i] : NONE;
        bool is_stale = slot < was_filled && !held[slot];
        bool is_kept = slot != NONE && !is_stale && !(slot >= was_filled && slot < was_filled + used);
        u32 stale_mask = __ballot_sync(FULL, is_stale), kept_mask = __ballot_sync(FULL, is_kept);
        u32 place = stale + lanes_below(stale_mask);
        if (is_stale && place < need) victims[place] = slot;
        if (is_stale && place >= need) after[place - need] = slot;
        if (is_kept) after[still_stale + misses + kept + lanes_below(kept_mask)] = slot;
        stale += __popc(stale_mask);
        kept += __popc(kept_mask);
    }
    __syncthreads();

    if (misses > 0) {
        u32 run = run_length(n), start = warp * run;
        for (u32 base = start; base < start + run; base += 32) {
            u32 rank = base + lane;
            bool missed = rank < n && slots_out[rank] == NONE;
            u32 mask = __ballot_sync(FULL, missed);
            u32 at = miss + lanes_below(mask);
            if (missed) {
                u32 slot = at < used ? was_filled + at : victims[at - used];
                fill_slot(b, at, selected[rank], slot, at >= used, b.source(selected[rank]));
                slots_out[rank] = slot;
                after[still_stale + at] = slot;
            }
            miss += __popc(mask);
        }
        __syncthreads();
    }

    // Prefetches, then growth: each takes the next free slot, or else the oldest stale one, and becomes most recent.
    u32 now_filled = was_filled + used, inserted = 0;
    u32 newly = grown ? grown[stream] : NONE;
    if (budget > 0 || newly != NONE) {
        near += (u64)stream * near_stride;
        u32 found = candidates(near, budget > 0 ? near_count[stream] : 0, budget, b.slot_of, wanted, warp_misses);
        u32 room = slots - now_filled + still_stale;
        u32 prefetched = min(found, room), grows = newly != NONE && room > prefetched;
        inserted = prefetched + grows;
        u32 free_used = min(inserted, slots - now_filled);
        for (u32 i = threadIdx.x; i < inserted; i += THREADS) {
            u32 slot = i < free_used ? now_filled + i : after[i - free_used];
            bool is_growth = i == prefetched;
            u32 block = is_growth ? newly : near[wanted[i]];
            fill_slot(b, misses + i, block, slot, i >= free_used, is_growth ? 2 : b.source(block));
            before[slots - inserted + i] = slot;
        }
        if (threadIdx.x == 0) {
            u32 *counts = fill_counts + stream * 4;
            counts[1] = prefetched, counts[2] = grows, counts[3] = found - prefetched;
        }
        // The rest closes up in front of what was inserted.
        u32 from_stale = inserted - free_used, rest = 0;
        for (u32 i = start + lane; i < start + run; i += 32) {
            u32 slot = i < slots ? after[i] : NONE;
            bool stays = slot != NONE && i >= from_stale && !(slot >= now_filled && slot < now_filled + free_used);
            rest += __popc(__ballot_sync(FULL, stays));
        }
        if (lane == 0) warp_stale[warp] = rest;
        __syncthreads();
        u32 all;
        rest = warp_prefix(warp_stale, all);
        for (u32 i = start + lane; i < start + run; i += 32) {
            u32 slot = i < slots ? after[i] : NONE;
            bool stays = slot != NONE && i >= from_stale && !(slot >= now_filled && slot < now_filled + free_used);
            u32 mask = __ballot_sync(FULL, stays);
            if (stays) order[rest + lanes_below(mask)] = slot;
            rest += __popc(mask);
        }
        for (u32 i = slots - inserted + threadIdx.x; i < slots; i += THREADS) order[i] = before[i];
        now_filled += free_used;
    } else {
        for (u32 i = threadIdx.x; i < slots; i += THREADS) order[i] = after[i];
        if (threadIdx.x < 3) fill_counts[stream * 4 + 1 + threadIdx.x] = 0;
    }
    if (threadIdx.x == 0) {
        fill_counts[stream * 4] = misses;
        filled[id] = now_filled;
    }
}

// Recency order with ranks: what a step selects becomes most recent from the worst rank to the best, then what is
// prefetched or has grown. Victims leave in that order (lru), or by the number of selections since their load and then
// in that order (lfu). Arguments as for lru-step, and `uses`, one per slot, padded to a multiple of four per state.
template <bool BY_USE>
__device__ __forceinline__ void look_up_ranked(const u32 *ids, const u32 *selected, const u32 *selected_count, u32 k, const u32 *near,
                                               const u32 *near_count, u32 near_stride, u32 budget, const u32 *grown, u32 *slot_of, u32 blocks,
                                               u32 *block_of, u32 *order, u32 *filled, u32 slots, u32 *slots_out, uint4 *fills, u32 *fill_counts, u32 *uses,
                                               const u32 *warm, u32 warm_words) {
    extern __shared__ u64 keys[];
    u32 *bins = (u32 *)(keys + (BY_USE ? padded_to(slots) : 0)), *before = bins + (BY_USE ? COUNTERS : 0);
    u32 *victims = before + slots, *wanted = victims + (BY_USE ? 0 : slots);
    u8 *held = (u8 *)(wanted + 2 * (budget + 1));
    __shared__ u32 warp_misses[MOST_WARPS], warp_counts[MOST_WARPS];
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32 stream = blockIdx.x, id = ids[stream], n = selected_count[stream], newly = grown ? grown[stream] : NONE;
    selected += (u64)stream * k;
    slots_out += (u64)stream * k;
    order += (u64)id * slots;
    uses += (u64)id * ((slots + 3) / 4 * 4);
    Buffer b = {slot_of + (u64)id * blocks, block_of + (u64)id * slots, fills + (u64)stream * (k + budget + 1),
                warm ? warm + (u64)id * warm_words : nullptr};

    for (u32 i = threadIdx.x; i < (slots + 3) / 4; i += THREADS) ((u32 *)held)[i] = 0;
    for (u32 i = threadIdx.x; i < slots; i += THREADS) before[i] = order[i];
    u32 was_filled = filled[id];
    auto hit = [&](u32 slot, u32) { held[slot] = 1; };
    u32 my_misses = look_up(selected, n, b.slot_of, slots_out, [] { __syncthreads(); }, hit);
    if (lane == 0) warp_misses[warp] = my_misses;
    __syncthreads();

    u32 misses, miss = warp_prefix(warp_misses, misses);
    u32 used = min(misses, slots - was_filled), need = misses - used;
    // Stale slots from the least recent, or as many of the least used as can be needed, which are named by their places
    // in the order.
    u32 run = run_length(slots), start = warp * run, all_stale = was_filled - (n - misses);
    if (BY_USE) {
        u32 most = min(all_stale, need + budget + (newly != NONE));
        u64 kept[KEPT] = {NO_KEY, NO_KEY, NO_KEY, NO_KEY};
        auto key = [&](u32 i) {
            u32 slot = i < slots ? before[i] : NONE;
            return slot < was_filled && !held[slot] ? (u64)uses[slot] << 20 | i : NO_KEY;
        };
        if (most > 0) {
#pragma unroll
            for (u32 j = 0; j < KEPT; j++) kept[j] = key(KEPT * threadIdx.x + j);
            for (u32 i = KEPT * (THREADS + threadIdx.x); i < slots; i += KEPT * THREADS)
                for (u32 j = 0; j < KEPT; j++) keys[i + j] = key(i + j);
            smallest(kept, keys, slots, all_stale, most, bins);
        }
    } else {
        u32 stale = 0;
        for (u32 i = start + lane; i < start + run; i += 32)
            stale += __popc(__ballot_sync(FULL, i < slots && before[i] < was_filled && !held[before[i]]));
        if (lane == 0) warp_counts[warp] = stale;
        __syncthreads();
        stale = warp_prefix(warp_counts, all_stale);
        for (u32 i = start + lane; i < start + run; i += 32) {
            u32 slot = i < slots ? before[i] : NONE;
            bool is_stale = slot < was_filled && !held[slot];
            u32 mask = __ballot_sync(FULL, is_stale);
            if (is_stale) victims[stale + lanes_below(mask)] = slot;
            stale += __popc(mask);
        }
        __syncthreads();
    }
    auto victim = [&](u32 i) { return BY_USE ? before[(u32)keys[i] & 0xfffff] : victims[i]; };

    u32 ranks = run_length(n);
    for (u32 base = warp * ranks; base < (warp + 1) * ranks; base += 32) {
        u32 rank = base + lane, slot = rank < n ? slots_out[rank] : 0;
        bool missed = rank < n && slot == NONE;
        u32 mask = __ballot_sync(FULL, missed), at = miss + lanes_below(mask);
        if (missed) {
            slot = at < used ? was_filled + at : victim(at - used);
            fill_slot(b, at, selected[rank], slot, at >= used, b.source(selected[rank]));
            slots_out[rank] = slot;
            held[slot] = 1;
        }
        if (BY_USE && rank < n) uses[slot] = missed ? 1 : uses[slot] == NONE ? NONE : uses[slot] + 1;
        miss += __popc(mask);
    }
    __syncthreads();

    u32 now_filled = was_filled + used, inserted = 0;
    u32 *counts = fill_counts + stream * 4;
    if (budget > 0 || newly != NONE) {
        near += (u64)stream * near_stride;
        u32 found = candidates(near, budget > 0 ? near_count[stream] : 0, budget, b.slot_of, wanted, warp_misses);
        u32 room = slots - now_filled + all_stale - need;
        u32 prefetched = min(found, room), grows = newly != NONE && room > prefetched;
        inserted = prefetched + grows;
        u32 free_used = min(inserted, slots - now_filled), *taken = wanted + budget + 1;
        for (u32 i = threadIdx.x; i < inserted; i += THREADS) {
            u32 slot = i < free_used ? now_filled + i : victim(need + i - free_used);
            bool is_growth = i == prefetched;
            u32 block = is_growth ? newly : near[wanted[i]];
            fill_slot(b, misses + i, block, slot, i >= free_used, is_growth ? 2 : b.source(block));
            held[slot] = 1;
            taken[i] = slot;
            if (BY_USE) uses[slot] = 1;
        }
        now_filled += free_used;
        if (threadIdx.x == 0) counts[1] = prefetched, counts[2] = grows, counts[3] = found - prefetched;
        __syncthreads();
        for (u32 i = threadIdx.x; i < inserted; i += THREADS) order[slots - inserted + i] = taken[i];
    } else if (threadIdx.x < 3) {
        counts[1 + threadIdx.x] = 0;
    }
    // What this step did not touch closes up; the selection follows, best rank last.
    u32 rest = 0, all_rest;
    for (u32 i = start + lane; i < start + run; i += 32) rest += __popc(__ballot_sync(FULL, i < slots && !held[before[i]]));
    if (lane == 0) warp_misses[warp] = rest;
    __syncthreads();
    rest = warp_prefix(warp_misses, all_rest);
    for (u32 i = start + lane; i < start + run; i += 32) {
        bool stays = i < slots && !held[before[i]];
        u32 mask = __ballot_sync(FULL, stays);
        if (stays) order[rest + lanes_below(mask)] = before[i];
        rest += __popc(mask);
    }
    for (u32 rank = threadIdx.x; rank < n; rank += THREADS) order[slots - inserted - 1 - rank] = slots_out[rank];
    if (threadIdx.x == 0) counts[0] = misses, filled[id] = now_filled;
}

#define LOOK_UP_RANKED(NAME, BY_USE)                                                                                   \
    extern "C" __global__ void __launch_bounds__(1024) NAME(                                                        \
        const u32 *ids, const u32 *selected, const u32 *selected_count, u32 k, const u32 *near, const u32 *near_count, \
        u32 near_stride, u32 budget, const u32 *grown, u32 *slot_of, u32 blocks, u32 *block_of, u32 *order,            \
        u32 *filled, u32 slots, u32 *slots_out, uint4 *fills, u32 *fill_counts, u32 *uses, const u32 *warm,            \
        u32 warm_words) {                                                                                              \
        look_up_ranked<BY_USE>(ids, selected, selected_count, k, near, near_count, near_stride, budget, grown,         \
                               slot_of, blocks, block_of, order, filled, slots, slots_out, fills, fill_counts, uses,   \
                               warm, warm_words);                                                                      \
    }

LOOK_UP_RANKED(lookup_lru, false)
LOOK_UP_RANKED(lookup_lfu, true)

// Empties the buffers of `ids`, then puts blocks `first .. first + count` into slots 0, 1, .. as at a request's start.
extern "C" __global__ void __launch_bounds__(1024)
open_streams(const u32 *ids, const u32 *first, const u32 *count, u32 *slot_of, u32 blocks, u32 *block_of, u32 *order,
             u32 *filled, u32 slots, u32 *uses) {
    u32 id = ids[blockIdx.x], from = first[blockIdx.x], n = count[blockIdx.x];
    slot_of += (u64)id * blocks;
    block_of += (u64)id * slots;
    order += (u64)id * slots;
    for (u32 i = threadIdx.x; i < blocks; i += THREADS) slot_of[i] = i >= from && i < from + n ? i - from : NONE;
    for (u32 i = threadIdx.x; i < slots; i += THREADS) {
        block_of[i] = i < n ? from + i : NONE;
        order[i] = n + i < slots ? n + i : n + i - slots;
        uses[(u64)id * ((slots + 3) / 4 * 4) + i] = 1;
    }
    if (threadIdx.x == 0) filled[id] = n;
}
