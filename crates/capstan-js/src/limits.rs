//! What stops a vat that takes too much (04 §8): time, memory, syscalls, store.

use capstan_model::vat::VatLimits;
use rquickjs::allocator::{Allocator, RustAllocator};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Which limit was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Deadline = 1,
    Memory = 2,
    Syscalls = 3,
    Store = 4,
}

/// One vat's meter. Once blown it stays blown: vat code may catch what it is thrown, but not go on.
pub(crate) struct Fuse {
    pub(crate) limits: VatLimits,
    born: Instant,
    /// Microseconds after `born`; `u64::MAX` between deliveries.
    deadline_us: AtomicU64,
    blown: AtomicU8,
    heap_bytes: AtomicUsize,
}

impl Fuse {
    pub(crate) fn new(limits: VatLimits) -> Arc<Fuse> {
        Arc::new(Fuse {
            limits,
            born: Instant::now(),
            deadline_us: AtomicU64::new(u64::MAX),
            blown: AtomicU8::new(0),
            heap_bytes: AtomicUsize::new(0),
        })
    }

    /// Starts the clock of one delivery.
    pub(crate) fn arm(&self) {
        let allowed = Duration::from_millis(self.limits.crank_deadline_ms);
        self.deadline_us.store(micros(self.born.elapsed().saturating_add(allowed)), Relaxed);
    }

    pub(crate) fn disarm(&self) {
        self.deadline_us.store(u64::MAX, Relaxed);
    }

    /// Whether the vat must stop now.
    pub(crate) fn must_stop(&self) -> bool {
        if self.blown.load(Relaxed) != 0 {
            return true;
        }
        let late = micros(self.born.elapsed()) > self.deadline_us.load(Relaxed);
        if late {
            self.blow(Limit::Deadline);
        }
        late
    }

    pub(crate) fn blow(&self, limit: Limit) {
        // The first cause is the one reported.
        let _ = self.blown.compare_exchange(0, limit as u8, Relaxed, Relaxed);
    }

    /// The text of the exceeded limit, if one was.
    pub(crate) fn violation(&self) -> Option<String> {
        let limits = &self.limits;
        match self.blown.load(Relaxed) {
            1 => Some(deadline_text(limits)),
            2 => Some(format!("memory limit of {} bytes exceeded", limits.memory_bytes_max)),
            3 => Some(format!("limit of {} syscalls per crank exceeded", limits.syscalls_max)),
            4 => Some(format!("vat store limit of {} bytes exceeded", limits.store_bytes_max)),
            _ => None,
        }
    }

    /// Whether so much more heap may be taken; blows the fuse if not.
    fn may_take(&self, bytes: usize) -> bool {
        let fits = self.heap_bytes.load(Relaxed).saturating_add(bytes) as u64 <= self.limits.memory_bytes_max;
        if !fits {
            self.blow(Limit::Memory);
        }
        fits
    }

    /// Counts what was really given. Only the thread that runs the engine just now counts, so that no counting is lost
    /// without the cost of an atomic addition for every object of the vat.
    fn take(&self, ptr: *mut u8) -> *mut u8 {
        #[expect(unsafe_code, reason = "`ptr` was returned by `RustAllocator` a moment ago")]
        // SAFETY: see the reason; null is excluded.
        let given = if ptr.is_null() { 0 } else { unsafe { RustAllocator::usable_size(ptr) } };
        self.heap_bytes.store(self.heap_bytes.load(Relaxed).wrapping_add(given), Relaxed);
        ptr
    }

    /// What the heap takes now.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.heap_bytes.load(Relaxed)
    }

    fn release(&self, bytes: usize) {
        self.heap_bytes.store(self.heap_bytes.load(Relaxed).wrapping_sub(bytes), Relaxed);
    }
}

/// The text of an exceeded crank deadline.
pub(crate) fn deadline_text(limits: &VatLimits) -> String {
    format!("crank deadline of {} ms exceeded", limits.crank_deadline_ms)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Counts a vat's heap. The engine's own limit throws something that vat code can catch; this one also remembers.
pub(crate) struct CountingAllocator(pub(crate) Arc<Fuse>);

#[expect(
    unsafe_code,
    reason = "the trait is unsafe; every pointer comes from and goes to `RustAllocator` unchanged"
)]
unsafe impl Allocator for CountingAllocator {
    fn alloc(&mut self, size: usize) -> *mut u8 {
        if !self.0.may_take(size) {
            return std::ptr::null_mut();
        }
        self.0.take(RustAllocator.alloc(size))
    }

    fn calloc(&mut self, count: usize, size: usize) -> *mut u8 {
        let Some(total) = count.checked_mul(size) else { return std::ptr::null_mut() };
        if !self.0.may_take(total) {
            return std::ptr::null_mut();
        }
        self.0.take(RustAllocator.calloc(count, size))
    }

    unsafe fn dealloc(&mut self, ptr: *mut u8) {
        if !ptr.is_null() {
            // SAFETY: the caller hands back a pointer of this allocator, which is one of `RustAllocator`'s.
            let size = unsafe { RustAllocator::usable_size(ptr) };
            self.0.release(size);
        }
        // SAFETY: as above.
        unsafe { RustAllocator.dealloc(ptr) }
    }

    unsafe fn realloc(&mut self, ptr: *mut u8, new_size: usize) -> *mut u8 {
        // SAFETY: as above; null has no size.
        let before = if ptr.is_null() { 0 } else { unsafe { RustAllocator::usable_size(ptr) } };
        if !self.0.may_take(new_size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        let moved = unsafe { RustAllocator.realloc(ptr, new_size) };
        if !moved.is_null() || new_size == 0 {
            self.0.release(before);
        }
        self.0.take(moved)
    }

    unsafe fn usable_size(ptr: *mut u8) -> usize {
        // SAFETY: as above.
        unsafe { RustAllocator::usable_size(ptr) }
    }
}
