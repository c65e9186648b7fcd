//! Miss-ratio curves: the misses of lru, lru-step and belady at *every* buffer size from one pass over a recording,
//! equal to the last miss to replaying each size. Start at [`Survey::exact`].
//!
//! # Why one pass is enough
//! Fix a stream. R(C) is what a buffer of C slots holds between two steps, S a selection, k the largest of the run.
//! A step keeps S and the best C - |S| blocks of R(C) \ S, where *best* is the policy's order; S is pinned, so it never
//! competes. *Inclusion*, R(C) within R(C + 1), gives every block one threshold, the smallest size that holds it, and an
//! access is a miss at exactly the sizes below its threshold.
//!
//! **lru.** The order is the time of the last touch, the same at every size: R(C) is the top C of one stack. S goes on top
//! (rank 0 first); the C - |S| others that stay are the most recent ones, and the old top C holds as many, since at most
//! |S| of it are in S. All look-ups of a step see the stack as it stood before. The threshold is the depth (`depth.rs`).
//!
//! **belady.** The order is the next use, the same at every size. The best m of A lie within the best m + 1 of A plus one
//! block, so inclusion carries over a step, for any way to break ties. Ties do not change counts: two blocks
//! with the same next use are interchangeable until the step that selects both, which misses as many either way. So
//! the slot number that ends the replay's order, and that differs with C, plays no part (`stack.rs`, `order.rs`).
//!
//! **lru-step.** The order (stale, loaded, hits) depends on C, because what was loaded does. Let T(C, j) be the j most recent
//! of R(C). Claim: T(C, j) lies within T(C + 1, j + 1) for all j. At the start both orders are the same or one block
//! longer at the old end. Let the claim hold before S. *Hits:* the first j blocks of S in C's order lie in some T(C, q), which
//! holds j of S; T(C + 1, q + 1) holds them and at most one more of S, so they are among the first j + 1 hits at C + 1.
//! *Loaded:* at most one block x of S is a hit at C + 1 and not at C; the loaded of C + 1 are those of C without x, in the
//! same order, so hits plus the first i loaded of C lie within hits (x among them) plus the first i loaded of C + 1.
//! *Stale:* as for hits, with the blocks outside S. Cutting at C and at C + 1 keeps the claim, and j = C is inclusion. So
//! thresholds exist, but the order within a step has to be asked of each size (`order.rs`).
//!
//! **Growth** enters as most recent, with S pinned: at C > |S| this is a step whose selection is S and the new block, for
//! all three. At C = |S|, which is k, no slot is unpinned and the block stays at home. Where the order is the same at every
//! size the argument holds all the same, with the new block as the one that C = k + 1 adds: belady puts it behind the first
//! k, lru leaves it out of the depths of that one size. For lru-step it breaks the claim between k and k + 1, so there the
//! stack begins at k + 1 and size k is replayed (`direct.rs`).
//!
//! **Start.** `recent` holds the last C blocks, least recent first: top C of one order. `cold` holds nothing below F, the
//! blocks of the prompt, and all of them from F on: inclusion holds on either side of F, each with a start of its own;
//! lru needs one stack for both, since blocks never touched lie below all others.
//!
//! Warm pages couple streams and prefetches enter out of turn: neither has such curves, and both are refused.

mod curve;
mod depth;
mod direct;
mod export;
mod order;
mod pass;
mod sample;
mod split;
mod stack;
mod survey;

pub use curve::{Curve, CurvePolicy, Curves};
pub use export::write_csv;
pub use sample::{Estimate, SampledCurves};
pub use split::{split_by_layer, split_by_stream};
pub use survey::{Survey, check};
