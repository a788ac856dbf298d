//! One kernel with scripted vats: dispatches are executed at once unless a vat is held.

use capstan_kernel::audit::{Problem, audit};
use capstan_kernel::effect::{Dispatch, Effect, Step};
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal, VatConfig};
use capstan_kernel::input::{CallId, Input, RequestId};
use capstan_kernel::kernel::{Kernel, KernelConfig};
use capstan_kernel::system::SystemDamage;
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::error::KernelError;
use capstan_model::id::{KRef, ObjectId, SubclusterId, VatId};
use capstan_model::peer::{Millis, PeerId};
use capstan_model::refs::VRef;
use capstan_model::vat::{
    CodeFormat, DeliveryId, StoreChanges, VatCode, VatDelivery, VatFault, VatIncarnation, VatLimits,
    VatReply, VatStart, VatStarted, VatSyscall,
};
use capstan_store::overlay::{Db, Table, Tx};
use capstan_store::schema::{DeadLetters, Tables};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What a vat does with a delivery.
pub(crate) type Script = Box<dyn FnMut(&VatDelivery) -> VatReply>;

/// A launched subcluster.
#[derive(Clone, Debug)]
pub(crate) struct Launched {
    pub(crate) subcluster: SubclusterId,
    pub(crate) bootstrap_result: Option<CapData<KRef>>,
    pub(crate) vats: BTreeMap<String, (VatId, ObjectId)>,
}

impl Launched {
    pub(crate) fn vat(&self, name: &str) -> VatId {
        self.vats[name].0
    }
    pub(crate) fn root(&self, name: &str) -> ObjectId {
        self.vats[name].1
    }
}

/// A call of a kernel service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceCall {
    pub(crate) call: CallId,
    pub(crate) service: String,
    pub(crate) methargs: CapData<KRef>,
}

/// A kernel, its vats, and what came out.
pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) now: Millis,
    /// By the vat's name in its subcluster.
    pub(crate) scripts: BTreeMap<String, Script>,
    /// Vats by name whose start fails with this text.
    pub(crate) broken: BTreeMap<String, String>,
    /// What the root of each vat is said to offer.
    pub(crate) root_methods: Vec<String>,
    /// Every delivery in the order of execution.
    pub(crate) log: Vec<(String, VatDelivery)>,
    /// Every start order.
    pub(crate) starts: Vec<VatStart>,
    /// Every stop order.
    pub(crate) stops: Vec<(VatId, VatIncarnation)>,
    pub(crate) answers: BTreeMap<u64, Result<Answer, Refusal>>,
    /// Calls of kernel services, to be answered by the test.
    pub(crate) service_calls: VecDeque<ServiceCall>,
    /// Every log line.
    pub(crate) lines: Vec<String>,
    names: BTreeMap<VatId, String>,
    held: BTreeSet<String>,
    pending: VecDeque<Dispatch>,
    durable: Tables,
    requests: u64,
    /// The system subclusters that the next life is told of: name and configuration.
    pub(crate) system: BTreeMap<Arc<str>, Arc<str>>,
    /// What was said of the system subclusters before this life began.
    pub(crate) checked: Result<(), SystemDamage>,
    /// Dead letters are a failure unless this is set.
    pub(crate) letters_allowed: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::over(Db::default(), Tables::default())
    }

    fn over(db: Db, durable: Tables) -> Self {
        let mut config = KernelConfig::new(PeerId::new("12D3KooWtest"));
        config.audit_every_transaction = true;
        let mut world = World {
            kernel: Kernel::new(db, config),
            now: Millis(1000),
            scripts: BTreeMap::new(),
            broken: BTreeMap::new(),
            root_methods: vec!["bootstrap".into()],
            log: Vec::new(),
            starts: Vec::new(),
            stops: Vec::new(),
            answers: BTreeMap::new(),
            service_calls: VecDeque::new(),
            lines: Vec::new(),
            names: BTreeMap::new(),
            held: BTreeSet::new(),
            pending: VecDeque::new(),
            durable,
            requests: 0,
            system: BTreeMap::new(),
            checked: Ok(()),
            letters_allowed: false,
        };
        world.input(Input::Booted);
        world
    }

    /// The process dies and comes back on what was durable; scripts stay.
    pub(crate) fn reboot(self) -> Self {
        self.reboot_with(true, |_| {})
    }

    /// The same, with code for these kernel services from the start.
    pub(crate) fn reboot_serving(self, services: &[&str]) -> Self {
        let services = services.iter().map(|name| ((*name).into(), false)).collect();
        self.reboot_configured(true, services, |_| {})
    }

    /// The same on rows that were damaged meanwhile; the recount after every transaction would then find only that.
    pub(crate) fn reboot_damaged(self, damage: impl Fn(&mut Tx<'_>)) -> Self {
        self.reboot_with(false, damage)
    }

    /// The process dies and comes back, without the recount after every transaction.
    pub(crate) fn reboot_unaudited(self) -> Self {
        let mut world = self.reboot_with(false, |_| {});
        world.letters_allowed = false;
        world
    }

    /// Without the recount after every transaction, which takes long where there is much.
    pub(crate) fn unaudited() -> Self {
        let mut world = Self::new().reboot_with(false, |_| {});
        world.letters_allowed = false;
        world
    }

    /// The same on rows that were changed in a way that the recount must find sound.
    pub(crate) fn reboot_changed(self, change: impl Fn(&mut Tx<'_>)) -> Self {
        self.reboot_with(true, change)
    }

    /// What an audit says of the durable rows after they were damaged.
    pub(crate) fn damaged(&self, damage: impl Fn(&mut Tx<'_>)) -> Vec<Problem> {
        let mut db = Db::default();
        copy_rows(&self.durable, &mut db);
        let mut tx = db.begin();
        damage(&mut tx);
        tx.commit();
        let mut tables = Tables::default();
        tables.apply(&db.take_changes());
        tables.rebuild_mirrors();
        audit(&tables)
    }

    fn reboot_with(self, sound: bool, damage: impl Fn(&mut Tx<'_>)) -> Self {
        self.reboot_configured(sound, Vec::new(), damage)
    }

    fn reboot_configured(
        self,
        sound: bool,
        services: Vec<(Arc<str>, bool)>,
        damage: impl Fn(&mut Tx<'_>),
    ) -> Self {
        let mut old = self;
        let copy = |tables: &Tables| {
            let mut fresh = Db::default();
            copy_rows(tables, &mut fresh);
            let mut tx = fresh.begin();
            damage(&mut tx);
            tx.commit();
            let changes = fresh.take_changes();
            let mut tables = Tables::default();
            tables.apply(&changes);
            tables.rebuild_mirrors();
            tables
        };
        let (for_db, durable) = (copy(&old.durable), copy(&old.durable));
        let names = std::mem::take(&mut old.names);
        let scripts = std::mem::take(&mut old.scripts);
        let broken = std::mem::take(&mut old.broken);
        let mut config = KernelConfig::new(PeerId::new("12D3KooWtest"));
        config.audit_every_transaction = sound;
        config.system = old.system.clone();
        config.services = services;
        let mut world = World {
            kernel: Kernel::new(Db::load(for_db), config),
            letters_allowed: !sound,
            system: old.system,
            scripts,
            broken,
            names,
            durable,
            requests: old.requests,
            now: old.now,
            ..World::blank()
        };
        world.checked = world.kernel.check_system();
        world.input(Input::Booted);
        world.run();
        world
    }

    fn blank() -> Self {
        Self::over(Db::default(), Tables::default())
    }

    /// Feeds one input and takes in what comes out, without executing dispatches.
    pub(crate) fn input(&mut self, input: Input) {
        let Step { dispatches, effects } = self.kernel.step(self.now, input);
        self.durable.apply(&self.kernel.take_changes());
        self.pending.extend(dispatches);
        for effect in effects {
            match effect {
                Effect::Answer { request, answer } => {
                    let twice = self.answers.insert(request.0, answer);
                    assert!(twice.is_none(), "request {} was answered twice", request.0);
                }
                Effect::Log { text, .. } => self.lines.push(text),
                Effect::ServiceCall { call, service, methargs } => {
                    self.service_calls.push_back(ServiceCall {
                        call,
                        service: service.to_string(),
                        methargs,
                    });
                }
                Effect::Fetch { vat, request, .. } => {
                    self.lines.push(format!("{vat} fetches {}", request.url))
                }
                Effect::Look { vat, request, .. } => {
                    self.lines.push(format!("{vat} looks at {}", request.path))
                }
                Effect::Link(_) => {}
            }
        }
        if !self.letters_allowed {
            let letters: Vec<_> = self.kernel.db().iter::<DeadLetters>().collect();
            assert!(letters.is_empty(), "{letters:#?}");
        }
    }

    /// Executes dispatches, and what they lead to, until nothing but held vats has work.
    pub(crate) fn run(&mut self) {
        let mut kept = VecDeque::new();
        loop {
            while let Some(dispatch) = self.pending.pop_front() {
                if let Some(kept_back) = self.execute(dispatch) {
                    kept.push_back(kept_back);
                }
            }
            match self.kernel.next_deadline() {
                Some(deadline) if deadline <= self.now => self.input(Input::TimeCame),
                Some(_) | None => break,
            }
        }
        self.pending = kept;
    }

    /// Executes at most so many dispatches.
    pub(crate) fn run_some(&mut self, count: usize) {
        for _ in 0..count {
            let Some(dispatch) = self.pending.pop_front() else { return };
            let kept_back = self.execute(dispatch);
            assert!(kept_back.is_none(), "no vat is held");
        }
    }

    /// Executes the oldest dispatch alone.
    pub(crate) fn execute_one(&mut self) {
        if let Some(dispatch) = self.pending.pop_front()
            && let Some(kept) = self.execute(dispatch)
        {
            self.pending.push_back(kept);
        }
    }

    fn execute(&mut self, dispatch: Dispatch) -> Option<Dispatch> {
        match dispatch {
            Dispatch::Stop { vat, incarnation } => self.stops.push((vat, incarnation)),
            Dispatch::Start(start) => {
                let (vat, incarnation) = (start.vat, start.incarnation);
                let name = start.code.name.to_string();
                self.names.insert(vat, name.clone());
                self.starts.push(start);
                let result = match self.broken.get(&name) {
                    Some(text) => Err(text.clone()),
                    None => Ok(VatStarted {
                        syscalls: Vec::new(),
                        store: StoreChanges::default(),
                        root_methods: self.root_methods.clone(),
                    }),
                };
                self.input(Input::VatStarted { vat, incarnation, result });
            }
            Dispatch::Deliver { vat, .. } if self.held.contains(&self.names[&vat]) => return Some(dispatch),
            Dispatch::Deliver { vat, incarnation, batch } => {
                let started = |start: &VatStart| (start.vat, start.incarnation) == (vat, incarnation);
                assert!(self.starts.iter().any(started), "{vat} is delivered to before it was started");
                let replies = self.replies(vat, batch);
                self.input(Input::VatReplied { vat, incarnation, replies });
            }
        }
        None
    }

    fn replies(&mut self, vat: VatId, batch: Vec<(DeliveryId, VatDelivery)>) -> Vec<(DeliveryId, VatReply)> {
        let name = self.names[&vat].clone();
        let mut replies = Vec::new();
        for (id, delivery) in batch {
            self.log.push((name.clone(), delivery.clone()));
            let reply = match self.scripts.get_mut(&name) {
                Some(script) => script(&delivery),
                None => ok(vec![]),
            };
            let faulted = reply.outcome.is_err();
            replies.push((id, reply));
            if faulted {
                break;
            }
        }
        replies
    }

    /// What a vat began itself has come due, without running what it leads to.
    pub(crate) fn wake(&mut self, vat: VatId, incarnation: u64) {
        self.input(Input::VatWoken { vat, incarnation: VatIncarnation(incarnation) });
    }

    /// Keeps deliveries for this vat back.
    pub(crate) fn hold(&mut self, name: &str) {
        self.held.insert(name.to_owned());
    }

    /// Lets the vat answer again.
    pub(crate) fn release(&mut self, name: &str) {
        self.held.remove(name);
        self.run();
    }

    /// Forgets what is kept back for a vat, as when its worker died.
    pub(crate) fn lose(&mut self, name: &str) {
        let names = &self.names;
        self.pending.retain(|dispatch| match dispatch {
            Dispatch::Deliver { vat, .. } => names[vat] != name,
            Dispatch::Start(_) | Dispatch::Stop { .. } => true,
        });
        self.held.remove(name);
    }

    /// What is kept back for a vat.
    pub(crate) fn kept(&self, name: &str) -> Vec<(DeliveryId, VatDelivery)> {
        let own = self.pending.iter().filter_map(|dispatch| match dispatch {
            Dispatch::Deliver { vat, batch, .. } if self.names[vat] == name => Some(batch.clone()),
            Dispatch::Deliver { .. } | Dispatch::Start(_) | Dispatch::Stop { .. } => None,
        });
        own.flatten().collect()
    }

    pub(crate) fn script(&mut self, name: &str, script: impl FnMut(&VatDelivery) -> VatReply + 'static) {
        self.scripts.insert(name.to_owned(), Box::new(script));
    }

    /// Registers a kernel service and returns its object.
    pub(crate) fn serve(&mut self, name: &str) -> ObjectId {
        match self.request(HostOp::RegisterService { name: name.into(), system_only: false, holds: None }) {
            Ok(Answer::Object { object }) => object,
            other => panic!("{other:?}"),
        }
    }

    /// The oldest call of a kernel service that was not taken yet.
    pub(crate) fn service_call(&mut self) -> ServiceCall {
        self.service_calls.pop_front().expect("a call of a service")
    }

    /// Answers a call of a kernel service and runs what that leads to.
    pub(crate) fn reply(&mut self, call: &ServiceCall, outcome: Result<CapData<KRef>, &str>) {
        let outcome = outcome.map_err(str::to_owned);
        self.input(Input::ServiceReplied { call: call.call, outcome });
        self.run();
    }

    /// Makes a request without running what it leads to.
    pub(crate) fn ask(&mut self, op: HostOp) -> u64 {
        self.requests += 1;
        self.input(Input::Requested { request: RequestId(self.requests), op });
        self.requests
    }

    /// Makes a request, runs everything and returns the answer.
    pub(crate) fn request(&mut self, op: HostOp) -> Result<Answer, Refusal> {
        let request = self.ask(op);
        self.run();
        self.answers.get(&request).cloned().unwrap_or_else(|| panic!("request {request} is not answered"))
    }

    /// The configuration of a launch; the first is the bootstrap vat.
    pub(crate) fn config(names: &[&str]) -> LaunchConfig {
        match Self::launch_op(names) {
            HostOp::Launch(config) => config,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn launch_op(names: &[&str]) -> HostOp {
        let vat = |name: &&str| VatConfig {
            name: (**name).into(),
            code: VatCode { format: CodeFormat::Module, name: (**name).into(), text: (**name).into() },
            code_hash: format!("hash of {name}").into(),
            parameters: None,
            limits: VatLimits::default(),
            endowments: Default::default(),
        };
        HostOp::Launch(LaunchConfig {
            bootstrap: names[0].into(),
            bootstrap_optional: false,
            vats: names.iter().map(vat).collect(),
            services: Vec::new(),
            text: "{}".into(),
        })
    }

    /// Launches vats; the first is the bootstrap vat. Unscripted vats fulfil every call with `undefined`.
    pub(crate) fn launch(&mut self, names: &[&str]) -> Launched {
        for name in names {
            self.scripts.entry((*name).to_owned()).or_insert_with(|| Box::new(obliging));
        }
        self.launch_with(Self::launch_op(names))
    }

    /// Launches what is asked for.
    pub(crate) fn launch_with(&mut self, op: HostOp) -> Launched {
        match self.request(op) {
            Ok(Answer::Launched { subcluster, bootstrap_result, vats, .. }) => {
                self.log.clear();
                let vats = vats.into_iter().map(|(name, vat, root)| (name.to_string(), (vat, root)));
                Launched { subcluster, bootstrap_result, vats: vats.collect() }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Sends from the host without running what it leads to.
    pub(crate) fn send(&mut self, target: impl Into<KRef>, method: &str, slots: &[KRef]) -> u64 {
        self.ask(HostOp::Send { target: target.into(), methargs: call(method, slots) })
    }

    /// Sends, runs everything and returns how it settled.
    pub(crate) fn call(
        &mut self,
        target: impl Into<KRef>,
        method: &str,
        slots: &[KRef],
    ) -> (bool, CapData<KRef>) {
        let request = self.send(target, method, slots);
        self.run();
        self.settled(request)
    }

    pub(crate) fn settled(&self, request: u64) -> (bool, CapData<KRef>) {
        match self.answers.get(&request) {
            Some(Ok(Answer::Settled { rejected, value })) => (*rejected, value.clone()),
            other => panic!("{other:?}"),
        }
    }

    /// What the vat was delivered, oldest first.
    pub(crate) fn delivered(&self, name: &str) -> Vec<VatDelivery> {
        self.log.iter().filter(|(n, _)| n == name).map(|(_, delivery)| delivery.clone()).collect()
    }

    /// The methods the vat was called with, oldest first.
    pub(crate) fn methods(&self, name: &str) -> Vec<String> {
        self.delivered(name).iter().filter_map(method).collect()
    }

    pub(crate) fn rows<T: Table>(&self) -> usize {
        self.kernel.db().len::<T>()
    }
}

fn copy_rows(from: &Tables, to: &mut Db) {
    let whole = Db::load(Tables::default());
    drop(whole);
    let mut tx = to.begin();
    macro_rules! copy {
        ($($field:ident: $table:ident),* $(,)?) => {$(
            for (key, row) in from.$field.iter() {
                tx.put::<capstan_store::schema::$table>(key.clone(), row.clone());
            }
        )*};
    }
    copy!(
        meta: Meta, counters: Counters, objects: Objects, promises: Promises, clist: Clist,
        run_queue: RunQueue, promise_queue: PromiseQueue, gc_actions: GcActions, reaps: Reaps, vats: Vats,
        code: Code, vat_store: VatStore, subclusters: Subclusters, services: Services, remotes: Remotes,
        sessions: Sessions, outbox: Outbox, grants: Grants, pins: Pins, holds: Holds,
        dead_letters: DeadLetters, relays: Relays,
    );
    tx.commit();
}

/// A call with the given slots as arguments.
pub(crate) fn call(method: &str, slots: &[KRef]) -> CapData<KRef> {
    CapData {
        body: body(method, slots.iter().map(|slot| matches!(slot, KRef::Object(_)))),
        slots: slots.to_vec(),
    }
}

/// A call as a vat makes it.
pub(crate) fn vcall(method: &str, slots: &[VRef]) -> CapData<VRef> {
    CapData { body: body(method, slots.iter().map(|slot| slot.is_object())), slots: slots.to_vec() }
}

fn body(method: &str, objects: impl Iterator<Item = bool>) -> std::sync::Arc<str> {
    let args = objects.enumerate().map(|(i, object)| format!("\"{}{i}\"", if object { '$' } else { '&' }));
    format!("#[\"{method}\",[{}]]", args.collect::<Vec<_>>().join(",")).into()
}

/// A value that is one reference, in the kernel's names.
pub(crate) fn known(kref: impl Into<KRef>) -> CapData<KRef> {
    let kref = kref.into();
    let sigil = if kref.object().is_some() { '$' } else { '&' };
    CapData { body: format!("#\"{sigil}0\"").into(), slots: vec![kref] }
}

/// A value that is one reference.
pub(crate) fn reference(vref: VRef) -> CapData<VRef> {
    let sigil = if vref.is_object() { '$' } else { '&' };
    CapData { body: format!("#\"{sigil}0\"").into(), slots: vec![vref] }
}

/// The method of a message delivery.
pub(crate) fn method(delivery: &VatDelivery) -> Option<String> {
    match delivery {
        VatDelivery::Message { message, .. } => message.methargs.body.split('"').nth(1).map(str::to_owned),
        _ => None,
    }
}

/// The message of a delivery.
pub(crate) fn message(delivery: &VatDelivery) -> Option<&Message<VRef>> {
    match delivery {
        VatDelivery::Message { message, .. } => Some(message),
        _ => None,
    }
}

pub(crate) fn vref(text: &str) -> VRef {
    text.parse().expect("a vref")
}

/// An answer without fault.
pub(crate) fn ok(syscalls: Vec<VatSyscall>) -> VatReply {
    VatReply { syscalls, store: StoreChanges::default(), outcome: Ok(()) }
}

/// An answer with a fault.
pub(crate) fn fault(fault: VatFault) -> VatReply {
    VatReply { outcome: Err(fault), ..ok(vec![]) }
}

pub(crate) fn fulfil(promise: VRef, value: CapData<VRef>) -> VatSyscall {
    VatSyscall::Resolve(vec![Resolution { promise, rejected: false, value }])
}

pub(crate) fn reject(promise: VRef, text: &str) -> VatSyscall {
    let value = CapData::data(format!("#{{\"#error\":\"{text}\",\"name\":\"Error\"}}"));
    VatSyscall::Resolve(vec![Resolution { promise, rejected: true, value }])
}

pub(crate) fn send(target: &str, name: &str, slots: &[VRef], result: Option<&str>) -> VatSyscall {
    let message = Message { methargs: vcall(name, slots), result: result.map(vref) };
    VatSyscall::Send { target: vref(target), message }
}

/// Fulfils the result of a message, if it has one.
pub(crate) fn returns(delivery: &VatDelivery, value: CapData<VRef>) -> Vec<VatSyscall> {
    message(delivery)
        .and_then(|message| message.result)
        .map(|result| fulfil(result, value))
        .into_iter()
        .collect()
}

/// Fulfils every call with `undefined`.
pub(crate) fn obliging(delivery: &VatDelivery) -> VatReply {
    ok(returns(delivery, CapData::data("#\"#undefined\"")))
}

/// The code of a kernel error in a rejection.
pub(crate) fn code(value: &CapData<KRef>) -> String {
    let text = serde_json::from_str::<serde_json::Value>(value.body.trim_start_matches('#'));
    let message = text.ok().and_then(|v| v["#error"].as_str().map(str::to_owned)).unwrap_or_default();
    KernelError::parse(&message)
        .map_or_else(|| format!("no kernel error: {}", value.body), |e| e.code.to_string())
}
