//! One stream's pass: the parts that together cover every buffer size, fed step by step.

use super::curve::{Curve, CurvePolicy};
use super::depth::Depths;
use super::direct::Direct;
use super::order::{ByNextUse, ByStep};
use super::stack::Stack;
use kvtier_units::BlockId;

/// What one stream reads in one step.
#[derive(Clone, Copy)]
pub(crate) struct StepInput<'a> {
    /// Selected blocks, best first, without a reserved newest block.
    pub(crate) blocks: &'a [BlockId],
    /// Their next uses; empty for policies that do not need them.
    pub(crate) next_use: &'a [u32],
    /// Whether the reserved newest block was selected.
    pub(crate) newest: bool,
    /// The block that the step fills, and its next use.
    pub(crate) grown: Option<(BlockId, u32)>,
    /// Whether the step counts.
    pub(crate) measured: bool,
}

/// What is known of a stream before its first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Blocks per selection, at most.
    pub(crate) k: u32,
    /// Largest size of interest, at least `blocks`.
    pub(crate) most: u32,
    /// Complete blocks at the start.
    pub(crate) full: u32,
    /// Blocks that the context can ever hold.
    pub(crate) blocks: u32,
    /// Steps.
    pub(crate) steps: u32,
    /// Whether buffers start with the last blocks of the prompt, whatever their size.
    pub(crate) recent: bool,
    /// The smallest size from which inclusion holds.
    pub(crate) base: u32,
}

impl Shape {
    /// Sizes whose buffers start empty, both ends included.
    pub(crate) fn sizes_without_start(&self) -> Option<(u32, u32)> {
        let sizes = (self.base, self.full.checked_sub(1)?.min(self.most));
        (!self.recent && sizes.0 <= sizes.1).then_some(sizes)
    }

    /// Sizes whose buffers start with blocks of the prompt, both ends included.
    pub(crate) fn sizes_with_start(&self) -> Option<(u32, u32)> {
        let least = if self.recent { self.base } else { self.full.max(self.base) };
        (least <= self.most).then_some((least, self.most))
    }
}

/// Counts for some of the sizes.
pub(crate) trait Part: Send {
    /// Takes one step into account.
    fn step(&mut self, input: &StepInput<'_>);

    /// Adds what was counted to the curve.
    fn finish(&self, curve: &mut Curve);
}

/// All sizes of one stream.
pub(crate) struct Pass {
    shape: Shape,
    parts: Vec<Box<dyn Part>>,
    accesses: u64,
}

impl Pass {
    /// A pass at its start; `first_uses` holds the first use of each block for policies that need the future.
    pub(crate) fn new(policy: CurvePolicy, shape: Shape, first_uses: &[u32]) -> Pass {
        let mut parts: Vec<Box<dyn Part>> = Vec::new();
        if shape.base > shape.k {
            parts.push(Box::new(Direct::new(&shape)));
        }
        if policy == CurvePolicy::Lru {
            parts.push(Box::new(Depths::new(shape)));
        } else {
            let ranges = [(shape.sizes_without_start(), 0), (shape.sizes_with_start(), shape.full)];
            for (sizes, start) in ranges {
                let Some(sizes) = sizes else { continue };
                parts.push(match policy {
                    CurvePolicy::Belady => {
                        let order = ByNextUse::new(shape.blocks, first_uses, start);
                        Box::new(Stack::new(order, &shape, sizes, start))
                    }
                    _ => Box::new(Stack::new(ByStep::new(shape.blocks, start), &shape, sizes, start)),
                });
            }
        }
        Pass { shape, parts, accesses: 0 }
    }

    /// Takes one step into account.
    #[inline]
    pub(crate) fn step(&mut self, input: &StepInput<'_>) {
        if input.measured {
            self.accesses += input.blocks.len() as u64 + u64::from(input.newest);
        }
        self.parts.iter_mut().for_each(|part| part.step(input));
    }

    /// The stream's curve.
    pub(crate) fn finish(self) -> Curve {
        let mut curve = Curve::empty(self.shape.k, self.shape.most);
        self.parts.iter().for_each(|part| part.finish(&mut curve));
        curve.accesses = self.accesses;
        curve
    }
}
