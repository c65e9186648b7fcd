//! The rules that rows obey, checked one row at a time as they are read.
//! Apart from the reader so that every path (replay, validate, convert) is held to the same rules.

use crate::chunk::Row;
use crate::error::{Place, RowFault};
use crate::header::{Header, Request};
use std::ops::Range;
use std::sync::Arc;

/// Checks rows in file order; memory is one word per block of the longest context.
pub(crate) struct RowChecker {
    header: Arc<Header>,
    requests: Arc<[Request]>,
    /// The first row of the next stream.
    next: Place,
    /// The row before; none before the first.
    previous: Option<Place>,
    /// One past the last request that is read.
    end_request: u32,
    context_blocks: u32,
    /// Per block, the number of the row that named it last.
    seen: Vec<u32>,
    row: u32,
}

impl RowChecker {
    /// Expects the rows of `range` of the requests table and no others.
    pub(crate) fn new(header: Arc<Header>, requests: Arc<[Request]>, range: Range<u32>) -> RowChecker {
        let mut checker = RowChecker {
            header,
            requests,
            next: Place { request: range.start, ..Place::default() },
            previous: None,
            end_request: range.end,
            context_blocks: 0,
            seen: Vec::new(),
            row: 0,
        };
        checker.enter_step();
        checker
    }

    /// The first row that is still missing, if the rows ended here.
    pub(crate) fn missing(&self) -> Option<Place> {
        (self.next.request < self.end_request).then_some(self.next)
    }

    /// Checks the next row.
    #[inline]
    pub(crate) fn check(&mut self, row: &Row<'_>) -> Result<(), RowFault> {
        if row.place == self.next && self.next.request < self.end_request {
            self.enter_step();
            self.advance();
        } else {
            self.check_query(row.place)?;
        }
        self.previous = Some(row.place);
        self.check_lengths(row)?;
        self.check_blocks(row)
    }

    /// Sizes the per-block table for the step of `next`.
    fn enter_step(&mut self) {
        if self.next.layer != 0 || self.next.head_group != 0 {
            return;
        }
        if let Some(request) = self.requests.get(self.next.request as usize) {
            self.context_blocks = request.blocks_at(self.next.step, self.header.entries_per_block);
            if self.seen.len() < self.context_blocks as usize {
                self.seen.resize(self.context_blocks as usize, 0);
            }
        }
    }

    /// Moves `next` to the first row of the following stream.
    fn advance(&mut self) {
        let next = &mut self.next;
        next.head_group += 1;
        if next.head_group < self.header.head_groups {
            return;
        }
        next.head_group = 0;
        next.layer += 1;
        if usize::from(next.layer) < self.header.layers.len() {
            return;
        }
        next.layer = 0;
        next.step += 1;
        if next.step == self.requests[next.request as usize].output_steps {
            next.step = 0;
            next.request += 1;
        }
    }

    /// A row that does not open the next stream must be the next query row of the current one.
    fn check_query(&self, place: Place) -> Result<(), RowFault> {
        if let Some(previous) = self.previous
            && place == (Place { query: previous.query + 1, ..previous })
        {
            let queries = self.header.queries;
            return if place.query < queries {
                Ok(())
            } else {
                Err(RowFault::TooManyQueries { query: place.query, queries })
            };
        }
        Err(self.misplaced(place))
    }

    /// Why `place` cannot come here.
    #[cold]
    fn misplaced(&self, place: Place) -> RowFault {
        let layers = u32::try_from(self.header.layers.len()).expect("the header check bounds the layers");
        let Some(request) = self.requests.get(place.request as usize) else {
            return RowFault::UnknownRequest { requests: self.requests.len() };
        };
        if u32::from(place.layer) >= layers {
            return RowFault::OutOfShape { column: "layer", value: place.layer.into(), limit: layers };
        }
        if place.head_group >= self.header.head_groups {
            let (value, limit) = (place.head_group.into(), self.header.head_groups.into());
            return RowFault::OutOfShape { column: "head_group", value, limit };
        }
        if place.query >= self.header.queries {
            return RowFault::TooManyQueries { query: place.query, queries: self.header.queries };
        }
        if place.step >= request.output_steps {
            return RowFault::StepBeyondEnd { output_steps: request.output_steps };
        }
        match self.previous {
            Some(previous) if place <= previous => RowFault::OutOfOrder { previous },
            Some(previous) if place < self.next => {
                RowFault::Missing { expected: Place { query: previous.query + 1, ..previous } }
            }
            _ => RowFault::Missing { expected: self.next },
        }
    }

    fn check_lengths(&self, row: &Row<'_>) -> Result<(), RowFault> {
        if row.blocks.len() > self.header.k as usize {
            return Err(RowFault::TooManyBlocks { found: row.blocks.len(), k: self.header.k });
        }
        if row.extra.len() > self.header.extra as usize {
            return Err(RowFault::TooManyExtra { found: row.extra.len(), extra: self.header.extra });
        }
        match row.scores {
            Some(scores) if scores.len() != row.blocks.len() => {
                Err(RowFault::ScoreLength { scores: scores.len(), blocks: row.blocks.len() })
            }
            _ => Ok(()),
        }
    }

    /// Every block exists at this step and is named once.
    fn check_blocks(&mut self, row: &Row<'_>) -> Result<(), RowFault> {
        self.row = self.row.checked_add(1).unwrap_or_else(|| {
            self.seen.fill(0);
            1
        });
        let seen = &mut self.seen[..self.context_blocks as usize];
        for &block in row.blocks.iter().chain(row.extra) {
            match seen.get_mut(block as usize) {
                Some(last) if *last == self.row => return Err(RowFault::Duplicate { block }),
                Some(last) => *last = self.row,
                None => return Err(RowFault::BeyondContext { block, blocks: self.context_blocks }),
            }
        }
        Ok(())
    }
}
