//! Times noted between the operations of a step: which operation lies between which two of them.

use super::graph::Recorder;
use crate::{HwError, Stream};
use kvtier_sim::attribution::{OpKind, Queue};

/// An operation of the step and the times that bound it, as places in the step's row of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) kind: OpKind,
    pub(super) queue: Queue,
    /// Layer of the model.
    pub(super) layer: Option<u32>,
    /// Its number among those that select.
    pub(super) sparse: Option<u32>,
    pub(super) begin: u32,
    pub(super) end: u32,
}

impl Recorder<'_> {
    /// Notes the time on a stream; returns its place.
    pub(super) fn time(&mut self, stream: &Stream) -> Result<u32, HwError> {
        let at = self.next;
        self.next += 1;
        assert!(at < self.rig.stamps_per_step(), "a step's times fit its row");
        self.rig.stamp(stream, &self.rig.stamps, self.rig.stamps_per_step(), at)?;
        Ok(at)
    }

    /// Ends an operation of the compute stream, which began where the last one ended.
    pub(super) fn mark(
        &mut self,
        kind: OpKind,
        layer: Option<u32>,
        sparse: Option<u32>,
    ) -> Result<(), HwError> {
        if self.traced {
            let rig = self.rig;
            let end = self.time(&rig.stream)?;
            self.marks.push(Marked { kind, queue: Queue::Compute, layer, sparse, begin: self.since, end });
            self.since = end;
        }
        Ok(())
    }

    /// Ends the last operation, whether or not the others are noted.
    pub(super) fn always_mark(&mut self, kind: OpKind) -> Result<(), HwError> {
        let rig = self.rig;
        let (begin, end) = (self.since, self.time(&rig.stream)?);
        if self.traced {
            let queue = Queue::Compute;
            self.marks.push(Marked { kind, queue, layer: None, sparse: None, begin, end });
        }
        self.since = end;
        Ok(())
    }

    pub(super) fn aside(&mut self, stream: &Stream) -> Result<u32, HwError> {
        if self.traced { self.time(stream) } else { Ok(0) }
    }

    pub(super) fn mark_aside(
        &mut self,
        stream: &Stream,
        (kind, queue): (OpKind, Queue),
        layer: u32,
        sparse: u32,
        begin: u32,
    ) -> Result<(), HwError> {
        if self.traced {
            let end = self.time(stream)?;
            let (layer, sparse) = (Some(layer), Some(sparse));
            self.marks.push(Marked { kind, queue, layer, sparse, begin, end });
        }
        Ok(())
    }
}
