//! Memory that the device reaches: its own, and pinned host memory mapped into its address space.

use crate::error::{During, HwError};
use crate::{Device, Event, Stream};
use bytemuck::Pod;
use cudarc::driver::{result, sys};
use std::marker::PhantomData;
use std::mem::size_of;
use std::slice;

/// Elements of device memory.
pub struct DeviceBuffer<T> {
    device: Device,
    address: sys::CUdeviceptr,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> DeviceBuffer<T> {
    /// `len` elements with undefined contents.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn new(device: &Device, len: usize) -> Result<DeviceBuffer<T>, HwError> {
        device.bind()?;
        let bytes = len * size_of::<T>();
        // SAFETY: the memory is freed by this buffer alone; nothing reads it before it is written.
        let address = unsafe { result::malloc_sync(bytes.max(16)) }.map_err(|error| match error.0 {
            sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = result::mem_get_info().unwrap_or((0, device.info().memory));
                HwError::OutOfDeviceMemory { asked: bytes, free, total }
            }
            _ => HwError::Call { what: "allocating device memory", source: error },
        })?;
        Ok(DeviceBuffer { device: device.clone(), address, len, elements: PhantomData })
    }

    /// A copy of host data.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn from_host(device: &Device, data: &[T]) -> Result<DeviceBuffer<T>, HwError> {
        let mut buffer = DeviceBuffer::new(device, data.len())?;
        buffer.write(data)?;
        Ok(buffer)
    }

    /// `len` elements whose every byte is `byte`.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn filled(device: &Device, len: usize, byte: u8) -> Result<DeviceBuffer<T>, HwError> {
        let mut buffer = DeviceBuffer::new(device, len)?;
        buffer.fill(byte)?;
        Ok(buffer)
    }

    /// Sets every byte.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn fill(&mut self, byte: u8) -> Result<(), HwError> {
        self.device.bind()?;
        // SAFETY: the range is this buffer's.
        unsafe { result::memset_d8_sync(self.address, byte, self.len * size_of::<T>()) }
            .during("setting device memory")?;
        self.device.synchronize()
    }

    /// Overwrites the first elements with host data and waits.
    ///
    /// # Errors
    /// If the driver fails.
    ///
    /// # Panics
    /// If the data is longer than the buffer.
    pub fn write(&mut self, data: &[T]) -> Result<(), HwError> {
        assert!(data.len() <= self.len, "data of {} elements fits a buffer of {}", data.len(), self.len);
        self.device.bind()?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is this buffer's, as just asserted.
        unsafe { result::memcpy_htod_sync(self.address, data) }.during("copying to the device")?;
        self.device.synchronize()
    }

    /// The same from element `first` on.
    ///
    /// # Errors
    /// If the driver fails.
    ///
    /// # Panics
    /// If the data reaches beyond the buffer.
    pub fn write_at(&mut self, first: usize, data: &[T]) -> Result<(), HwError> {
        assert!(
            first + data.len() <= self.len,
            "{} elements from {first} on fit a buffer of {}",
            data.len(),
            self.len
        );
        self.device.bind()?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is this buffer's, as just asserted.
        unsafe { result::memcpy_htod_sync(self.address_of(first), data) }.during("copying to the device")?;
        self.device.synchronize()
    }

    /// Everything submitted so far is awaited and the contents copied to the host.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn read(&self) -> Result<Vec<T>, HwError> {
        let mut data = vec![T::zeroed(); self.len];
        self.read_into(&mut data)?;
        Ok(data)
    }

    /// As [`DeviceBuffer::read`], for the first elements, into memory at hand.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn read_into(&self, data: &mut [T]) -> Result<(), HwError> {
        assert!(data.len() <= self.len, "no more is read than there is");
        self.device.synchronize()?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is this buffer's, as just asserted.
        unsafe { result::memcpy_dtoh_sync(data, self.address) }.during("copying from the device")
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Device address of the first element.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Device address of element `at`.
    pub fn address_of(&self, at: usize) -> u64 {
        assert!(at <= self.len, "an address within the buffer");
        self.address + (at * size_of::<T>()) as u64
    }
}

impl<T> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: allocated by this buffer and freed once. A failure here has been reported by an earlier call.
            unsafe { result::free_sync(self.address) }.ok();
        }
    }
}

/// Pinned host memory that kernels and copy engines reach.
pub struct PinnedBuffer<T> {
    device: Device,
    host: *mut T,
    address: u64,
    len: usize,
}

impl<T: Pod> PinnedBuffer<T> {
    /// `len` elements with undefined contents (zeros where the pages are fresh).
    ///
    /// # Errors
    /// If the host cannot pin that much.
    pub fn new(device: &Device, len: usize) -> Result<PinnedBuffer<T>, HwError> {
        device.bind()?;
        let bytes = len * size_of::<T>();
        let refused = |error: cudarc::driver::DriverError| HwError::TooLittlePinnable {
            asked: bytes,
            why: error
                .error_name()
                .map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned()),
        };
        let flags = sys::CU_MEMHOSTALLOC_DEVICEMAP | sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: freed by this buffer alone.
        let host = unsafe { result::malloc_host(bytes.max(16), flags) }.map_err(refused)?;
        let mut address = 0;
        // SAFETY: both pointers are valid for the call.
        unsafe { sys::cuMemHostGetDevicePointer_v2(&raw mut address, host, 0) }.result().map_err(refused)?;
        Ok(PinnedBuffer { device: device.clone(), host: host.cast(), address, len })
    }

    /// The elements, for reading by the host. The caller has waited for the device's writes.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the allocation holds `len` elements of a type for which any bytes are valid.
        unsafe { slice::from_raw_parts(self.host, self.len) }
    }

    /// The elements, for writing by the host. The caller has waited for the device's use.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.host, self.len) }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address at which kernels reach the first element.
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl<T> Drop for PinnedBuffer<T> {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: allocated by this buffer and freed once.
            unsafe { result::free_host(self.host.cast()) }.ok();
        }
    }
}

// SAFETY: the pointer is to memory that no thread owns; access follows the borrow rules.
unsafe impl<T: Send> Send for PinnedBuffer<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for PinnedBuffer<T> {}

/// Copies by a copy engine: device to device, host to device or back, by address.
///
/// # Safety
/// Both ranges must be valid, and stay so until the copy is done.
///
/// # Errors
/// If the driver fails.
pub unsafe fn copy_async(stream: &Stream, to: u64, from: u64, bytes: usize) -> Result<(), HwError> {
    // SAFETY: promised by the caller.
    unsafe { sys::cuMemcpyAsync(to, from, bytes, stream.raw()) }.result().during("copying")
}

/// Copies `bytes` from each address to its partner by one batch. `before` is recorded first: a stream that has something
/// in it leaves a batch to the copy engines, where on an idle one the driver has the CPU copy small blocks, which takes
/// several times as long (own measurement, driver 580: 8 KiB in 2 to 3 us instead of 0.7).
///
/// # Safety
/// As [`copy_async`], for every pair.
///
/// # Errors
/// If the driver has no batch copies, or fails.
pub unsafe fn copy_batch_async(
    stream: &Stream,
    before: Option<&Event>,
    to: &[u64],
    from: &[u64],
    bytes: usize,
) -> Result<(), HwError> {
    assert_eq!(to.len(), from.len(), "every block has a source and a destination");
    if !crate::library::driver_has("cuMemcpyBatchAsync_v2") {
        return Err(HwError::MissingSymbol("cuMemcpyBatchAsync_v2"));
    }
    let (mut to, mut from, mut sizes) = (to.to_vec(), from.to_vec(), vec![bytes; to.len()]);
    // SAFETY: plain integers, for which zero means "no hint".
    let mut attributes: sys::CUmemcpyAttributes = unsafe { std::mem::zeroed() };
    attributes.srcAccessOrder = sys::CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    let mut first = [0usize];
    before.map_or(Ok(()), |event| event.record(stream))?;
    // SAFETY: the lists are as long as said and are read before the call returns; the ranges are the caller's promise.
    unsafe {
        sys::cuMemcpyBatchAsync_v2(
            to.as_mut_ptr(),
            from.as_mut_ptr(),
            sizes.as_mut_ptr(),
            sizes.len(),
            &raw mut attributes,
            first.as_mut_ptr(),
            1,
            stream.raw(),
        )
    }
    .result()
    .during("copying a batch")
}
