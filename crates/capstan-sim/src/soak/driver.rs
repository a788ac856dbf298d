//! The kernel under the workload: its disk, the batches on their way there, its vats, and everybody's account.

use super::act::{Act, Beginning, Body, Deed, Fault, Pick, Weather};
use super::actor::{Actor, Outcome};
use super::ledger::{Fact, Ledger, Sender, Way};
use crate::trace::Trace;
use capstan_kernel::effect::{Dispatch, Effect, LogLevel, Step};
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal, VatConfig};
use capstan_kernel::input::{Input, RequestId};
use capstan_kernel::kernel::{Kernel, KernelConfig};
use capstan_model::capdata::CapData;
use capstan_model::id::{GrantId, KRef, SubclusterId, VatId};
use capstan_model::peer::{Millis, PeerId};
use capstan_model::refs::VRef;
use capstan_model::vat::{
    CodeFormat, DeliveryId, StoreChanges, VatCode, VatFault, VatIncarnation, VatLimits, VatReply, VatStart,
    VatStarted,
};
use capstan_store::memory::MemoryStore;
use capstan_store::overlay::Db;
use capstan_store::schema::{ChangeSet, Clist, DeadLetters, Subclusters, VatPhase, VatStore, Vats};
use std::collections::{BTreeMap, VecDeque};

/// What was found wrong, in words.
pub(super) type Wrong = String;

/// What one step left to be made durable.
#[derive(Debug)]
struct Batch {
    changes: ChangeSet,
    effects: Vec<Effect>,
    /// Facts in the ledger once this is durable.
    facts: usize,
}

/// A request of the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    life: u64,
    pub(super) abandoned: bool,
    pub(super) answers: u32,
    message: Option<u64>,
}

/// One workload under way.
pub(super) struct Soak {
    pub(super) kernel: Kernel,
    pub(super) disk: MemoryStore,
    batches: VecDeque<Batch>,
    pub(super) life: u64,
    pub(super) actors: BTreeMap<VatId, Actor>,
    starts: Vec<VatStart>,
    /// Deliveries to runs that were replaced.
    stale: Vec<(VatId, VatIncarnation, DeliveryId)>,
    pub(super) requests: BTreeMap<u64, Request>,
    /// Everything the host was ever given.
    given: Vec<KRef>,
    grants: Vec<GrantId>,
    pub(super) ledger: Ledger,
    durable_facts: usize,
    /// Some run of a vat has ended.
    pub(super) stopped: bool,
    numbers: u64,
    bodies: BTreeMap<u64, Body>,
    now: Millis,
    pub(super) trace: Trace,
}

impl Soak {
    pub(super) fn new() -> Result<Self, Wrong> {
        let mut soak = Soak {
            kernel: Kernel::new(Db::default(), config()),
            disk: MemoryStore::default(),
            batches: VecDeque::new(),
            life: 1,
            actors: BTreeMap::new(),
            starts: Vec::new(),
            stale: Vec::new(),
            requests: BTreeMap::new(),
            given: Vec::new(),
            grants: Vec::new(),
            ledger: Ledger::default(),
            durable_facts: 0,
            stopped: false,
            numbers: 0,
            bodies: BTreeMap::new(),
            now: Millis(1000),
            trace: Trace::new(),
        };
        soak.input(Input::Booted)?;
        Ok(soak)
    }

    /// Feeds one input and takes in what comes out.
    fn input(&mut self, input: Input) -> Result<(), Wrong> {
        self.trace.say(self.now, format_args!("<- {input:?}"));
        let Step { dispatches, effects } = self.kernel.step(self.now, input);
        for dispatch in dispatches {
            self.trace.say(self.now, format_args!("-> {dispatch:?}"));
            self.dispatched(dispatch);
        }
        for effect in &effects {
            if let Effect::Log { level: LogLevel::Error, text } = effect {
                return Err(format!("the kernel logs {text:?}"));
            }
        }
        if let Some((_, letter)) = self.kernel.db().iter::<DeadLetters>().next() {
            return Err(format!("set aside {}: {}", letter.item, letter.reason));
        }
        let changes = self.kernel.take_changes();
        self.batches.push_back(Batch { changes, effects, facts: self.ledger.len() });
        Ok(())
    }

    fn dispatched(&mut self, dispatch: Dispatch) {
        match dispatch {
            Dispatch::Start(start) => {
                self.starts.retain(|other| other.vat != start.vat);
                self.starts.push(start);
            }
            Dispatch::Deliver { vat, incarnation, batch } => {
                let Some(actor) = self.actors.get_mut(&vat).filter(|actor| actor.incarnation == incarnation)
                else {
                    return;
                };
                let numbered = batch.into_iter().enumerate();
                actor.inbox.extend(numbered.map(|(at, (id, delivery))| (id, delivery, at == 0)));
            }
            Dispatch::Stop { vat, incarnation } => {
                self.stopped = true;
                self.starts.retain(|start| (start.vat, start.incarnation) != (vat, incarnation));
                if self.actors.get(&vat).is_some_and(|actor| actor.incarnation == incarnation)
                    && let Some(actor) = self.actors.remove(&vat)
                {
                    self.stale.extend(actor.inbox.into_iter().map(|(id, ..)| (vat, incarnation, id)));
                }
            }
        }
    }

    pub(super) fn act(&mut self, act: &Act) -> Result<(), Wrong> {
        match act {
            Act::Launch { vats, unsound, bootstrap } => self.launch(*vats, *unsound, bootstrap),
            Act::Call { target, slots, body } => self.call_given(*target, slots, body),
            Act::Answer { vat, count, fault } => {
                let busy = self.actors.iter().filter(|(_, actor)| !actor.inbox.is_empty());
                match chosen(busy.map(|(vat, _)| *vat).collect(), *vat) {
                    Some(vat) => self.answer(vat, usize::from(*count), *fault),
                    None => Ok(()),
                }
            }
            Act::Start(at, beginning) => match chosen((0..self.starts.len()).collect(), *at) {
                Some(at) => self.begin(at, beginning),
                None => Ok(()),
            },
            Act::Late(at) => {
                let Some((vat, incarnation, id)) = chosen(self.stale.clone(), *at) else { return Ok(()) };
                let reply = VatReply { syscalls: vec![], store: StoreChanges::default(), outcome: Ok(()) };
                self.input(Input::VatReplied { vat, incarnation, replies: vec![(id, reply)] })
            }
            Act::Die(at) => {
                let Some(vat) = chosen(self.actors.keys().copied().collect(), *at) else { return Ok(()) };
                let Some(actor) = self.actors.remove(&vat) else { return Ok(()) };
                let (incarnation, fault) = (actor.incarnation, VatFault::WorkerDied("struck".into()));
                self.input(Input::VatDied { vat, incarnation, fault })
            }
            Act::Restart(at) => self.of_vat(*at, HostOp::RestartVat),
            Act::Terminate(at) => self.of_vat(*at, HostOp::TerminateVat),
            Act::TerminateSubcluster(at) => {
                let all = self.kernel.db().iter::<Subclusters>().map(|(id, _)| *id).collect();
                match chosen::<SubclusterId>(all, *at) {
                    Some(id) => self.request(HostOp::TerminateSubcluster(id), None),
                    None => Ok(()),
                }
            }
            Act::Revoke(at) => {
                // Through the roots the workload is brought to its end: they stay.
                let given = self.given.iter().copied().filter(|kref| !self.is_root(*kref)).collect();
                chosen(given, *at).map_or(Ok(()), |kref| self.request(HostOp::Revoke(kref), None))
            }
            Act::Collect => self.request(HostOp::Collect, None),
            Act::Abandon(at) => self.abandon(*at),
            Act::Issue(at) => {
                let secret = [u8::try_from(self.grants.len() % 251).unwrap_or(0); 32];
                let secret = self.requests.len().to_le_bytes().into_iter().chain(secret).collect::<Vec<_>>();
                let mut bytes = [0; 32];
                bytes.iter_mut().zip(secret).for_each(|(to, from)| *to = from);
                match chosen(self.given.iter().filter_map(|kref| kref.object()).collect(), *at) {
                    Some(object) => self.request(HostOp::IssueUrl { object, secret: bytes }, None),
                    None => Ok(()),
                }
            }
            Act::Withdraw(at) => match chosen(self.grants.clone(), *at) {
                Some(grant) => self.request(HostOp::RevokeUrl(grant), None),
                None => Ok(()),
            },
            Act::Time => self.input(Input::TimeCame),
            Act::Sync(batches) => self.sync(usize::from(*batches)),
            Act::Crash => self.crash(),
        }
    }

    fn of_vat(&mut self, at: Pick, op: fn(VatId) -> HostOp) -> Result<(), Wrong> {
        let vats = self.kernel.db().iter::<Vats>().map(|(vat, _)| *vat).collect();
        chosen(vats, at).map_or(Ok(()), |vat| self.request(op(vat), None))
    }

    fn is_root(&self, kref: KRef) -> bool {
        let holders = self.kernel.db().iter::<Clist>().filter(|((_, of), _)| *of == kref);
        holders.map(|(_, row)| row.eref).any(|eref| eref == VRef::ROOT.into())
    }

    fn launch(&mut self, vats: u8, unsound: bool, bootstrap: &Body) -> Result<(), Wrong> {
        self.numbers += 1;
        self.bodies.insert(self.numbers, bootstrap.clone());
        let parameters = self.numbers.to_string();
        let vat = |at: u8| VatConfig {
            name: format!("vat{at}").into(),
            code: VatCode { format: CodeFormat::Module, name: "soak".into(), text: "soak".into() },
            code_hash: format!("soak{}", at % 2).into(),
            parameters: Some(parameters.as_str().into()),
            limits: VatLimits::default(),
            endowments: Default::default(),
        };
        let config = LaunchConfig {
            bootstrap: if unsound { "nobody" } else { "vat0" }.into(),
            bootstrap_optional: false,
            vats: (0..vats).map(vat).collect(),
            services: Vec::new(),
            text: "{}".into(),
        };
        self.request(HostOp::Launch(config), None)
    }

    pub(super) fn request(&mut self, op: HostOp, message: Option<u64>) -> Result<(), Wrong> {
        let id = self.requests.keys().next_back().map_or(1, |last| last + 1);
        self.requests.insert(id, Request { life: self.life, abandoned: false, answers: 0, message });
        self.input(Input::Requested { request: RequestId(id), op })
    }

    fn call_given(&mut self, target: Pick, slots: &[Pick], body: &Body) -> Result<(), Wrong> {
        let Some(target) = chosen(self.given.clone(), target) else { return Ok(()) };
        let slots = slots.iter().filter_map(|at| chosen(self.given.clone(), *at)).collect();
        self.call(target, slots, body)
    }

    pub(super) fn call(&mut self, target: KRef, slots: Vec<KRef>, body: &Body) -> Result<(), Wrong> {
        self.numbers += 1;
        let number = self.numbers;
        self.bodies.insert(number, body.clone());
        let sigil = |slot: &KRef| if slot.object().is_some() { '$' } else { '&' };
        let args: Vec<_> =
            slots.iter().enumerate().map(|(at, slot)| format!("\"{}{at}\"", sigil(slot))).collect();
        let methargs = CapData { body: format!("#[\"{number}\",[{}]]", args.join(",")).into(), slots };
        let way = target.promise().map_or(Way::Object, |kp| Way::Promise(Ok(kp)));
        self.ledger.note(Fact::Accepted { number, sender: Sender::Host, way })?;
        self.request(HostOp::Send { target, methargs }, Some(number))
    }

    fn abandon(&mut self, at: Pick) -> Result<(), Wrong> {
        let waiting = self
            .requests
            .iter()
            .filter(|(_, request)| request.life == self.life && request.answers == 0 && !request.abandoned);
        let Some(id) = chosen(waiting.map(|(id, _)| *id).collect(), at) else { return Ok(()) };
        if let Some(request) = self.requests.get_mut(&id) {
            request.abandoned = true;
        }
        self.input(Input::RequestAbandoned { request: RequestId(id) })
    }

    /// The host of vats reports a start.
    fn begin(&mut self, at: usize, beginning: &Beginning) -> Result<(), Wrong> {
        let start = self.starts.remove(at);
        let (vat, incarnation) = (start.vat, start.incarnation);
        let Beginning::Does(deeds) = beginning else {
            return self.input(Input::VatStarted { vat, incarnation, result: Err("struck".into()) });
        };
        let body = start.parameters.as_ref().and_then(|text| text.parse::<u64>().ok());
        let body = body.and_then(|number| self.bodies.get(&number)).cloned().unwrap_or_default();
        let mut actor = Actor::new(&start, body);
        let outcome = actor.begin(deeds, &mut self.numbers);
        self.actors.insert(vat, actor);
        let kept = !outcome.illegal && outcome.exit.is_none();
        self.account(vat, &outcome, kept)?;
        let Outcome { syscalls, store, .. } = outcome;
        let started = VatStarted { syscalls, store, root_methods: vec!["bootstrap".into()] };
        self.input(Input::VatStarted { vat, incarnation, result: Ok(started) })?;
        let lives = self.lives(vat, incarnation);
        if lives && !kept {
            return Err(format!("{vat} broke a rule at its start and runs"));
        }
        Ok(())
    }

    fn lives(&self, vat: VatId, incarnation: VatIncarnation) -> bool {
        let row = self.kernel.db().get::<Vats>(&vat);
        row.is_some_and(|row| row.incarnation == incarnation && row.phase == VatPhase::Running)
    }

    /// A vat answers its oldest deliveries in one go, the last one with a fault if so wished.
    pub(super) fn answer(&mut self, vat: VatId, count: usize, fault: Option<Fault>) -> Result<(), Wrong> {
        let Some(actor) = self.actors.get_mut(&vat) else { return Ok(()) };
        let incarnation = actor.incarnation;
        let count = count.min(actor.inbox.len());
        let mut replies = Vec::with_capacity(count);
        let mut outcomes = Vec::with_capacity(count);
        for at in 1..=count {
            let Some((id, delivery, first)) = actor.inbox.pop_front() else { break };
            let mut outcome = actor
                .take(&delivery, first, &self.bodies, &mut self.numbers)
                .map_err(|wrong| format!("{vat} was delivered {wrong}: {delivery:?}"))?;
            let fault = fault.filter(|_| at == count).map(|fault| match fault {
                Fault::Runtime => VatFault::Runtime("struck".into()),
                Fault::Limit => VatFault::Limit("struck".into()),
                Fault::Death => VatFault::WorkerDied("struck".into()),
            });
            let (syscalls, store) =
                (std::mem::take(&mut outcome.syscalls), std::mem::take(&mut outcome.store));
            outcomes.push((outcome, fault.clone()));
            replies.push((id, VatReply { syscalls, store, outcome: fault.map_or(Ok(()), Err) }));
        }
        let mut ends = false;
        for (outcome, fault) in &outcomes {
            let kept = fault.is_none() && !outcome.illegal && outcome.exit != Some(true);
            self.account(vat, outcome, kept)?;
            ends = !kept || outcome.exit.is_some();
            if ends {
                break;
            }
        }
        self.input(Input::VatReplied { vat, incarnation, replies })?;
        match (self.lives(vat, incarnation), ends) {
            (true, true) => Err(format!("{vat} should have ended")),
            (true, false) => self.store_agrees(vat),
            (false, _) => Ok(()),
        }
    }

    /// Enters what one crank did, if it is kept.
    fn account(&mut self, vat: VatId, outcome: &Outcome, kept: bool) -> Result<(), Wrong> {
        for sent in &outcome.sent {
            self.bodies.insert(sent.number, sent.body.clone());
        }
        if !kept {
            return Ok(());
        }
        if let Some(number) = outcome.executed {
            self.ledger.note(Fact::Executed { number, vat })?;
        }
        for sent in &outcome.sent {
            let way = match sent.target {
                object if object.is_object() => Way::Object,
                promise if outcome.settled.contains(&promise) => Way::Own,
                promise => Way::Promise(Err(promise)),
            };
            self.ledger.note(Fact::Accepted { number: sent.number, sender: Sender::Vat(vat), way })?;
        }
        match outcome.fulfilled.iter().find(|number| !self.ledger.is_executed(**number)) {
            Some(number) => Err(format!("the result of {number} was fulfilled, which was never executed")),
            None => Ok(()),
        }
    }

    /// The kernel's copy of the vat's store is the vat's.
    fn store_agrees(&self, vat: VatId) -> Result<(), Wrong> {
        let Some(actor) = self.actors.get(&vat) else { return Ok(()) };
        if !actor.inbox.is_empty() {
            return Ok(());
        }
        let rows = self.kernel.db().iter::<VatStore>().filter(|((of, _), _)| *of == vat);
        let rows: BTreeMap<_, _> = rows.map(|((_, key), value)| (key, value)).collect();
        if actor.store().iter().collect::<BTreeMap<_, _>>() != rows {
            return Err(format!("the store of {vat} is not what it wrote"));
        }
        Ok(())
    }

    /// Makes the oldest batches durable and releases what waited for them.
    pub(super) fn sync(&mut self, batches: usize) -> Result<(), Wrong> {
        for _ in 0..batches {
            let Some(batch) = self.batches.pop_front() else { return Ok(()) };
            // The memory store never refuses.
            let _ = self.disk.apply(&batch.changes);
            self.durable_facts = batch.facts;
            for effect in batch.effects {
                if let Effect::Answer { request, answer } = effect {
                    self.answered(request, answer)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn sync_all(&mut self) -> Result<(), Wrong> {
        self.sync(self.batches.len())
    }

    fn answered(&mut self, request: RequestId, answer: Result<Answer, Refusal>) -> Result<(), Wrong> {
        self.trace.say(self.now, format_args!("=> {request:?} {answer:?}"));
        let Some(asked) = self.requests.get_mut(&request.0) else {
            return Err(format!("an answer to {request:?}, which was never made"));
        };
        asked.answers += 1;
        if asked.answers > 1 || asked.life != self.life {
            return Err(format!("{request:?} was answered twice or in another life"));
        }
        match answer {
            Ok(Answer::Settled { rejected, value }) => {
                self.given.extend(&value.slots);
                let executed = asked.message.is_some_and(|number| self.ledger.is_executed(number));
                if !rejected && !executed {
                    return Err(format!("{request:?} was fulfilled and never executed"));
                }
            }
            Ok(Answer::Launched { vats, .. }) => {
                self.given.extend(vats.into_iter().map(|(_, _, root)| KRef::from(root)));
            }
            Ok(Answer::Url { grant, .. }) => self.grants.push(grant),
            Err(Refusal::Internal(why)) => return Err(format!("{request:?} failed: {why}")),
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    fn crash(&mut self) -> Result<(), Wrong> {
        self.trace.say(self.now, format_args!("!! crash, {} batches are lost", self.batches.len()));
        self.batches.clear();
        self.ledger.cut(self.durable_facts);
        self.actors.clear();
        self.starts.clear();
        self.stale.clear();
        self.life += 1;
        self.kernel = Kernel::new(Db::load(self.disk.reload()), config());
        self.input(Input::Booted)
    }

    /// Lets everybody answer until nothing is left to do.
    pub(super) fn settle_down(&mut self) -> Result<(), Wrong> {
        for _ in 0..100_000 {
            self.sync_all()?;
            if !self.starts.is_empty() {
                self.begin(0, &Beginning::Does(Vec::new()))?;
            } else if let Some((&vat, _)) = self.actors.iter().find(|(_, actor)| !actor.inbox.is_empty()) {
                self.answer(vat, usize::MAX, None)?;
            } else if self.kernel.next_deadline().is_some_and(|due| due <= self.now) {
                self.input(Input::TimeCame)?;
            } else {
                return Ok(());
            }
        }
        Err("the kernel does not come to rest".into())
    }

    /// Whether the host still waits for something in this life.
    pub(super) fn waits(&self) -> Option<u64> {
        let waiting =
            |request: &Request| request.life == self.life && request.answers == 0 && !request.abandoned;
        self.requests.iter().find(|(_, request)| waiting(request)).map(|(id, _)| *id)
    }
}

/// Says whether a workload was calm all along: then every message to an object must have been executed.
pub(super) fn is_calm(weather: Weather, acts: &[Act]) -> bool {
    weather == Weather::Calm && !acts.iter().any(|act| matches!(act, Act::Abandon(_)))
}

/// A call that lets every vat do one thing.
pub(super) fn errand(deed: Deed) -> Body {
    let answer = super::act::Reply::Now { rejected: false, value: super::act::Content::Plain };
    Body { deeds: vec![deed], answer }
}

fn config() -> KernelConfig {
    KernelConfig { audit_every_transaction: true, ..KernelConfig::new(PeerId::new("12D3KooWsoak")) }
}

fn chosen<T: Clone>(among: Vec<T>, at: Pick) -> Option<T> {
    let at = usize::try_from(at).unwrap_or(0).checked_rem(among.len())?;
    among.get(at).cloned()
}
