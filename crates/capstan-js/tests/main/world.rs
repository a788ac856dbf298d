//! A tiny kernel for two or more vats: it routes sends, keeps promises, and nothing is durable.

use capstan_js::{Surroundings, VatEvent, Workers};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::id::VatId;
use capstan_model::refs::{Side, VObject, VRef};
use capstan_model::vat::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(crate) type Rows = Vec<(Arc<str>, Arc<str>)>;

/// One vat driven by hand.
pub(crate) struct Vat {
    pub(crate) id: VatId,
    workers: Workers,
    events: Receiver<VatEvent>,
    incarnation: VatIncarnation,
    pub(crate) logs: Vec<String>,
    pub(crate) rows: BTreeMap<Arc<str>, Arc<str>>,
    pub(crate) started: VatStarted,
    next: u64,
    woken: bool,
}

pub(crate) fn start_of(id: u32, source: &str, limits: VatLimits, store: Rows) -> VatStart {
    VatStart {
        vat: VatId(id),
        incarnation: VatIncarnation(1),
        code: VatCode { format: CodeFormat::Module, name: "vat.js".into(), text: source.into() },
        parameters: None,
        store,
        limits,
        endowments: Endowments::default(),
    }
}

impl Vat {
    pub(crate) fn try_start(start: VatStart) -> Result<Vat, String> {
        Vat::try_start_allowing(start, None)
    }

    /// On a host that lets vats ask for these globals only.
    pub(crate) fn try_start_allowing(start: VatStart, allowed: Option<Vec<Arc<str>>>) -> Result<Vat, String> {
        let (tx, events) = channel();
        let surroundings =
            Surroundings { allowed_globals: allowed.map(Into::into), ..Surroundings::default() };
        let workers = Workers::among(surroundings, 1, move |event| drop(tx.send(event)));
        let mut rows: BTreeMap<_, _> = start.store.iter().cloned().collect();
        let (id, incarnation) = (start.vat, start.incarnation);
        workers.start(start).unwrap();
        let mut logs = Vec::new();
        loop {
            match events.recv_timeout(Duration::from_secs(20)).unwrap() {
                VatEvent::Log { text, .. } => logs.push(text),
                VatEvent::Started { result, .. } => {
                    let started = result?;
                    apply(&mut rows, &started.store);
                    return Ok(Vat {
                        id,
                        workers,
                        events,
                        incarnation,
                        logs,
                        rows,
                        started,
                        next: 1,
                        woken: false,
                    });
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    pub(crate) fn start(source: &str) -> Vat {
        Vat::try_start(start_of(1, source, VatLimits::default(), Vec::new())).unwrap()
    }

    /// A vat that was given these globals.
    pub(crate) fn endowed(source: &str, globals: &[&str]) -> Vat {
        let mut start = start_of(1, source, VatLimits::default(), Vec::new());
        start.endowments.globals = globals.iter().map(|name| (*name).into()).collect();
        start.endowments.allowed_hosts = Some(Vec::new());
        Vat::try_start(start).unwrap()
    }

    /// Gives the vat the answer to a request, and wakes it.
    pub(crate) fn answered(&mut self, id: u64, outcome: capstan_model::fetch::FetchOutcome) -> VatReply {
        self.workers.fetched(self.id, self.incarnation, id, outcome);
        self.wake()
    }

    /// Gives the vat what was found of a file, and wakes it.
    pub(crate) fn looked(&mut self, id: u64, outcome: capstan_model::file::FileOutcome) -> VatReply {
        self.workers.looked(self.id, self.incarnation, id, outcome);
        self.wake()
    }

    /// Waits until the vat wants to be woken, and wakes it.
    pub(crate) fn wake(&mut self) -> VatReply {
        while !std::mem::take(&mut self.woken) {
            match self.events.recv_timeout(Duration::from_secs(20)).unwrap() {
                VatEvent::Woken { .. } => self.woken = true,
                VatEvent::Log { text, .. } => self.logs.push(text),
                other => panic!("unexpected {other:?}"),
            }
        }
        self.deliver(VatDelivery::Wake)
    }

    /// Whether the vat says within the time that it wants to be woken.
    pub(crate) fn rings_within(&mut self, time: Duration) -> bool {
        self.woken |= matches!(self.events.recv_timeout(time), Ok(VatEvent::Woken { .. }));
        self.woken
    }

    pub(crate) fn deliver(&mut self, delivery: VatDelivery) -> VatReply {
        let id = DeliveryId(self.next);
        self.next += 1;
        self.workers.deliver(self.id, self.incarnation, vec![(id, delivery)]).unwrap();
        loop {
            match self.events.recv_timeout(Duration::from_secs(20)).unwrap() {
                VatEvent::Log { text, .. } => self.logs.push(text),
                VatEvent::Woken { .. } => self.woken = true,
                VatEvent::Replied { replies, .. } => {
                    assert_eq!(replies.len(), 1);
                    let (got, reply) = replies.into_iter().next().unwrap();
                    assert_eq!(got, id);
                    apply(&mut self.rows, &reply.store);
                    return reply;
                }
                VatEvent::Died { fault, .. } => {
                    return VatReply {
                        syscalls: vec![],
                        store: StoreChanges::default(),
                        outcome: Err(fault),
                    };
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Calls the root; returns the reply.
    pub(crate) fn call(&mut self, methargs: &str, slots: &[&str]) -> VatReply {
        self.next += 1;
        let result = Some(VRef::Promise(Side::Import, self.next));
        self.deliver(VatDelivery::Message {
            target: VRef::ROOT,
            message: Message { methargs: cap(methargs, slots), result },
        })
    }

    /// Calls the root and returns what the call's promise was resolved to, in the same crank.
    pub(crate) fn answer(&mut self, methargs: &str, slots: &[&str]) -> (bool, String, Vec<String>) {
        let result = VRef::Promise(Side::Import, self.next + 1);
        let reply = self.call(methargs, slots);
        assert_eq!(reply.outcome, Ok(()));
        for syscall in &reply.syscalls {
            if let VatSyscall::Resolve(batch) = syscall
                && let Some(r) = batch.iter().find(|r| r.promise == result)
            {
                return (
                    r.rejected,
                    r.value.body.to_string(),
                    r.value.slots.iter().map(ToString::to_string).collect(),
                );
            }
        }
        panic!("no answer in {reply:?}");
    }

    pub(crate) fn rows(&self) -> Rows {
        self.rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

fn apply(rows: &mut BTreeMap<Arc<str>, Arc<str>>, changes: &StoreChanges) {
    rows.extend(changes.sets.iter().cloned());
    for key in &changes.deletes {
        rows.remove(key);
    }
}

pub(crate) fn cap(body: &str, slots: &[&str]) -> CapData<VRef> {
    CapData { body: body.into(), slots: slots.iter().map(|s| s.parse().unwrap()).collect() }
}

type Key = u64;
type Parked = (CapData<(bool, Key)>, Option<Key>);
enum State {
    Open { queue: Vec<Parked>, subscribers: Vec<usize> },
    Settled(bool, CapData<(bool, Key)>),
}

/// Work in kernel terms; it is translated when it is delivered.
enum Item {
    Send(Key, CapData<(bool, Key)>, Option<Key>),
    Notify(usize, Key),
}

/// Several vats on shared workers and a router between them. A kernel name is (is object, number).
pub(crate) struct World {
    workers: Workers,
    events: Receiver<VatEvent>,
    pub(crate) logs: Vec<String>,
    owners: Vec<(usize, VRef)>,
    promises: Vec<State>,
    clists: Vec<BTreeMap<VRef, (bool, Key)>>,
    queue: VecDeque<Item>,
    imports: u64,
}

impl World {
    /// Starts one vat per source; returns the world and the roots.
    pub(crate) fn new(sources: &[&str]) -> World {
        let (tx, events) = channel();
        let workers = Workers::new(2, move |event| drop(tx.send(event)));
        let count = sources.len();
        for (i, source) in sources.iter().enumerate() {
            workers.start(start_of(i as u32, source, VatLimits::default(), Vec::new())).unwrap();
        }
        let mut world = World {
            workers,
            events,
            logs: vec![],
            owners: (0..count).map(|i| (i, VRef::ROOT)).collect(),
            promises: vec![],
            clists: (0..count).map(|i| BTreeMap::from([(VRef::ROOT, (true, i as Key))])).collect(),
            queue: VecDeque::new(),
            imports: 100,
        };
        for _ in 0..count {
            loop {
                match world.events.recv_timeout(Duration::from_secs(20)).unwrap() {
                    VatEvent::Started { result, .. } => break drop(result.unwrap()),
                    VatEvent::Log { text, .. } => world.logs.push(text),
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
        world
    }

    /// Calls `method` of vat 0's root with the other roots as arguments, runs until quiet, returns the outcome.
    pub(crate) fn bootstrap(&mut self, method: &str) -> (bool, String) {
        let args: Vec<String> =
            (1..self.clists.len()).map(|i| format!("\"${}.Alleged: root\"", i - 1)).collect();
        let slots = (1..self.clists.len()).map(|i| (true, i as Key)).collect();
        let methargs = CapData { body: format!("#[\"{method}\",[{}]]", args.join(",")).into(), slots };
        let answer = self.promise();
        self.send((true, 0), methargs, Some(answer));
        self.run();
        match &self.promises[answer as usize] {
            State::Settled(rejected, value) => (*rejected, value.body.to_string()),
            State::Open { .. } => panic!("no answer; log: {:?}", self.logs),
        }
    }

    fn promise(&mut self) -> Key {
        self.promises.push(State::Open { queue: vec![], subscribers: vec![] });
        self.promises.len() as Key - 1
    }

    fn send(&mut self, target: (bool, Key), methargs: CapData<(bool, Key)>, result: Option<Key>) {
        if target.0 {
            self.queue.push_back(Item::Send(target.1, methargs, result));
            return;
        }
        match &mut self.promises[target.1 as usize] {
            State::Open { queue, .. } => queue.push((methargs, result)),
            State::Settled(rejected, value) => {
                let (rejected, value) = (*rejected, value.clone());
                if !rejected && value.slots.len() == 1 && value.body.starts_with("#\"$0") {
                    self.send(value.slots[0], methargs, result);
                } else if let Some(result) = result {
                    let value = if rejected {
                        value
                    } else {
                        CapData::data("#{\"#error\":\"not an object\",\"name\":\"Error\"}")
                    };
                    let (promise, vats) = self.settle(result, true, value);
                    self.queue.extend(vats.into_iter().map(|vat| Item::Notify(vat, promise)));
                }
            }
        }
    }

    fn settle(&mut self, promise: Key, rejected: bool, value: CapData<(bool, Key)>) -> (Key, Vec<usize>) {
        let was = std::mem::replace(&mut self.promises[promise as usize], State::Settled(rejected, value));
        let State::Open { queue, subscribers } = was else { panic!("settled twice") };
        for (methargs, result) in queue {
            self.send((false, promise), methargs, result);
        }
        (promise, subscribers)
    }

    /// What tells a vat of a settled promise and of every settled one its value reaches; their names there are forgotten.
    fn notify(&mut self, vat: usize, promise: Key) -> Option<VatDelivery> {
        self.clists[vat].values().find(|known| **known == (false, promise))?;
        let mut batch = vec![promise];
        let mut resolutions = vec![];
        let mut at = 0;
        while let Some(promise) = batch.get(at).copied() {
            at += 1;
            let State::Settled(rejected, value) = &self.promises[promise as usize] else { panic!("open") };
            let (rejected, value) = (*rejected, value.clone());
            for &(object, key) in &value.slots {
                if !object
                    && !batch.contains(&key)
                    && matches!(self.promises[key as usize], State::Settled(..))
                {
                    batch.push(key);
                }
            }
            let promise = self.name_in(vat, (false, promise));
            resolutions.push(Resolution { promise, rejected, value: value.map(|k| self.name_in(vat, *k)) });
        }
        for resolution in &resolutions {
            self.clists[vat].remove(&resolution.promise);
        }
        Some(VatDelivery::Notify(resolutions))
    }

    fn name_in(&mut self, vat: usize, name: (bool, Key)) -> VRef {
        if let Some((vref, _)) = self.clists[vat].iter().find(|(_, known)| **known == name) {
            return *vref;
        }
        self.imports += 1;
        let vref = if name.0 {
            VRef::Object(VObject::Import(self.imports))
        } else {
            VRef::Promise(Side::Import, self.imports)
        };
        self.clists[vat].insert(vref, name);
        vref
    }

    fn name_from(&mut self, vat: usize, vref: VRef) -> (bool, Key) {
        if let Some(known) = self.clists[vat].get(&vref) {
            return *known;
        }
        assert_eq!(vref.side(), Side::Export, "vat {vat} was never given {vref}");
        let name = if vref.is_object() {
            self.owners.push((vat, vref));
            (true, self.owners.len() as Key - 1)
        } else {
            (false, self.promise())
        };
        self.clists[vat].insert(vref, name);
        name
    }

    fn run(&mut self) {
        let mut n = 0;
        while let Some(item) = self.queue.pop_front() {
            let (vat, delivery) = match item {
                Item::Send(target, methargs, result) => {
                    let (vat, target) = self.owners[target as usize];
                    let methargs = methargs.map(|k| self.name_in(vat, *k));
                    let result = result.map(|r| self.name_in(vat, (false, r)));
                    (vat, VatDelivery::Message { target, message: Message { methargs, result } })
                }
                Item::Notify(vat, promise) => match self.notify(vat, promise) {
                    Some(delivery) => (vat, delivery),
                    None => continue,
                },
            };
            n += 1;
            assert!(n < 10_000, "the conversation does not end");
            self.workers
                .deliver(VatId(vat as u32), VatIncarnation(1), vec![(DeliveryId(n), delivery)])
                .unwrap();
            let reply = loop {
                match self.events.recv_timeout(Duration::from_secs(20)).unwrap() {
                    VatEvent::Replied { replies, .. } => break replies.into_iter().next().unwrap().1,
                    VatEvent::Log { text, .. } => self.logs.push(text),
                    other => panic!("unexpected {other:?}"),
                }
            };
            assert_eq!(reply.outcome, Ok(()));
            for syscall in reply.syscalls {
                self.syscall(vat, syscall);
            }
        }
    }

    fn syscall(&mut self, vat: usize, syscall: VatSyscall) {
        match syscall {
            VatSyscall::Send { target, message } => {
                let target = self.name_from(vat, target);
                let methargs = message.methargs.map(|v| self.name_from(vat, *v));
                let result = message.result.map(|r| self.name_from(vat, r).1);
                self.send(target, methargs, result);
            }
            VatSyscall::Subscribe(vref) => {
                let (_, promise) = self.name_from(vat, vref);
                match &mut self.promises[promise as usize] {
                    State::Open { subscribers, .. } => {
                        assert!(!subscribers.contains(&vat), "subscribed twice");
                        subscribers.push(vat);
                    }
                    State::Settled(..) => self.queue.push_back(Item::Notify(vat, promise)),
                }
            }
            VatSyscall::Resolve(batch) => {
                let named: Vec<VRef> = batch.iter().map(|r| r.promise).collect();
                let translated: Vec<_> = batch
                    .into_iter()
                    .map(|r| {
                        (
                            self.name_from(vat, r.promise).1,
                            r.rejected,
                            r.value.map(|v| self.name_from(vat, *v)),
                        )
                    })
                    .collect();
                for vref in named {
                    self.clists[vat].remove(&vref);
                }
                // First all are settled, then the waiters are told, so that each hears of the whole group.
                let told: Vec<_> = translated
                    .into_iter()
                    .map(|(promise, rejected, value)| self.settle(promise, rejected, value))
                    .collect();
                for (promise, vats) in told {
                    self.queue.extend(vats.into_iter().map(|vat| Item::Notify(vat, promise)));
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}
