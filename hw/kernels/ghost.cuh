// Echo's ghost: sets of four entries, tag << 8 | count, and a word after them that counts steps. The order of a
// selection matters only within a set, so the selection is dealt to the sets, in rank order, and one thread per set
// takes what is its own.

const u32 GHOST_SETS = 64, GHOST_WAYS = 4, GHOST_STEP = 3, GHOST_FADE_EVERY = 16;
const u32 GHOST_ENTRIES = GHOST_SETS * GHOST_WAYS;
// Words between the marks of 32 ranks and of the next: one more than there are sets, so that neither those of a rank
// nor those of a set share a bank.
const u32 GHOST_ROW = GHOST_SETS + 1;

// What a selection means to each set.
struct GhostLists {
    u32 *marks;  // a bit per rank and set, GHOST_ROW words for 32 ranks
    u16 *tags;   // of the whole selection, set by set
    u32 *first;  // per set, where its tags begin
    u32 *count;  // and how many there are
    u32 *listed; // tags so far
};

__device__ __forceinline__ u32 ghost_count(const u32 *ghost, u32 block) {
    u32 set = block % GHOST_SETS * GHOST_WAYS, tag = block / GHOST_SETS & 0xffff;
#pragma unroll
    for (u32 way = 0; way < GHOST_WAYS; way++)
        if (ghost[set + way] >> 8 == tag) return ghost[set + way] & 0xff;
    return 0;
}

// Marks the ranks of every set in zeroed memory.
__device__ __forceinline__ void ghost_mark(const GhostLists &lists, const u32 *selected, u32 n) {
    for (u32 rank = threadIdx.x; rank < n; rank += THREADS)
        atomicOr(lists.marks + rank / 32 * GHOST_ROW + selected[rank] % GHOST_SETS, 1u << rank % 32);
}

// Lists the tags of every set in rank order, by as many neighbouring threads for each as there are: each takes the marks
// of some of the ranks. Lists stand in whatever order they are made.
__device__ __forceinline__ void ghost_list(const GhostLists &lists, const u32 *selected, u32 n) {
    u32 parts = THREADS / GHOST_SETS, set = threadIdx.x / parts, part = threadIdx.x % parts;
    u32 rows = (n + 31) / 32, each = (rows + parts - 1) / parts, row = part * each, end = min(row + each, rows);
    u32 mine = 0;
    for (u32 at = row; at < end; at++) mine += __popc(lists.marks[at * GHOST_ROW + set]);
    u32 through = mine;
    for (u32 step = 1; step < parts; step *= 2) {
        u32 other = __shfl_up_sync(FULL, through, step);
        if (part >= step) through += other;
    }
    u32 all = __shfl_sync(FULL, through, threadIdx.x | (parts - 1)), first = 0;
    if (part == 0) {
        first = atomicAdd(lists.listed, all);
        lists.first[set] = first, lists.count[set] = all;
    }
    u32 to = __shfl_sync(FULL, first, threadIdx.x & ~(parts - 1)) + through - mine;
    for (; row < end; row++)
        for (u32 mask = lists.marks[row * GHOST_ROW + set]; mask; mask &= mask - 1)
            lists.tags[to++] = selected[row * 32 + __ffs(mask) - 1] / GHOST_SETS;
}

// Counts the selection, in `ghost` and in `kept`, where it is kept from step to step. One thread per set; the others
// return at once. Counts carry their way in the two low bits, so that the smallest of them says the first of equals.
__device__ __forceinline__ void ghost_select(u32 *ghost, u32 *kept, const GhostLists &lists) {
    u32 set = threadIdx.x;
    if (set >= GHOST_SETS) return;
    bool fades = ghost[GHOST_ENTRIES] + 1 == GHOST_FADE_EVERY;
    u32 tags[GHOST_WAYS], counts[GHOST_WAYS];
#pragma unroll
    for (u32 way = 0; way < GHOST_WAYS; way++) {
        u32 entry = ghost[set * GHOST_WAYS + way];
        tags[way] = entry >> 8, counts[way] = (entry & 0xff) << 2 | way;
    }
    const u16 *list = lists.tags + lists.first[set];
    u32 n = lists.count[set], next = n > 0 ? list[0] : 0;
    for (u32 i = 0; i < n; i++) {
        u32 tag = next;
        if (i + 1 < n) next = list[i + 1];
        bool known[GHOST_WAYS], any = false;
#pragma unroll
        for (u32 way = 0; way < GHOST_WAYS; way++) known[way] = !any && tags[way] == tag, any |= known[way];
        u32 smallest = min(min(counts[0], counts[1]), min(counts[2], counts[3]));
        bool worn = smallest < (GHOST_STEP + 1) << 2;
#pragma unroll
        for (u32 way = 0; way < GHOST_WAYS; way++) {
            bool gives = !any && counts[way] == smallest;
            if (known[way]) counts[way] = min(counts[way] + (GHOST_STEP << 2), 255u << 2 | way);
            if (gives && worn) tags[way] = tag;
            if (gives) counts[way] = worn ? GHOST_STEP << 2 | way : counts[way] - 4;
        }
    }
#pragma unroll
    for (u32 way = 0; way < GHOST_WAYS; way++) {
        u32 count = counts[way] >> 2;
        if (fades) count -= (count + 3) / 4;
        ghost[set * GHOST_WAYS + way] = kept[set * GHOST_WAYS + way] = tags[way] << 8 | count;
    }
    if (set == 0) kept[GHOST_ENTRIES] = fades ? 0 : ghost[GHOST_ENTRIES] + 1;
}
