//! The threads that carry vats, and the watchdog that gives a stuck one up.

use crate::endow;
use crate::engine::{Came, Engine};
use crate::limits::deadline_text;
use crate::timers::Timers;
use capstan_model::fetch::FetchOutcome;
use capstan_model::file::FileOutcome;
use capstan_model::id::VatId;
use capstan_model::vat::{
    DeliveryId, FileAccess, VatDelivery, VatFault, VatIncarnation, VatLimits, VatReply, VatStart, VatStarted,
};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Native loops are not interrupted; a vat in one has this much after its deadline before its thread is given up.
const GRACE: Duration = Duration::from_millis(1000);
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// When vats that have ended left so much, bytes, it is given back to the system; less is soon used again.
const GIVE_BACK_BYTES: usize = 16 << 20;
const THREAD_STACK_BYTES: usize = 8 << 20;

/// What came of an order, told to the sink from a worker thread (or from the watchdog).
#[derive(Clone, Debug, PartialEq)]
pub enum VatEvent {
    /// The answer to [`Workers::start`].
    Started {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
        /// What start-up asked for, or the reason it failed (04 §4).
        result: Result<VatStarted, String>,
    },
    /// The answers to one [`Workers::deliver`], in order. One with a fault is the last: what followed it in the
    /// batch was not executed, and this run of the vat takes no more deliveries.
    Replied {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
        /// Each delivery's reply.
        replies: Vec<(DeliveryId, VatReply)>,
    },
    /// This run of the vat is over without an answer: its thread was given up, or its worker failed.
    /// Deliveries not answered by then never will be.
    Died {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
        /// `Limit` for a vat that hung beyond its deadline, `WorkerDied` for those that shared its thread.
        fault: VatFault,
    },
    /// Something that the vat began itself has come due: it waits for a [`VatDelivery::Wake`]. Not said again before
    /// that was delivered.
    Woken {
        /// Which vat.
        vat: VatId,
        /// Which run of it.
        incarnation: VatIncarnation,
    },
    /// A line for the vat's log.
    Log {
        /// Which vat.
        vat: VatId,
        /// `debug`, `info`, `warn` or `error`.
        level: String,
        /// The vat's code said it, through its `console`; otherwise the runtime.
        console: bool,
        /// The line.
        text: String,
    },
}

/// Why an order was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no such run of the vat.
    #[error("cannot deliver before vat is loaded: {0}")]
    NotLoaded(VatId),
    /// There is such a run already.
    #[error("vat is loaded already: {0}")]
    StartedBefore(VatId),
}

type Sink = Arc<dyn Fn(VatEvent) + Send + Sync>;

/// Tells whether there is a file or directory that a vat with such access may look at; the vat waits meanwhile.
pub type Exists = Arc<dyn Fn(&FileAccess, &str) -> Result<bool, String> + Send + Sync>;

/// What vats find where they run.
#[derive(Clone)]
pub struct Surroundings {
    /// The globals that they may ask for; `None`: all of [`GLOBALS`](capstan_model::vat::GLOBALS).
    pub allowed_globals: Option<Arc<[Arc<str>]>>,
    /// Answers `fs.existsSync`.
    pub exists: Exists,
}

impl Default for Surroundings {
    /// Every global, and the files of this process.
    fn default() -> Self {
        Surroundings { allowed_globals: None, exists: Arc::new(crate::files::exists) }
    }
}

enum Order {
    Start(Box<VatStart>),
    Deliver(VatId, VatIncarnation, Vec<(DeliveryId, VatDelivery)>),
    Answer(VatId, VatIncarnation, u64, Came),
    Stop(VatId, VatIncarnation),
    Quit,
}

/// What a thread is at, for the watchdog.
#[derive(Clone, Copy)]
struct Busy {
    vat: VatId,
    limits: VatLimits,
    since: Instant,
}

/// One thread's mailbox.
#[derive(Default)]
struct Lane {
    orders: Mutex<VecDeque<Order>>,
    bell: Condvar,
    busy: Mutex<Option<Busy>>,
    given_up: Mutex<bool>,
    /// Heaps of vats that have ended since memory was last given back, bytes.
    freed: AtomicUsize,
}

impl Lane {
    fn put(&self, order: Order) {
        lock(&self.orders).push_back(order);
        self.bell.notify_one();
    }

    /// Waits for the next order, or for the given moment.
    fn next(&self, until: Option<Instant>) -> Option<Order> {
        let mut orders = lock(&self.orders);
        loop {
            if let Some(order) = orders.pop_front() {
                return Some(order);
            }
            orders = match until {
                None => self.bell.wait(orders).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let wait = until.saturating_duration_since(Instant::now());
                    if wait.is_zero() {
                        return None;
                    }
                    self.bell.wait_timeout(orders, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn overdue(&self) -> Option<Busy> {
        let busy = (*lock(&self.busy))?;
        let allowed = Duration::from_millis(busy.limits.crank_deadline_ms).saturating_add(GRACE);
        (busy.since.elapsed() > allowed).then_some(busy)
    }
}

/// A thread's way to the sink; says nothing once the thread is given up.
#[derive(Clone)]
pub(crate) struct Report {
    lane: Arc<Lane>,
    sink: Sink,
    pub(crate) surroundings: Surroundings,
}

impl Report {
    pub(crate) fn send(&self, event: VatEvent) {
        let given_up = lock(&self.lane.given_up);
        if !*given_up {
            (self.sink)(event);
        }
    }
}

struct Homes {
    lanes: Vec<Arc<Lane>>,
    homes: BTreeMap<VatId, (VatIncarnation, usize)>,
}

struct Pool {
    sink: Sink,
    surroundings: Surroundings,
    homes: Mutex<Homes>,
}

/// A few threads, each carrying many vats. A vat stays on its thread, and its orders are executed as they came.
pub struct Workers {
    pool: Arc<Pool>,
}

impl Workers {
    /// Starts `threads` worker threads (0: one per core). The sink must not block for long and must not panic.
    pub fn new(threads: usize, sink: impl Fn(VatEvent) + Send + Sync + 'static) -> Self {
        Self::among(Surroundings::default(), threads, sink)
    }

    /// The same, with other surroundings.
    pub fn among(
        surroundings: Surroundings,
        threads: usize,
        sink: impl Fn(VatEvent) + Send + Sync + 'static,
    ) -> Self {
        let threads =
            if threads == 0 { thread::available_parallelism().map_or(1, usize::from) } else { threads };
        let sink: Sink = Arc::new(sink);
        let lanes = (0..threads).map(|_| open_lane(&sink, &surroundings)).collect();
        let homes = Mutex::new(Homes { lanes, homes: BTreeMap::new() });
        let pool = Arc::new(Pool { sink, surroundings, homes });
        let watched = Arc::downgrade(&pool);
        // Without a watchdog only native loops go unnoticed, so a failed spawn is not the end.
        let _ = thread::Builder::new().name("vat-watchdog".to_owned()).spawn(move || watch(&watched));
        Workers { pool }
    }

    /// Brings a vat up; answered by [`VatEvent::Started`]. An earlier run of the same vat is stopped first.
    ///
    /// # Errors
    /// This very run was started before. It goes on.
    pub fn start(&self, start: VatStart) -> Result<(), OrderError> {
        let mut homes = lock(&self.pool.homes);
        if homes.homes.get(&start.vat).is_some_and(|(current, _)| *current == start.incarnation) {
            return Err(OrderError::StartedBefore(start.vat));
        }
        if let Some((old, lane)) = homes.homes.remove(&start.vat)
            && let Some(lane) = homes.lanes.get(lane)
        {
            lane.put(Order::Stop(start.vat, old));
        }
        let load = |index: usize| homes.homes.values().filter(|(_, lane)| *lane == index).count();
        let Some(index) = (0..homes.lanes.len()).min_by_key(|&index| load(index)) else { return Ok(()) };
        homes.homes.insert(start.vat, (start.incarnation, index));
        if let Some(lane) = homes.lanes.get(index) {
            lane.put(Order::Start(Box::new(start)));
        }
        Ok(())
    }

    /// Gives a vat a batch of deliveries, executed in order; answered by one [`VatEvent::Replied`]. For a run that
    /// failed to start, faulted or died nothing happens: that was reported already.
    ///
    /// # Errors
    /// This run was never started, or was stopped.
    pub fn deliver(
        &self,
        vat: VatId,
        incarnation: VatIncarnation,
        batch: Vec<(DeliveryId, VatDelivery)>,
    ) -> Result<(), OrderError> {
        let homes = lock(&self.pool.homes);
        let home = homes.homes.get(&vat).filter(|(current, _)| *current == incarnation);
        let (_, lane) = home.ok_or(OrderError::NotLoaded(vat))?;
        if let Some(lane) = homes.lanes.get(*lane) {
            lane.put(Order::Deliver(vat, incarnation, batch));
        }
        Ok(())
    }

    /// Gives a vat the answer to a request that it made with a `Fetch`; it will want to be woken for it. An answer to a
    /// run that is over goes nowhere.
    pub fn fetched(&self, vat: VatId, incarnation: VatIncarnation, id: u64, outcome: FetchOutcome) {
        self.answer(vat, incarnation, id, Came::Fetched(outcome));
    }

    /// The same for what a vat asked with a `Look`.
    pub fn looked(&self, vat: VatId, incarnation: VatIncarnation, id: u64, outcome: FileOutcome) {
        self.answer(vat, incarnation, id, Came::Looked(outcome));
    }

    fn answer(&self, vat: VatId, incarnation: VatIncarnation, id: u64, came: Came) {
        let homes = lock(&self.pool.homes);
        if let Some((_, lane)) = homes.homes.get(&vat).filter(|(current, _)| *current == incarnation)
            && let Some(lane) = homes.lanes.get(*lane)
        {
            lane.put(Order::Answer(vat, incarnation, id, came));
        }
    }

    /// Ends a run of a vat after what it was already given. No answer.
    pub fn stop(&self, vat: VatId, incarnation: VatIncarnation) {
        let mut homes = lock(&self.pool.homes);
        if let Some((_, index)) =
            homes.homes.get(&vat).copied().filter(|(current, _)| *current == incarnation)
        {
            homes.homes.remove(&vat);
            if let Some(lane) = homes.lanes.get(index) {
                lane.put(Order::Stop(vat, incarnation));
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for lane in &lock(&self.pool.homes).lanes {
            lane.put(Order::Quit);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_lane(sink: &Sink, surroundings: &Surroundings) -> Arc<Lane> {
    let lane = Arc::new(Lane::default());
    let report = Report { lane: lane.clone(), sink: sink.clone(), surroundings: surroundings.clone() };
    let builder = thread::Builder::new().name("vats".to_owned()).stack_size(THREAD_STACK_BYTES);
    // If the system gives no thread, the orders wait; nothing else can be done here.
    let _ = builder.spawn(move || run(&report));
    lane
}

/// One vat on its thread.
struct Seat {
    incarnation: VatIncarnation,
    engine: Engine,
    limits: VatLimits,
    /// The kernel was told that the vat has something to do, and has not had it woken yet.
    rung: bool,
}

impl Seat {
    /// When the kernel is next to be told.
    fn alarm(&self) -> Option<Instant> {
        if self.rung { None } else { self.engine.next_alarm() }
    }
}

type Seats = BTreeMap<VatId, Seat>;

fn run(report: &Report) {
    let mut seats = Seats::new();
    loop {
        ring(&mut seats, report);
        match report.lane.next(seats.values().filter_map(Seat::alarm).min()) {
            None => continue, // somebody's time has come
            Some(Order::Quit) => return,
            Some(Order::Stop(vat, incarnation)) => {
                if seats.get(&vat).is_some_and(|seat| seat.incarnation == incarnation) {
                    unseat(&mut seats, vat, report);
                }
            }
            Some(Order::Answer(vat, incarnation, id, came)) => {
                if let Some(seat) = seats.get_mut(&vat).filter(|seat| seat.incarnation == incarnation) {
                    seat.engine.keep(id, came);
                }
            }
            Some(Order::Start(start)) => bring_up(&mut seats, *start, report),
            Some(Order::Deliver(vat, incarnation, batch)) => {
                deliver(&mut seats, vat, incarnation, batch, report);
            }
        }
        if *lock(&report.lane.given_up) {
            return; // a replacement is at work already
        }
    }
}

/// Tells of the vats that have something to do by themselves.
fn ring(seats: &mut Seats, report: &Report) {
    let now = Instant::now();
    for (vat, seat) in seats {
        if seat.alarm().is_some_and(|at| at <= now) {
            seat.rung = true;
            report.send(VatEvent::Woken { vat: *vat, incarnation: seat.incarnation });
        }
    }
}

fn bring_up(seats: &mut Seats, start: VatStart, report: &Report) {
    let (vat, incarnation, limits) = (start.vat, start.incarnation, start.limits);
    unseat(seats, vat, report);
    *lock(&report.lane.busy) = Some(Busy { vat, limits, since: Instant::now() });
    let started = catch_unwind(AssertUnwindSafe(|| Engine::start(start, report)));
    *lock(&report.lane.busy) = None;
    let result = match started {
        Ok(Ok((engine, started))) => {
            seats.insert(vat, Seat { incarnation, engine, limits, rung: false });
            Ok(started)
        }
        Ok(Err(why)) => Err(why),
        Err(_) => Err("the worker failed while starting the vat".to_owned()),
    };
    report.send(VatEvent::Started { vat, incarnation, result });
}

fn deliver(
    seats: &mut Seats,
    vat: VatId,
    incarnation: VatIncarnation,
    batch: Vec<(DeliveryId, VatDelivery)>,
    report: &Report,
) {
    let Some(seat) = seats.get_mut(&vat).filter(|seat| seat.incarnation == incarnation) else {
        return;
    };
    let mut replies = Vec::with_capacity(batch.len());
    let mut failed = false;
    for (id, delivery) in batch {
        *lock(&report.lane.busy) = Some(Busy { vat, limits: seat.limits, since: Instant::now() });
        seat.rung &= delivery != VatDelivery::Wake;
        let reply =
            catch_unwind(AssertUnwindSafe(|| seat.engine.deliver(delivery))).unwrap_or_else(|_| VatReply {
                syscalls: Vec::new(),
                store: Default::default(),
                outcome: Err(VatFault::WorkerDied("the worker failed during a delivery".to_owned())),
            });
        failed = reply.outcome.is_err();
        replies.push((id, reply));
        if failed {
            break;
        }
    }
    *lock(&report.lane.busy) = None;
    if failed {
        unseat(seats, vat, report);
    }
    report.send(VatEvent::Replied { vat, incarnation, replies });
}

/// One thing to be done at a vat's end, under a name for the log.
type Part<'p> = (&'p str, Box<dyn FnOnce() + 'p>);

/// Ends a vat on its thread, if it is there: once, since it is gone then.
fn unseat(seats: &mut Seats, vat: VatId, report: &Report) {
    let Some(Seat { engine, .. }) = seats.remove(&vat) else { return };
    let (timers, heap_bytes) = (engine.timers(), engine.heap_bytes());
    let parts: [Part<'_>; 2] = [
        ("timers", Box::new(move || *endow::lock(&timers) = Timers::default())),
        ("engine", Box::new(move || drop(engine))),
    ];
    tear_down(vat, report, parts);
    report.lane.freed.fetch_add(heap_bytes, Relaxed);
}

/// Does what is to be done at a vat's end, part by part. One that fails is logged, and hinders neither the others nor the
/// end.
fn tear_down<'p>(vat: VatId, report: &Report, parts: impl IntoIterator<Item = Part<'p>>) {
    for (name, part) in parts {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(part)) {
            let why = panic.downcast_ref::<&str>().map(|why| (*why).to_owned());
            let why = why.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            let text = format!("ending the {name} failed: {why}");
            report.send(VatEvent::Log { vat, level: "error".to_owned(), console: false, text });
        }
    }
}

/// Looks for threads that hang in native code, replaces each, and reports its vats.
fn watch(pool: &Weak<Pool>) {
    loop {
        thread::sleep(WATCH_EVERY);
        let Some(pool) = pool.upgrade() else { return };
        for event in give_up_stuck(&pool) {
            (pool.sink)(event);
        }
        give_back(&pool);
    }
}

/// Gives the memory of vats that have ended back to the system. The allocator keeps pages between those in use otherwise.
fn give_back(pool: &Pool) {
    let lanes = lock(&pool.homes).lanes.clone();
    if lanes.iter().map(|lane| lane.freed.load(Relaxed)).sum::<usize>() < GIVE_BACK_BYTES {
        return;
    }
    for lane in &lanes {
        lane.freed.store(0, Relaxed);
    }
    trim();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "the C library's own; it takes the allocator's locks and touches free memory only"
)]
fn trim() {
    unsafe extern "C" {
        safe fn malloc_trim(kept: usize) -> std::ffi::c_int;
    }
    malloc_trim(0);
}

/// Other allocators do it by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

fn give_up_stuck(pool: &Pool) -> Vec<VatEvent> {
    let lanes = lock(&pool.homes).lanes.clone();
    let mut events = Vec::new();
    for (index, lane) in lanes.into_iter().enumerate() {
        let Some(busy) = lane.overdue() else { continue };
        // Never while holding `homes`: a sink, called under `given_up`, may be waiting for it.
        *lock(&lane.given_up) = true;
        let mut homes = lock(&pool.homes);
        if let Some(place) = homes.lanes.get_mut(index) {
            *place = open_lane(&pool.sink, &pool.surroundings);
        }
        let mut dead = Vec::new();
        homes.homes.retain(|vat, (incarnation, lane)| {
            let lost = *lane == index;
            if lost {
                dead.push((*vat, *incarnation));
            }
            !lost
        });
        for (vat, incarnation) in dead {
            let fault = if vat == busy.vat {
                VatFault::Limit(deadline_text(&busy.limits))
            } else {
                VatFault::WorkerDied(format!("the worker was given up because {} hung", busy.vat))
            };
            events.push(VatEvent::Died { vat, incarnation, fault });
        }
    }
    events
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn k142_parts_of_an_end_that_fail_are_logged_each_and_the_rest_is_done() {
        let (events, told) = channel();
        let sink: Sink = Arc::new(move |event| drop(events.send(event)));
        let report = Report { lane: Arc::default(), sink, surroundings: Surroundings::default() };
        let done = Mutex::new(Vec::new());
        let parts: [Part<'_>; 4] = [
            ("first", Box::new(|| panic!("it is stuck"))),
            ("second", Box::new(|| lock(&done).push(2))),
            ("third", Box::new(|| panic!("{} times", 2))),
            ("fourth", Box::new(|| lock(&done).push(4))),
        ];
        tear_down(VatId(7), &report, parts);
        assert_eq!(*done.lock().unwrap(), [2, 4]);
        let log = |text: &str| VatEvent::Log {
            vat: VatId(7),
            level: "error".into(),
            console: false,
            text: text.into(),
        };
        let logged: Vec<VatEvent> = told.try_iter().collect();
        assert_eq!(
            logged,
            [log("ending the first failed: it is stuck"), log("ending the third failed: 2 times")]
        );
    }
}
