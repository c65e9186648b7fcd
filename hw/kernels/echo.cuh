// Echo's own: what ranks earn, how fast worth fades, and the ghost. The ghost is sets of four entries, tag << 16 | worth,
// then a word per set of its entries' counts, a byte each, and a word that counts steps. An entry whose count is zero is
// free. The order of a selection matters only within a set, so the selection is dealt to the sets in rank order; and of
// that order only the places at which blocks stand that the set remembers, since no block comes twice in a selection.

const u32 ECHO_RANKS = 32;
const u32 ECHO_ONE = 512, ECHO_GROWN = 1408, ECHO_RECENT = 16, ECHO_RECENCY = 20, ECHO_MOST = 65535;

const u32 GHOST_SETS = 48, GHOST_WAYS = 4, GHOST_STEP = 3, GHOST_FADE_EVERY = 16, GHOST_WEIGHT = 5;
const u32 GHOST_ENTRIES = GHOST_SETS * GHOST_WAYS, GHOST_STEPS = GHOST_ENTRIES + GHOST_SETS, GHOST_WORDS = GHOST_STEPS + 1;
// Words between the marks of 32 ranks and of the next: odd, so that neither those of a rank nor those of a set share a
// bank.
const u32 GHOST_ROW = GHOST_SETS + 1;
// Teams of threads that deal, one to a set: a power of two. The least block has 128 threads, which fetch this many words each.
const u32 GHOST_TEAMS = 64, GHOST_SHARE = (GHOST_WORDS + 127) / 128;

__device__ __forceinline__ u32 echo_credit(u32 worst, u32 gain, u32 rank, u32 k) {
    return worst + gain * (ECHO_RANKS - 1 - rank * ECHO_RANKS / k) / ECHO_RANKS;
}

__device__ __forceinline__ u32 selected_credit(u32 rank, u32 k) { return echo_credit(496, 576, rank, k); }
__device__ __forceinline__ u32 near_credit(u32 rank, u32 k) { return rank < k ? echo_credit(168, 384, rank, k) : 0; }

// What every 32nd of a selection that repeats takes from a worth, of 2^13.
__device__ __forceinline__ u32 echo_decay(u32 slots, u32 k) { return 5120 * k / (36 * k + 36 * (slots - min(slots, k))); }

// What of 2^13 echo keeps of every worth, by how much of the last selection this one repeats.
__device__ __forceinline__ u32 echo_keep(u32 decay, u32 k, u32 repeated) { return 8192 - decay * max(ECHO_RANKS * repeated / k, 3u); }

__device__ __forceinline__ u32 echo_aged(u32 worth, u32 keep) { return worth * keep >> 13; }

// What a step means to the sets and to their entries.
struct GhostLists {
    u32 *marks;    // a bit per rank and set, GHOST_ROW words for 32 ranks
    u16 *ranks;    // of the whole selection, set by set
    u32 *first;    // per set, where its ranks begin
    u32 *count;    // and how many there are
    u32 *listed;   // ranks so far
    u16 *selected; // per entry, the rank of its block in the selection, or UNRANKED,
    u16 *place;    // where among its set's ranks that is, or UNRANKED,
    u16 *near;     // and what its block earns as a near miss, or UNRANKED
};

// The entry that remembers the block, or NONE.
__device__ __forceinline__ u32 ghost_entry(const u32 *ghost, u32 block) {
    u32 set = block % GHOST_SETS, tag = block / GHOST_SETS & 0xffff, counts = ghost[GHOST_ENTRIES + set], entry = NONE;
    uint4 v = ((const uint4 *)ghost)[set];
    if (v.x >> 16 == tag && counts & 0xff) entry = 0;
    if (v.y >> 16 == tag && counts & 0xff00) entry = 1;
    if (v.z >> 16 == tag && counts & 0xff0000) entry = 2;
    if (v.w >> 16 == tag && counts & 0xff000000) entry = 3;
    return entry == NONE ? NONE : set * GHOST_WAYS + entry;
}

__device__ __forceinline__ u32 ghost_count(const u32 *ghost, u32 block) {
    u32 entry = ghost_entry(ghost, block);
    return entry == NONE ? 0 : ghost[GHOST_ENTRIES + entry / GHOST_WAYS] >> 8 * (entry % GHOST_WAYS) & 0xff;
}

__device__ __forceinline__ u32 ghost_worth(const u32 *ghost, u32 block) {
    u32 entry = ghost_entry(ghost, block);
    return entry == NONE ? 0 : ghost[entry] & 0xffff;
}

// Marks the ranks of every set in zeroed memory, and notes those of blocks that are remembered.
__device__ __forceinline__ void ghost_mark(const u32 *ghost, const GhostLists &lists, const u32 *selected, u32 n) {
    for (u32 rank = threadIdx.x; rank < n; rank += THREADS) {
        u32 block = selected[rank], entry = ghost_entry(ghost, block);
        atomicOr(lists.marks + rank / 32 * GHOST_ROW + block % GHOST_SETS, 1u << rank % 32);
        if (entry != NONE) lists.selected[entry] = rank;
    }
}

// Lists the ranks of every set in order, by a team of neighbouring threads for each, who take the marks of some of the
// ranks each. Lists stand in whatever order they are made.
__device__ __forceinline__ void ghost_list(const GhostLists &lists, u32 n) {
    u32 team = THREADS / GHOST_TEAMS, set = threadIdx.x / team, part = threadIdx.x % team;
    u32 rows = set < GHOST_SETS ? (n + 31) / 32 : 0, each = (rows + team - 1) / team, row = part * each, end = min(row + each, rows);
    u32 mine = 0;
    for (u32 at = row; at < end; at++) mine += __popc(lists.marks[at * GHOST_ROW + set]);
    u32 through = mine;
    for (u32 step = 1; step < team; step *= 2) {
        u32 other = __shfl_up_sync(FULL, through, step);
        if (part >= step) through += other;
    }
    u32 all = __shfl_sync(FULL, through, threadIdx.x | (team - 1)), first = 0;
    if (part == 0 && set < GHOST_SETS) {
        first = atomicAdd(lists.listed, all);
        lists.first[set] = first, lists.count[set] = all;
    }
    first = __shfl_sync(FULL, first, threadIdx.x & ~(team - 1));
    u64 known = row < end ? ((const u64 *)lists.selected)[set] : 0;
    u32 place = through - mine;
    for (; row < end; row++)
        for (u32 mask = lists.marks[row * GHOST_ROW + set]; mask; mask &= mask - 1, place++) {
            u32 rank = row * 32 + __ffs(mask) - 1;
            lists.ranks[first + place] = rank;
#pragma unroll
            for (u32 way = 0; way < GHOST_WAYS; way++)
                if ((u32)(known >> 16 * way & 0xffff) == rank) lists.place[set * GHOST_WAYS + way] = place;
        }
}

// Counts a set's `n` blocks. `counts` and `places` carry their way in the two low bits, so that the smallest of them says
// the first of equals. Blocks that are remembered stand at `places`; the others wear down or take the smallest entry, as
// many at once as meet the same fate. Returns the place of the last that took `way`, or NONE. Without branches but the
// loop's, since neighbouring sets differ.
__device__ __forceinline__ u32 ghost_walk(u32 (&counts)[GHOST_WAYS], u32 (&places)[GHOST_WAYS], u32 n, u32 way) {
    u32 last = NONE;
    for (u32 at = 0; at < n;) {
        u32 first = min(min(places[0], places[1]), min(places[2], places[3])), next = min(first >> 2, n);
        u32 smallest = min(min(counts[0], counts[1]), min(counts[2], counts[3])), least = smallest >> 2;
        bool known = next == at, takes = !known && least <= GHOST_STEP;
        u32 many = least > GHOST_STEP ? min(next - at, least - GHOST_STEP) : least == GHOST_STEP ? next - at : 1;
        u32 which = (known ? first : smallest) & 3, left = takes ? GHOST_STEP << 2 | which : smallest - (many << 2);
        many = known ? 1 : many;
#pragma unroll
        for (u32 w = 0; w < GHOST_WAYS; w++) {
            u32 fate = known ? min(counts[w] + (GHOST_STEP << 2), 255u << 2 | w) : left;
            counts[w] = w == which ? fate : counts[w];
            places[w] = w == which && (known || takes) ? NONE : places[w];
        }
        at += many;
        last = takes && which == way ? at - 1 : last;
    }
    return last;
}

// Ages the ghost's worths, gives near misses and the selection their credit and counts the selection, in `ghost` and in
// `kept`, where it is kept from step to step. One thread per entry; the four of a set count all of it alike.
__device__ __forceinline__ void ghost_select(u32 *ghost, u32 *kept, const GhostLists &lists, const u32 *selected, u32 k, u32 keep) {
    u32 steps = ghost[GHOST_STEPS] + 1;
    bool fades = steps == GHOST_FADE_EVERY;
    for (u32 entry = threadIdx.x; entry < GHOST_ENTRIES; entry += THREADS) {
        u32 set = entry / GHOST_WAYS, way = entry % GHOST_WAYS, word = ghost[GHOST_ENTRIES + set], n = lists.count[set];
        u64 stand = ((const u64 *)lists.place)[set];
        u32 counts[GHOST_WAYS], places[GHOST_WAYS];
#pragma unroll
        for (u32 w = 0; w < GHOST_WAYS; w++) {
            counts[w] = (word >> 8 * w & 0xff) << 2 | w;
            u32 place = (u32)(stand >> 16 * w) & 0xffff;
            places[w] = place == UNRANKED ? NONE : place << 2 | w;
        }
        u32 last = ghost_walk(counts, places, n, way), tag = ghost[entry] >> 16, worth = 0, rank, near = lists.near[entry];
        if (last == NONE) {
            rank = lists.selected[entry];
            worth = echo_aged(ghost[entry] & 0xffff, keep);
            if (near != UNRANKED) worth = min(worth + near, ECHO_MOST);
        } else {
            rank = lists.ranks[lists.first[set] + last];
            tag = selected[rank] / GHOST_SETS & 0xffff;
        }
        if (rank != UNRANKED) worth = min(worth + selected_credit(rank, k), ECHO_MOST);
        word = 0;
#pragma unroll
        for (u32 w = 0; w < GHOST_WAYS; w++) {
            u32 count = counts[w] >> 2;
            word |= (fades ? count - (count + 3) / 4 : count) << 8 * w;
        }
        __syncwarp(); // the four have read the counts
        ghost[entry] = kept[entry] = tag << 16 | worth;
        if (way == 0) ghost[GHOST_ENTRIES + set] = kept[GHOST_ENTRIES + set] = word;
    }
    if (threadIdx.x == 0) kept[GHOST_STEPS] = fades ? 0 : steps;
}
