//! The threads that carry vats, and the watchdog that gives a stuck one up.

use crate::engine::Engine;
use crate::limits::deadline_text;
use capstan_model::id::VatId;
use capstan_model::vat::{
    DeliveryId, VatDelivery, VatFault, VatIncarnation, VatLimits, VatReply, VatStart, VatStarted,
};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Native loops are not interrupted; a vat in one has this much after its deadline before its thread is given up.
const GRACE: Duration = Duration::from_millis(1000);
const WATCH_EVERY: Duration = Duration::from_millis(50);
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
    /// A line for the vat's log.
    Log {
        /// Which vat.
        vat: VatId,
        /// `debug`, `info`, `warn` or `error`.
        level: String,
        /// The line.
        text: String,
    },
}

type Sink = Arc<dyn Fn(VatEvent) + Send + Sync>;

enum Order {
    Start(Box<VatStart>),
    Deliver(VatId, VatIncarnation, Vec<(DeliveryId, VatDelivery)>),
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
}

impl Lane {
    fn put(&self, order: Order) {
        lock(&self.orders).push_back(order);
        self.bell.notify_one();
    }

    fn next(&self) -> Order {
        let mut orders = lock(&self.orders);
        loop {
            match orders.pop_front() {
                Some(order) => return order,
                None => orders = self.bell.wait(orders).unwrap_or_else(PoisonError::into_inner),
            }
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
    homes: Mutex<Homes>,
}

/// A few threads, each carrying many vats. A vat stays on its thread, and its orders are executed as they came.
pub struct Workers {
    pool: Arc<Pool>,
}

impl Workers {
    /// Starts `threads` worker threads (0: one per core). The sink must not block for long and must not panic.
    pub fn new(threads: usize, sink: impl Fn(VatEvent) + Send + Sync + 'static) -> Self {
        let threads =
            if threads == 0 { thread::available_parallelism().map_or(1, usize::from) } else { threads };
        let sink: Sink = Arc::new(sink);
        let lanes = (0..threads).map(|_| open_lane(&sink)).collect();
        let pool = Arc::new(Pool { sink, homes: Mutex::new(Homes { lanes, homes: BTreeMap::new() }) });
        let watched = Arc::downgrade(&pool);
        // Without a watchdog only native loops go unnoticed, so a failed spawn is not the end.
        let _ = thread::Builder::new().name("vat-watchdog".to_owned()).spawn(move || watch(&watched));
        Workers { pool }
    }

    /// Brings a vat up; answered by [`VatEvent::Started`]. An earlier run of the same vat is stopped first.
    pub fn start(&self, start: VatStart) {
        let mut homes = lock(&self.pool.homes);
        if let Some((old, lane)) = homes.homes.remove(&start.vat)
            && let Some(lane) = homes.lanes.get(lane)
        {
            lane.put(Order::Stop(start.vat, old));
        }
        let load = |index: usize| homes.homes.values().filter(|(_, lane)| *lane == index).count();
        let Some(index) = (0..homes.lanes.len()).min_by_key(|&index| load(index)) else { return };
        homes.homes.insert(start.vat, (start.incarnation, index));
        if let Some(lane) = homes.lanes.get(index) {
            lane.put(Order::Start(Box::new(start)));
        }
    }

    /// Gives a vat a batch of deliveries, executed in order; answered by one [`VatEvent::Replied`]. For a run that
    /// is over (failed to start, faulted, died, stopped) nothing happens: that was reported already.
    pub fn deliver(&self, vat: VatId, incarnation: VatIncarnation, batch: Vec<(DeliveryId, VatDelivery)>) {
        let homes = lock(&self.pool.homes);
        if let Some((_, lane)) = homes.homes.get(&vat).filter(|(current, _)| *current == incarnation)
            && let Some(lane) = homes.lanes.get(*lane)
        {
            lane.put(Order::Deliver(vat, incarnation, batch));
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

fn open_lane(sink: &Sink) -> Arc<Lane> {
    let lane = Arc::new(Lane::default());
    let report = Report { lane: lane.clone(), sink: sink.clone() };
    let builder = thread::Builder::new().name("vats".to_owned()).stack_size(THREAD_STACK_BYTES);
    // If the system gives no thread, the orders wait; nothing else can be done here.
    let _ = builder.spawn(move || run(&report));
    lane
}

type Engines = BTreeMap<VatId, (VatIncarnation, Engine, VatLimits)>;

fn run(report: &Report) {
    let mut engines = Engines::new();
    loop {
        match report.lane.next() {
            Order::Quit => return,
            Order::Stop(vat, incarnation) => {
                if engines.get(&vat).is_some_and(|(current, ..)| *current == incarnation) {
                    engines.remove(&vat);
                }
            }
            Order::Start(start) => bring_up(&mut engines, *start, report),
            Order::Deliver(vat, incarnation, batch) => deliver(&mut engines, vat, incarnation, batch, report),
        }
        if *lock(&report.lane.given_up) {
            return; // a replacement is at work already
        }
    }
}

fn bring_up(engines: &mut Engines, start: VatStart, report: &Report) {
    let (vat, incarnation, limits) = (start.vat, start.incarnation, start.limits);
    engines.remove(&vat);
    *lock(&report.lane.busy) = Some(Busy { vat, limits, since: Instant::now() });
    let started = catch_unwind(AssertUnwindSafe(|| Engine::start(start, report)));
    *lock(&report.lane.busy) = None;
    let result = match started {
        Ok(Ok((engine, started))) => {
            engines.insert(vat, (incarnation, engine, limits));
            Ok(started)
        }
        Ok(Err(why)) => Err(why),
        Err(_) => Err("the worker failed while starting the vat".to_owned()),
    };
    report.send(VatEvent::Started { vat, incarnation, result });
}

fn deliver(
    engines: &mut Engines,
    vat: VatId,
    incarnation: VatIncarnation,
    batch: Vec<(DeliveryId, VatDelivery)>,
    report: &Report,
) {
    let Some((_, engine, limits)) = engines.get(&vat).filter(|(current, ..)| *current == incarnation) else {
        return;
    };
    let mut replies = Vec::with_capacity(batch.len());
    let mut failed = false;
    for (id, delivery) in batch {
        *lock(&report.lane.busy) = Some(Busy { vat, limits: *limits, since: Instant::now() });
        let reply =
            catch_unwind(AssertUnwindSafe(|| engine.deliver(delivery))).unwrap_or_else(|_| VatReply {
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
        engines.remove(&vat);
    }
    report.send(VatEvent::Replied { vat, incarnation, replies });
}

/// Looks for threads that hang in native code, replaces each, and reports its vats.
fn watch(pool: &Weak<Pool>) {
    loop {
        thread::sleep(WATCH_EVERY);
        let Some(pool) = pool.upgrade() else { return };
        for event in give_up_stuck(&pool) {
            (pool.sink)(event);
        }
    }
}

fn give_up_stuck(pool: &Pool) -> Vec<VatEvent> {
    let lanes = lock(&pool.homes).lanes.clone();
    let mut events = Vec::new();
    for (index, lane) in lanes.into_iter().enumerate() {
        let Some(busy) = lane.overdue() else { continue };
        // Never while holding `homes`: a sink, called under `given_up`, may be waiting for it.
        *lock(&lane.given_up) = true;
        let mut homes = lock(&pool.homes);
        if let Some(place) = homes.lanes.get_mut(index) {
            *place = open_lane(&pool.sink);
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
