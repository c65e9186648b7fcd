//! Streams, kernels and graphs: how work reaches the device, and how long it took by the device's own clock.

use crate::error::{During, HwError};
use crate::{Device, Spread};
use cudarc::driver::{result, sys};
use kvtier_units::Nanos;
use std::ffi::c_void;
use std::time::{Duration, Instant};

/// How long a device works before it is timed; an H100 that stood idle was slow for 6 ms.
const WARM_UP: Duration = Duration::from_millis(20);

/// An in-order queue of the device.
pub struct Stream {
    device: Device,
    stream: sys::CUstream,
}

/// A kernel's function on the device. It lives as long as its module.
#[derive(Clone, Copy)]
pub struct Kernel {
    pub(crate) function: sys::CUfunction,
}

/// How many blocks of how many threads, and the dynamic shared memory of each.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks.
    pub grid: (u32, u32),
    /// Threads per block.
    pub block: u32,
    /// Bytes of dynamic shared memory per block.
    pub shared: u32,
}

impl Shape {
    /// A flat grid without dynamic shared memory.
    pub fn flat(grid: u32, block: u32) -> Shape {
        Shape { grid: (grid, 1), block, shared: 0 }
    }
}

impl Stream {
    /// A stream that does not wait for others.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn new(device: &Device) -> Result<Stream, HwError> {
        device.bind()?;
        let stream =
            result::stream::create(result::stream::StreamKind::NonBlocking).during("making a stream")?;
        Ok(Stream { device: device.clone(), stream })
    }

    pub(crate) fn raw(&self) -> sys::CUstream {
        self.stream
    }

    /// Submits a kernel. Every argument is passed as 64 bits, of which the kernel takes as many as it declares.
    ///
    /// # Safety
    /// The arguments must be what the kernel declares, and every address valid until it is done.
    ///
    /// # Errors
    /// If the launch is refused.
    pub unsafe fn launch(&self, kernel: Kernel, shape: Shape, arguments: &[u64]) -> Result<(), HwError> {
        let mut pointers: Vec<*mut c_void> =
            arguments.iter().map(|argument| std::ptr::from_ref(argument).cast_mut().cast()).collect();
        // SAFETY: promised by the caller.
        unsafe { self.launch_by_pointer(kernel, shape, &mut pointers) }
    }

    /// The same with a pointer to each argument, for arguments larger than 64 bits.
    ///
    /// # Safety
    /// As [`Stream::launch`]; every pointer is valid for the call.
    ///
    /// # Errors
    /// If the launch is refused.
    pub(crate) unsafe fn launch_by_pointer(
        &self,
        kernel: Kernel,
        shape: Shape,
        pointers: &mut [*mut c_void],
    ) -> Result<(), HwError> {
        // SAFETY: promised by the caller; the driver copies the arguments before it returns.
        unsafe {
            result::launch_kernel(
                kernel.function,
                (shape.grid.0, shape.grid.1, 1),
                (shape.block, 1, 1),
                shape.shared,
                self.stream,
                pointers,
            )
        }
        .during("launching a kernel")
    }

    /// Waits for everything submitted to this stream.
    ///
    /// # Errors
    /// If any of it failed.
    pub fn synchronize(&self) -> Result<(), HwError> {
        self.device.bind()?;
        // SAFETY: the stream is this object's.
        unsafe { result::stream::synchronize(self.stream) }.during("running on the device")
    }

    /// Makes later work of this stream wait for what `other` was given so far.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn wait_for(&self, other: &Stream, by: &Event) -> Result<(), HwError> {
        by.record(other)?;
        self.wait_event(by)
    }

    /// Makes later work of this stream wait for an event that was recorded.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn wait_event(&self, by: &Event) -> Result<(), HwError> {
        // SAFETY: stream and event are live.
        unsafe {
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            result::stream::wait_event(self.stream, by.event, flags)
        }
        .during("ordering streams")
    }

    /// Records what `submit` puts on this stream as a graph.
    ///
    /// # Errors
    /// If submission fails or cannot be recorded.
    pub fn capture(&self, submit: impl FnOnce() -> Result<(), HwError>) -> Result<Graph, HwError> {
        self.device.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is live, and capture ends below whatever happens.
        unsafe { result::stream::begin_capture(self.stream, mode) }.during("recording a graph")?;
        let submitted = submit();
        // SAFETY: as above.
        let graph = unsafe { result::stream::end_capture(self.stream) };
        submitted?;
        let graph = graph.during("recording a graph")?;
        let mut exec = std::ptr::null_mut();
        // SAFETY: the graph was just recorded; the executable graph no longer needs it.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0) }.result();
        // SAFETY: as above.
        unsafe { result::graph::destroy(graph) }.during("recording a graph")?;
        made.during("recording a graph")?;
        Ok(Graph { exec })
    }

    /// Device time of `repeats` calls of `submit`, each measured by itself, once the device is warm: after it has stood
    /// idle its clocks rise for some milliseconds of work.
    ///
    /// # Errors
    /// If the work fails.
    pub fn time(
        &self,
        repeats: usize,
        mut submit: impl FnMut() -> Result<(), HwError>,
    ) -> Result<Spread, HwError> {
        let (start, end) = (Event::new(&self.device)?, Event::new(&self.device)?);
        let began = Instant::now();
        loop {
            submit()?;
            self.synchronize()?;
            if began.elapsed() >= WARM_UP {
                break;
            }
        }
        let mut samples = Vec::with_capacity(repeats);
        for _ in 0..repeats {
            start.record(self)?;
            submit()?;
            end.record(self)?;
            self.synchronize()?;
            samples.push(start.until(&end)?);
        }
        Ok(Spread::of(samples))
    }

    /// Device time per call of `submit(i)`, where `calls` of them are replayed as one graph, `repeats` times.
    ///
    /// # Errors
    /// If the work fails.
    pub fn time_in_graph(
        &self,
        calls: usize,
        repeats: usize,
        submit: impl Fn(usize) -> Result<(), HwError>,
    ) -> Result<Spread, HwError> {
        let graph = self.capture(|| (0..calls).try_for_each(&submit))?;
        let whole = self.time(repeats, || graph.launch(self))?;
        Ok(whole.divided_by(calls as u64))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by this object and destroyed once.
            unsafe { result::stream::destroy(self.stream) }.ok();
        }
    }
}

/// Recorded work that is submitted as one.
pub struct Graph {
    exec: sys::CUgraphExec,
}

impl Graph {
    /// Submits the graph.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn launch(&self, stream: &Stream) -> Result<(), HwError> {
        // SAFETY: both are live.
        unsafe { result::graph::launch(self.exec, stream.stream) }.during("launching a graph")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `capture` and destroyed once.
        unsafe { result::graph::exec_destroy(self.exec) }.ok();
    }
}

/// A point in a stream, with the device's time.
pub struct Event {
    event: sys::CUevent,
}

impl Event {
    /// An event that has not happened.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn new(device: &Device) -> Result<Event, HwError> {
        device.bind()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).during("making an event")?;
        Ok(Event { event })
    }

    /// Happens once everything submitted to the stream so far is done.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn record(&self, stream: &Stream) -> Result<(), HwError> {
        // SAFETY: both are live.
        unsafe { result::event::record(self.event, stream.stream) }.during("recording an event")
    }

    /// Waits until it has happened.
    ///
    /// # Errors
    /// If work before it failed.
    pub fn synchronize(&self) -> Result<(), HwError> {
        // SAFETY: the event is live.
        unsafe { result::event::synchronize(self.event) }.during("running on the device")
    }

    /// Device time from this event to a later one; both have happened.
    ///
    /// # Errors
    /// If either has not.
    pub fn until(&self, later: &Event) -> Result<Nanos, HwError> {
        // SAFETY: both are live.
        let ms = unsafe { result::event::elapsed(self.event, later.event) }.during("reading an event")?;
        Ok(crate::spread::from_millis(ms))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once.
        unsafe { result::event::destroy(self.event) }.ok();
    }
}
