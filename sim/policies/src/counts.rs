//! What the decision plane counts online. Offline classes (capacity, policy) are computed elsewhere and never here.

use std::ops::{AddAssign, Sub};

macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident),+ $(,)?) => {
        /// Counts of blocks, unless the field says bytes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $field: u64,)+
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Counts) {
                $(self.$field += other.$field;)+
            }
        }

        impl Sub for Counts {
            type Output = Counts;
            fn sub(self, earlier: Counts) -> Counts {
                Counts { $($field: self.$field - earlier.$field,)+ }
            }
        }
    };
}

counts! {
    /// Blocks selected, the newest included.
    accesses,
    /// Selections of the newest block, in its reserved slot (hits).
    newest,
    /// Selected blocks found in the hot buffer, prefetched ones included.
    hits,
    /// Of the hits, first demands of prefetched blocks.
    prefetched,
    /// Selected blocks found among the warm pages: no transfer, no miss.
    warm_hits,
    /// Demand misses.
    misses,
    /// Of the misses, blocks never yet in HBM.
    cold,
    /// Of the misses, blocks that a prefetch had evicted.
    pollution,
    /// Of the misses, blocks whose home was in CXL memory.
    misses_cxl,
    /// Of the misses, blocks whose home was on NVMe storage.
    misses_nvme,
    /// Blocks prefetched from their home tier.
    prefetches,
    /// Of those, blocks whose home was in CXL memory.
    prefetches_cxl,
    /// Of those, blocks whose home was on NVMe storage.
    prefetches_nvme,
    /// Blocks prefetched from the warm pages: no transfer.
    warm_prefetches,
    /// Prefetched blocks that left, or stood at the end, without a demand.
    wasted,
    /// Prefetches dropped because every slot was pinned.
    dropped,
    /// Newly filled blocks written to their home.
    written_back,
    /// Newly filled blocks that found no unpinned slot and stayed only at home.
    homebound,
    /// Blocks loaded at admission because the context fits the buffer.
    admitted,
    /// Blocks that left a hot buffer.
    evictions,
    /// Pages taken by a second stream of a prefix group in the layer in which the first took them: copies within HBM.
    warm_copies,
    /// Blocks that left a hot buffer and entered the warm pages, or became newest there again.
    warm_insertions,
    /// Blocks that left a hot buffer and were turned away from the warm pages.
    warm_rejected,
    /// Blocks that moved down to CXL memory.
    demoted_cxl,
    /// Blocks that moved down to NVMe storage.
    demoted_nvme,
    /// Blocks that moved up to host when they were brought from below.
    promoted,
    /// New blocks that found no room in host and went straight below.
    spilled,
    /// Bytes written to page tables, slot tags and policy state.
    metadata_bytes,
}
