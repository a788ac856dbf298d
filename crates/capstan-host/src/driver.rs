//! The loop of the thread that owns the kernel: one input after the other, batches to the disk, effects when they are
//! durable.

use crate::batch::{Batches, Closed};
use crate::chance::{self, Clocks};
use crate::errands::Errands;
use crate::error::HostFault;
use crate::release::{Held, Outlets, Waiter};
use crate::vats::VatPool;
use capstan_js::VatEvent;
use capstan_kernel::effect::{Dispatch, Effect, Step};
use capstan_kernel::host_op::HostOp;
use capstan_kernel::input::{CallId, Input, RequestId};
use capstan_kernel::kernel::Kernel;
use capstan_model::capdata::CapData;
use capstan_model::fetch::FetchOutcome;
use capstan_model::file::FileOutcome;
use capstan_model::id::{KRef, VatId};
use capstan_model::peer::{Incarnation, Millis};
use capstan_model::vat::{VatIncarnation, VatReply};
use capstan_store::schema::{Meta, VatPhase, VatRow, Vats};
use capstan_store::writer::{Writer, WriterFault};
use capstan_wire::seam::LinkEvent;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// However idle it is, the kernel is told the time this often, so that it can record being alive.
const TICK: Duration = Duration::from_secs(60);

/// Sleep or a jump of the clock that is worth telling (03 B-45).
const ASLEEP_MIN: Duration = Duration::from_secs(45);

/// The wall clock may be set back: a deadline is looked at again after this.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// What those are told who ask or wait while the host stops.
pub(crate) const STOPPING: &str = "the kernel is stopping";

/// What reaches the loop.
pub(crate) enum Post {
    /// A vat spoke.
    Vat(VatEvent),
    /// Something happened on the links.
    Link(LinkEvent),
    /// The control surface asks. The permit bounds how many wait in the queue.
    Request { request: RequestId, op: Box<HostOp>, waiter: Waiter, queued: Option<OwnedSemaphorePermit> },
    /// A kernel service has answered.
    Served { call: CallId, outcome: Result<CapData<KRef>, String> },
    /// The web answered a vat.
    Fetched { vat: VatId, incarnation: VatIncarnation, id: u64, outcome: FetchOutcome },
    /// What a vat is told about a file.
    Looked { vat: VatId, incarnation: VatIncarnation, id: u64, outcome: FileOutcome },
    /// Nobody waits for that any more.
    Abandoned(RequestId),
    /// The writer has reported.
    Wake,
    /// Handle what came before, make it durable, end.
    Stop,
}

/// What the writer says: up to which batch all is durable.
pub(crate) type Report = Result<u64, WriterFault>;

/// The writer's way to the loop. Wakes it also when the writer is gone.
pub(crate) struct Reports {
    pub(crate) reports: Sender<Report>,
    pub(crate) inbox: Sender<Post>,
}

impl Reports {
    pub(crate) fn send(&self, report: Report) {
        // Without a loop nobody needs to know.
        let _ = self.reports.send(report);
        let _ = self.inbox.send(Post::Wake);
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        let (unused, _) = mpsc::channel();
        self.reports = unused; // hangs up before it wakes the loop
        let _ = self.inbox.send(Post::Wake);
    }
}

/// The loop's state.
pub(crate) struct Driver {
    pub(crate) kernel: Kernel,
    pub(crate) vats: VatPool,
    pub(crate) writer: Writer,
    pub(crate) inbox: Receiver<Post>,
    pub(crate) reports: Receiver<Report>,
    pub(crate) batches: Batches<Held>,
    pub(crate) outlets: Outlets,
    pub(crate) errands: Errands,
    /// Where the kernel's present life is told, and which was seen last.
    pub(crate) life: (Arc<str>, Incarnation),
    /// When the time was last told: a deadline that stays past is told once a millisecond.
    pub(crate) told: Millis,
    /// Both clocks at the last look.
    pub(crate) clocks: Clocks,
}

impl Driver {
    /// Runs until [`Post::Stop`] or until nobody can post any more; then everything is durable and released, vats
    /// are ended and the store is closed. A fault releases nothing more.
    pub(crate) fn run(mut self) -> Result<(), HostFault> {
        let outcome = self.turns();
        self.outlets.refuse_all(&match &outcome {
            Ok(()) => STOPPING.to_owned(),
            Err(fault) => fault.to_string(),
        });
        drop(self.vats);
        if let Err(error) = self.writer.stop() {
            tracing::warn!(%error, "the store's log was left as it is");
        }
        outcome
    }

    fn turns(&mut self) -> Result<(), HostFault> {
        self.step(Input::Booted, 0);
        loop {
            self.take_reports()?;
            if self.batches.full() && !self.batches.writer_idle() {
                self.await_report()?;
                continue;
            }
            self.look_at_clocks();
            if self.deadline_passed() {
                self.step(Input::TimeCame, 0);
            }
            let next = self.inbox.try_recv();
            if self.batches.due(Instant::now(), next.is_ok()) {
                self.hand_over();
            }
            let next = match next {
                Err(TryRecvError::Empty) => self.inbox.recv_timeout(self.sleep()),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                Ok(post) => Ok(post),
            };
            match next {
                Ok(Post::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Post::Stop) | Err(RecvTimeoutError::Disconnected) => return self.flush(),
                Ok(post) => self.handle(post),
            }
        }
    }

    fn handle(&mut self, post: Post) {
        match post {
            Post::Vat(VatEvent::Log { .. }) => {} // written where it was said
            Post::Vat(VatEvent::Started { vat, incarnation, result }) => {
                self.step(Input::VatStarted { vat, incarnation, result }, 0);
            }
            Post::Vat(VatEvent::Replied { vat, incarnation, replies }) => {
                let bytes = replies.iter().map(|(_, reply)| stored_bytes(reply)).sum();
                self.step(Input::VatReplied { vat, incarnation, replies }, bytes);
            }
            Post::Vat(VatEvent::Woken { vat, incarnation }) => {
                self.step(Input::VatWoken { vat, incarnation }, 0);
            }
            Post::Vat(VatEvent::Died { vat, incarnation, fault }) => {
                self.errands.cut(vat, incarnation);
                self.step(Input::VatDied { vat, incarnation, fault }, 0);
            }
            Post::Link(event) => self.link(event),
            Post::Request { request, op, waiter, queued } => {
                self.outlets.waiters.insert(request, waiter);
                self.step(Input::Requested { request, op: *op }, 0);
                drop(queued);
            }
            Post::Served { call, outcome } => {
                let bytes = outcome.as_ref().map_or(0, |value| value.body.len());
                self.step(Input::ServiceReplied { call, outcome }, bytes);
            }
            Post::Abandoned(request) => {
                // Without a waiter the request was answered in the meantime.
                if self.outlets.waiters.remove(&request).is_some() {
                    self.step(Input::RequestAbandoned { request }, 0);
                }
            }
            Post::Fetched { vat, incarnation, id, outcome } => {
                self.vats.fetched(vat, incarnation, id, outcome);
            }
            Post::Looked { vat, incarnation, id, outcome } => {
                self.vats.looked(vat, incarnation, id, outcome);
            }
            Post::Wake | Post::Stop => {}
        }
    }

    fn link(&mut self, event: LinkEvent) {
        let (read, bytes) = match &event {
            LinkEvent::FramesRead { channel, frames } => {
                (Some(*channel), frames.iter().map(|frame| frame.len()).sum())
            }
            _ => (None, 0),
        };
        match chance::life() {
            Ok(fresh) => self.step(Input::Link { event, fresh }, bytes),
            // Nothing is lost: what was not acknowledged comes again.
            Err(error) => tracing::error!(%error, "no randomness: a link's event is dropped"),
        }
        if let (Some(channel), Some(network)) = (read, &self.outlets.network) {
            network.consumed(channel);
        }
    }

    /// Lets the kernel take one input. Vats get their work at once; all else waits for the batch.
    fn step(&mut self, input: Input, bytes: usize) {
        let Step { dispatches, effects } = self.kernel.step(chance::now(), input);
        for dispatch in dispatches {
            match dispatch {
                Dispatch::Start(start) => self.vats.start(start),
                Dispatch::Deliver { vat, incarnation, batch } => {
                    self.vats.deliver(vat, incarnation, batch);
                }
                Dispatch::Stop { vat, incarnation } => {
                    self.vats.stop(vat, incarnation);
                    self.errands.cut(vat, incarnation);
                }
            }
        }
        let life = self.new_life().map(Held::Life);
        // Who is told of what led to a new life can see that life.
        let held: Vec<Held> = life.into_iter().chain(effects.into_iter().map(Held::Effect)).collect();
        let pressing = held.iter().any(Held::is_pressing);
        self.batches.gather(Instant::now(), bytes, pressing, held);
    }

    fn new_life(&mut self) -> Option<Incarnation> {
        let (key, last) = &mut self.life;
        let text = self.kernel.db().get::<Meta>(key)?;
        if **text == *last.as_str() {
            return None;
        }
        *last = Incarnation::new(text.clone());
        Some(last.clone())
    }

    /// Closes the batch that gathers, if the writer is idle.
    fn hand_over(&mut self) {
        let kernel = &mut self.kernel;
        let changes = || Some(kernel.take_changes()).filter(|changes| !changes.is_empty());
        match self.batches.close(changes) {
            // A writer that has ended is found by its missing report.
            Closed::Commit(number, changes) => drop(self.writer.submit(number, changes)),
            Closed::Release(effects) => self.release(effects),
            Closed::Busy => {}
        }
    }

    fn release(&mut self, effects: Vec<Held>) {
        for held in effects {
            match held {
                Held::Effect(Effect::Fetch { vat, incarnation, id, request }) => {
                    // It may have ended since it asked.
                    if let Some(row) = self.kernel.db().get::<Vats>(&vat).filter(|row| runs(row, incarnation))
                    {
                        let hosts = row.endowments.allowed_hosts.clone().unwrap_or_default();
                        self.errands.fetch(vat, incarnation, id, request, hosts);
                    }
                }
                Held::Effect(Effect::Look { vat, incarnation, id, request }) => {
                    let row = self.kernel.db().get::<Vats>(&vat).filter(|row| runs(row, incarnation));
                    if let Some(access) = row.and_then(|row| row.endowments.files.clone()) {
                        self.errands.look(vat, incarnation, id, request, access);
                    }
                }
                held => self.outlets.execute(held),
            }
        }
    }

    fn take_reports(&mut self) -> Result<(), HostFault> {
        loop {
            match self.reports.try_recv() {
                Ok(report) => self.reported(report)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(writer_gone()),
            }
        }
    }

    fn await_report(&mut self) -> Result<(), HostFault> {
        let report = self.reports.recv().map_err(|_| writer_gone())?;
        self.reported(report)
    }

    fn reported(&mut self, report: Report) -> Result<(), HostFault> {
        let number = report.map_err(|fault| HostFault::Store(format!("{fault}: {}", fault.source)))?;
        let effects = self.batches.durable(number);
        self.release(effects);
        Ok(())
    }

    /// Makes everything that happened durable, and releases it.
    fn flush(&mut self) -> Result<(), HostFault> {
        loop {
            self.hand_over();
            if self.batches.writer_idle() && !self.batches.gathered() {
                return Ok(());
            }
            self.await_report()?;
        }
    }

    fn look_at_clocks(&mut self) {
        let now = Clocks::now();
        let woke = self.clocks.asleep(&now) >= ASLEEP_MIN;
        if woke || self.clocks.awake(&now) >= TICK {
            self.clocks = now;
            self.step(if woke { Input::Woke } else { Input::TimeCame }, 0);
        }
    }

    fn deadline_passed(&mut self) -> bool {
        let now = chance::now();
        let passed = self.kernel.next_deadline().is_some_and(|at| at <= now) && self.told != now;
        if passed {
            self.told = now;
        }
        passed
    }

    fn sleep(&self) -> Duration {
        let deadline = self.kernel.next_deadline();
        let timer = deadline.map(|at| Duration::from_millis(at.0.saturating_sub(chance::now().0).max(1)));
        let batch = self.batches.wait(Instant::now());
        [timer, batch].into_iter().flatten().fold(SLEEP_MAX, Duration::min)
    }
}

fn runs(row: &VatRow, incarnation: VatIncarnation) -> bool {
    let ended = matches!(row.phase, VatPhase::Failed(_) | VatPhase::Terminated);
    row.incarnation == incarnation && !ended
}

fn writer_gone() -> HostFault {
    HostFault::Store("the writer is gone".to_owned())
}

fn stored_bytes(reply: &VatReply) -> usize {
    reply.store.sets.iter().map(|(key, value)| key.len() + value.len()).sum()
}
