//! A chunk of decoded rows, bounded in size, and the borrowed form of one row.

use crate::error::Place;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, UInt16Type, UInt32Type};
use arrow_array::{ArrowPrimitiveType, RecordBatch};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use half::f16;

/// One row: what one stream reads in one step, seen by one query row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    /// The row's keys.
    pub place: Place,
    /// Selected blocks, best first.
    pub blocks: &'a [u32],
    /// A score for each block; none if the trace has no scores, or if they were not asked for.
    pub scores: Option<&'a [f16]>,
    /// The blocks that rank just below, best first; empty if not recorded or not asked for.
    pub extra: &'a [u32],
}

/// A list column without nulls.
#[derive(Clone)]
struct Lists<T: ArrowPrimitiveType> {
    offsets: OffsetBuffer<i32>,
    values: ScalarBuffer<T::Native>,
}

impl<T: ArrowPrimitiveType> Lists<T> {
    fn take(batch: &RecordBatch, column: &str) -> Option<Lists<T>> {
        let lists = batch.column_by_name(column)?.as_list::<i32>();
        let values = lists.values().as_primitive::<T>().values().clone();
        Some(Lists { offsets: lists.offsets().clone(), values })
    }

    #[inline]
    #[allow(clippy::cast_sign_loss)] // arrow's offsets are never negative
    fn row(&self, row: usize) -> &[T::Native] {
        &self.values[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

/// Consecutive rows of a trace, in file order.
#[derive(Default)]
pub struct Chunk {
    pub(crate) first_row: u64,
    columns: Option<Columns>,
}

struct Columns {
    request: ScalarBuffer<u32>,
    step: ScalarBuffer<u32>,
    layer: ScalarBuffer<u16>,
    head_group: ScalarBuffer<u16>,
    query: ScalarBuffer<u16>,
    blocks: Lists<UInt32Type>,
    scores: Option<Lists<Float16Type>>,
    extra: Option<Lists<UInt32Type>>,
}

impl Chunk {
    /// Takes over a batch whose schema the reader has checked and whose columns hold no nulls.
    pub(crate) fn fill(&mut self, first_row: u64, batch: &RecordBatch) {
        let key32 = |name: &str| batch[name].as_primitive::<UInt32Type>().values().clone();
        let key16 = |name: &str| batch[name].as_primitive::<UInt16Type>().values().clone();
        self.first_row = first_row;
        self.columns = Some(Columns {
            request: key32("request"),
            step: key32("step"),
            layer: key16("layer"),
            head_group: key16("head_group"),
            query: key16("query"),
            blocks: Lists::take(batch, "blocks").expect("the reader always projects blocks"),
            scores: Lists::take(batch, "scores"),
            extra: Lists::take(batch, "extra"),
        });
    }

    /// Rows in the chunk.
    pub fn len(&self) -> usize {
        self.columns.as_ref().map_or(0, |columns| columns.request.len())
    }

    /// Whether the chunk has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row of the file at which the chunk starts.
    pub fn first_row(&self) -> u64 {
        self.first_row
    }

    /// The rows, in file order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        (0..self.len()).map(|row| self.row(row))
    }

    /// The request column.
    pub(crate) fn requests(&self) -> &[u32] {
        self.columns.as_ref().map_or(&[], |columns| &columns.request)
    }

    /// The row at an index of the chunk.
    ///
    /// # Panics
    /// If the index is not below [`Chunk::len`].
    #[inline]
    pub fn row(&self, row: usize) -> Row<'_> {
        let columns = self.columns.as_ref().expect("an empty chunk has no rows");
        Row {
            place: Place {
                request: columns.request[row],
                step: columns.step[row],
                layer: columns.layer[row],
                head_group: columns.head_group[row],
                query: columns.query[row],
            },
            blocks: columns.blocks.row(row),
            scores: columns.scores.as_ref().map(|scores| scores.row(row)),
            extra: columns.extra.as_ref().map_or(&[], |extra| extra.row(row)),
        }
    }
}
