//! The kernel as its driver sees it: inputs in, steps out.

use crate::crank::{self, Ending};
use crate::effect::{Effect, LogLevel, Step};
use crate::flight::{Volatile, Work};
use crate::host_op::{Answer, Refusal};
use crate::input::Input;
use crate::turn::{Turn, transact};
use crate::{promise, remote, service, vat};
use capstan_model::error::KernelError;
use capstan_model::id::VatId;
use capstan_model::peer::{Hint, Millis, PeerId};
use capstan_model::vat::{DeliveryId, VatFault, VatIncarnation, VatReply, VatStarted};
use capstan_store::overlay::Db;
use capstan_store::schema::{ChangeSet, Decider, HoldKind, Holds, Subclusters, VatPhase, Vats};
use capstan_wire::relay_pool::RelayLimits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which handshake this kernel speaks (design §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// Facts in the handshake; both ends compute the session from it.
    #[default]
    Session,
    /// The reference's two frames and nothing more: refuse, close, re-dial.
    Classic,
}

/// What a kernel is told once.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Our own public name.
    pub peer: PeerId,
    /// Which handshake to speak.
    pub generation: Generation,
    /// How long a stand-alone acknowledgement waits for company (03 C-17).
    pub ack_delay: Millis,
    /// Toward classic peers: when unacknowledged frames are sent again (03 C-19).
    pub ack_timeout: Millis,
    /// Toward classic peers, only if `max_retry_attempts` ≠ 0: unanswered retransmissions before giving up.
    pub ack_retries_max: u32,
    /// 0: the outbox is never given up (03 B-44). Otherwise a link that gave up ends the session.
    pub max_retry_attempts: u32,
    /// The longest frame we accept.
    pub frame_bytes_max: u64,
    /// Frames on their way to one peer, unacknowledged, before what comes next waits in the run queue; also
    /// what we offer to take (03 C-10).
    pub window_frames: u64,
    /// Bytes on their way to one peer, unacknowledged, before what comes next waits in the run queue.
    pub outbox_bytes_max: u64,
    /// Names that one peer may have introduced here at a time; what introduces more is refused.
    pub peer_names_max: u64,
    /// Remotes beyond which a stranger gets one only in the place of a peer with whom nothing is shared.
    pub peers_max: usize,
    /// Peers of whom only a handshake is remembered; beyond that the oldest are forgotten.
    pub strangers_max: usize,
    /// Relays given by the operator; none: those on record serve (03 A-37).
    pub relays: Vec<Hint>,
    /// How many relays are kept, and how many places a URL names.
    pub relay_limits: RelayLimits,
    /// The system subclusters the host wants: name and configuration, as JSON text (02 §10.4). A stored one without an
    /// entry here is removed at the start.
    pub system: BTreeMap<Arc<str>, Arc<str>>,
    /// Kernel services for which this process has code, with whether they are for system subclusters only. Known
    /// before anything queued is looked at.
    pub services: Vec<(Arc<str>, bool)>,
    /// Recount everything after every transaction (law L6); for tests.
    pub audit_every_transaction: bool,
}

impl KernelConfig {
    /// The defaults for the kernel named `peer`.
    pub fn new(peer: PeerId) -> Self {
        KernelConfig {
            peer,
            generation: Generation::Session,
            ack_delay: Millis(50),
            ack_timeout: Millis(10_000),
            ack_retries_max: 3,
            max_retry_attempts: 0,
            frame_bytes_max: 16 << 20,
            window_frames: 4096,
            outbox_bytes_max: 64 << 20,
            peer_names_max: 1_000_000,
            peers_max: 4096,
            strangers_max: 1024,
            relays: Vec::new(),
            relay_limits: RelayLimits::DEFAULT,
            system: BTreeMap::new(),
            services: Vec::new(),
            audit_every_transaction: cfg!(debug_assertions),
        }
    }
}

/// One kernel: its state and its rules.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) db: Db,
    pub(crate) config: KernelConfig,
    pub(crate) channels: remote::Channels,
    pub(crate) volatile: Volatile,
}

impl Kernel {
    /// Takes over the state in `db`. The first input must be [`Input::Booted`].
    pub fn new(db: Db, config: KernelConfig) -> Self {
        Kernel { db, config, channels: remote::Channels::default(), volatile: Volatile::default() }
    }

    /// Takes one fact and handles it to the end, and whatever work it makes possible.
    ///
    /// `now` may jump either way: deadlines read it, order never depends on it. Never fails and never
    /// panics: whoever sent a bad input is answered through the effects, and an internal fault rolls its
    /// transaction back and leaves a dead letter (law L7).
    pub fn step(&mut self, now: Millis, input: Input) -> Step {
        let mut step = Step::default();
        let out = &mut step;
        let reach = remote::Reach::of(&input);
        match input {
            Input::Booted => self.boot(now, out),
            Input::Requested { request, op } => self.requested(now, request, op, out),
            Input::RequestAbandoned { request } => self.abandoned(now, request, out),
            Input::VatStarted { vat, incarnation, result } => {
                self.vat_started(now, vat, incarnation, result, out);
            }
            Input::VatReplied { vat, incarnation, replies } => {
                self.vat_replied(now, vat, incarnation, &replies, out);
            }
            Input::VatDied { vat, incarnation, fault } => self.vat_died(now, vat, incarnation, &fault, out),
            Input::VatWoken { vat, incarnation } => self.vat_woken(vat, incarnation),
            Input::ServiceReplied { call, outcome } => self.service_replied(now, call, outcome, out),
            Input::Link { event, fresh } => {
                let Kernel { db, config, channels, .. } = self;
                remote::link_event(db, channels, config, now, event, fresh, out);
            }
            Input::Woke => self.woke("the machine was asleep", out),
            Input::TimeCame => {
                self.refresh_activity(now, out);
                remote::time_came(&mut self.db, &mut self.channels, &self.config, now, out);
            }
        }
        self.pump(now, out);
        remote::transmit(&mut self.db, &mut self.channels, &self.config, now, reach, out);
        step
    }

    /// Returns the net difference of all transactions since the last call: to be made durable before any effect
    /// of those steps is executed.
    pub fn take_changes(&mut self) -> ChangeSet {
        self.db.take_changes()
    }

    /// Returns when the kernel next wants [`Input::TimeCame`].
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.next_to_clean().is_some() {
            return Some(Millis(0)); // Clean-up goes on in slices, also while nothing else happens.
        }
        remote::next_deadline(&self.db, &self.channels)
    }

    /// The state, as of the last transaction.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The start of a life: what the dead process had half done is undone, the rest goes on.
    fn boot(&mut self, now: Millis, step: &mut Step) {
        let services = self.config.services.clone();
        let item = || "the services of this process".to_owned();
        let _ = transact(&mut self.db, &self.config, now, step, item, |turn| {
            for (name, system_only) in &services {
                if service::register(&mut turn.tx, name, *system_only, None)?.is_err() {
                    turn.log(LogLevel::Warn, format!("kernel service '{name}' is given twice"));
                }
            }
            Ok(())
        });
        let waiting = self.db.iter::<Holds>().filter(|((_, kind), _)| *kind == HoldKind::Waiting);
        for ((kref, kind), times) in waiting.map(|(key, times)| (*key, *times)).collect::<Vec<_>>() {
            let item = || format!("a dead process's hold of {kref}");
            let _ = transact(&mut self.db, &self.config, now, step, item, |turn| {
                (0..times.max(1)).try_for_each(|_| promise::release_for_control(&mut turn.tx, kref, kind))
            });
        }
        let half = self.db.iter::<Subclusters>().filter(|(_, row)| row.launching).map(|(id, _)| *id);
        for subcluster in half.collect::<Vec<_>>() {
            self.remove_subcluster(now, subcluster, "the kernel stopped during the launch", step);
        }
        self.restore_system(now, step);
        remote::boot(&mut self.db, &mut self.channels, &self.config, now, step);
        self.note_start(now, step);
        let own = promise::decided_by(&Turn::begin(&mut self.db, &self.config, now).tx, Decider::Kernel);
        for kp in own {
            let item = || format!("a dead process's call with the result {kp}");
            let error = KernelError::delivery_failed("the kernel stopped during the call").to_capdata();
            let _ = transact(&mut self.db, &self.config, now, step, item, |turn| {
                promise::reject_as_decider(turn, kp, error)
            });
        }
        let stored = self.db.iter::<Vats>().filter(|(_, row)| row.phase != VatPhase::Terminated);
        for vat in stored.map(|(vat, _)| *vat).collect::<Vec<_>>() {
            // One that cannot even be asked to start has failed; the others run.
            let _ = self.restart(now, vat, step);
        }
    }

    /// Begins a new run of a vat; whatever was in flight waits for it. A vat that cannot be started has failed.
    pub(crate) fn restart(&mut self, now: Millis, vat: VatId, step: &mut Step) -> Result<(), String> {
        let item = || format!("restart of {vat}");
        let ordered = transact(&mut self.db, &self.config, now, step, item, |turn| vat::restart(turn, vat));
        self.volatile.ground(vat);
        if let Err(why) = &ordered {
            self.vat_failed(now, vat, why, step);
        }
        ordered
    }

    /// Forgets what was under way in a vat that has ended.
    fn forget_run(&mut self, vat: VatId) {
        self.volatile.ground(vat);
        self.volatile.deaths.remove(&vat);
    }

    fn is_current(&self, vat: VatId, incarnation: VatIncarnation) -> bool {
        self.db.get::<Vats>(&vat).is_some_and(|row| row.incarnation == incarnation)
    }

    fn vat_started(
        &mut self,
        now: Millis,
        vat: VatId,
        incarnation: VatIncarnation,
        result: Result<VatStarted, String>,
        step: &mut Step,
    ) {
        let Some(row) = self.db.get::<Vats>(&vat).filter(|row| row.incarnation == incarnation) else {
            return;
        };
        let (subcluster, name) = (row.subcluster, row.name.clone());
        let launching = match row.phase {
            VatPhase::Launching => true,
            VatPhase::Starting => false,
            VatPhase::Running | VatPhase::Failed(_) | VatPhase::Terminated => return,
        };
        let item = || format!("start of {vat}");
        let outcome = result.and_then(|started| {
            let up = transact(&mut self.db, &self.config, now, step, item, |turn| {
                vat::came_up(turn, vat, &started)
            });
            up.and_then(|up| up).map(|()| started.root_methods)
        });
        match outcome {
            Ok(root_methods) => {
                self.volatile.ready.insert(vat);
                self.launched_vat(subcluster, vat, &root_methods);
                self.answer_restarts(vat, &Ok(Answer::Done), step);
            }
            Err(why) if launching => {
                let text = format!("Failed to launch vat {vat} ({name}): {why}");
                self.fail_launch(now, subcluster, Refusal::LaunchFailed(text), step);
            }
            Err(why) => self.vat_failed(now, vat, &why, step),
        }
    }

    fn vat_failed(&mut self, now: Millis, vat: VatId, why: &str, step: &mut Step) {
        let item = || format!("failure of {vat}");
        let _ = transact(&mut self.db, &self.config, now, step, item, |turn| vat::fail(turn, vat, why));
        self.forget_run(vat);
        let text = format!("{vat} could not be started: {why}");
        step.effects.push(Effect::Log { level: LogLevel::Warn, text });
        self.answer_restarts(vat, &Err(Refusal::VatNotRunning(why.to_owned())), step);
    }

    fn answer_restarts(&mut self, vat: VatId, answer: &Result<Answer, Refusal>, step: &mut Step) {
        for request in self.volatile.restarts.remove(&vat).unwrap_or_default() {
            step.effects.push(Effect::Answer { request, answer: answer.clone() });
        }
    }

    fn vat_replied(
        &mut self,
        now: Millis,
        vat: VatId,
        incarnation: VatIncarnation,
        replies: &[(DeliveryId, VatReply)],
        step: &mut Step,
    ) {
        if !self.is_current(vat, incarnation) {
            return;
        }
        for (id, reply) in replies {
            let Some(lane) = self.volatile.lanes.get_mut(&vat) else { return };
            let awaited = lane.flight.front().is_some_and(|f| f.id == *id && f.incarnation == incarnation);
            if !awaited {
                return;
            }
            if let Err(fault @ VatFault::WorkerDied(_)) = &reply.outcome {
                return self.vat_died(now, vat, incarnation, fault, step);
            }
            let Some(flight) = lane.flight.pop_front() else { return };
            let idle = lane.flight.is_empty();
            let item = || format!("answer of {vat} to {:?}", flight.work);
            let done = transact(&mut self.db, &self.config, now, step, item, |turn| {
                crank::complete(turn, vat, &flight, reply)
            });
            match done {
                Ok(Ending::GoesOn) => {
                    self.volatile.deaths.remove(&vat);
                    self.note_performed(vat, &flight.work);
                    // What this crank sent goes its way before what the next one settles is sent on (02 §4.4).
                    self.examine_queue(now, step);
                    if idle {
                        self.volatile.ready.insert(vat);
                    }
                }
                Ok(Ending::Terminated) => {
                    self.put_back(vat, &flight.work);
                    return self.ended(now, vat, "it has ended", step);
                }
                Err(_) => {
                    // The vat's memory is ahead of the store now: it starts again from what is stored.
                    self.discard(now, vat, &flight.work, step);
                    let _ = self.restart(now, vat, step);
                    return;
                }
            }
        }
    }

    /// Notes that a vat wants an asynchronous crank; one that does not run any more wants nothing.
    fn vat_woken(&mut self, vat: VatId, incarnation: VatIncarnation) {
        let runs = self.db.get::<Vats>(&vat).is_some_and(|row| row.phase == VatPhase::Running);
        if runs && self.is_current(vat, incarnation) {
            self.volatile.woken.insert(vat);
            self.volatile.ready.insert(vat);
        }
    }

    /// Looks again at the item of an undone crank, before everything that waited behind it.
    fn put_back(&mut self, vat: VatId, work: &Work) {
        if let Some(position) = work.position() {
            self.volatile.lanes.entry(vat).or_default().waiting.push_front(position);
            let lane = self.volatile.lanes.entry(vat).or_default();
            let flying: Vec<_> = lane.flight.drain(..).filter_map(|f| f.work.position()).collect();
            for (at, position) in flying.into_iter().enumerate() {
                lane.waiting.insert(at.saturating_add(1), position);
            }
        }
    }

    /// Tells everybody in this process who counted on a vat that has ended.
    pub(crate) fn ended(&mut self, now: Millis, vat: VatId, why: &str, step: &mut Step) {
        self.mourn(vat, step);
        self.fail_launch_of(now, vat, why, step);
    }

    /// Forgets the run of a vat that has ended; whoever waited for it to be up again waits in vain.
    pub(crate) fn mourn(&mut self, vat: VatId, step: &mut Step) {
        self.forget_run(vat);
        self.answer_restarts(vat, &Err(Refusal::VatNotFound(vat)), step);
    }

    /// A worker that dies is replaced once and the item tried again; the second death on one item, or any other
    /// fault, ends the vat (04 §7).
    fn vat_died(
        &mut self,
        now: Millis,
        vat: VatId,
        incarnation: VatIncarnation,
        fault: &VatFault,
        step: &mut Step,
    ) {
        let Some(row) = self.db.get::<Vats>(&vat).filter(|row| row.incarnation == incarnation) else {
            return;
        };
        match row.phase {
            VatPhase::Launching | VatPhase::Starting => {
                return self.vat_started(now, vat, incarnation, Err(fault.to_string()), step);
            }
            VatPhase::Failed(_) | VatPhase::Terminated => return,
            VatPhase::Running => {}
        }
        let front = self.volatile.lanes.get(&vat).and_then(|lane| lane.flight.front());
        let work = front.map(|flight| flight.work.clone());
        let position = work.as_ref().and_then(Work::position);
        let died_before = self.volatile.deaths.get(&vat) == Some(&position);
        if matches!(fault, VatFault::WorkerDied(_)) && !died_before {
            self.volatile.deaths.insert(vat, position);
            let _ = self.restart(now, vat, step);
            return;
        }
        let error = KernelError::internal_error(fault.to_string());
        let item = || format!("end of {vat}");
        let _ = transact(&mut self.db, &self.config, now, step, item, |turn| {
            crank::abort(turn, vat, work.as_ref(), error.to_capdata(), &error.to_string())
        });
        self.ended(now, vat, "it has ended", step);
    }
}
