//! Kernels, link machines, pipes and a disk each: everything is delivered in order, deterministically.

use crate::effect::{Dispatch, Effect, Step};
use crate::host_op::{Answer, HostOp, LaunchConfig, Refusal, RemoteView, VatConfig};
use crate::input::{Input, RequestId};
use crate::kernel::{Generation, Kernel, KernelConfig};
use capstan_model::capdata::{CapData, Resolution};
use capstan_model::id::{KRef, ObjectId, VatId};
use capstan_model::peer::{ChannelId, Incarnation, Millis, PeerId};
use capstan_model::refs::VRef;
use capstan_model::vat::{
    CodeFormat, DeliveryId, StoreChanges, VatCode, VatDelivery, VatIncarnation, VatLimits, VatReply,
    VatStarted, VatSyscall,
};
use capstan_store::overlay::Db;
use capstan_store::schema::{ChangeSet, DeadLetters, Meta, Tables};
use capstan_wire::link::{Action, LinkFact, LinkOptions, Links};
use capstan_wire::seam::{LinkEvent, LinkOrder};
use capstan_wire::url::{OcapUrl, oid_from_secret};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What travels to a side on one channel, in order.
#[derive(Debug)]
enum Parcel {
    Up { dialed: bool, peer: PeerId },
    Text(Arc<str>),
    Down,
}

/// Whether a crash keeps the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Keep,
    Wipe,
}

/// How the vats of all kernels answer a call, by method.
fn obey(delivery: &VatDelivery, kept: &mut Vec<VRef>) -> Vec<VatSyscall> {
    let VatDelivery::Message { target, message } = delivery else { return Vec::new() };
    let Some(result) = message.result else { return Vec::new() };
    let method = message.methargs.body.split('"').nth(1).unwrap_or_default().to_owned();
    let fulfil = |promise: VRef, body: &str, slots: Vec<VRef>| {
        let value = CapData { body: body.into(), slots };
        VatSyscall::Resolve(vec![Resolution { promise, rejected: false, value }])
    };
    match method.as_str() {
        // Does not answer until `release`.
        "keep" => {
            kept.push(result);
            Vec::new()
        }
        "release" => {
            let mut all: Vec<_> = kept.drain(..).map(|kp| fulfil(kp, "#\"late\"", vec![])).collect();
            all.push(fulfil(result, "#\"released\"", vec![]));
            all
        }
        "self" => vec![fulfil(result, "#\"$0\"", vec![*target])],
        "fresh" => {
            vec![fulfil(result, "#\"$0\"", vec![VRef::Object(capstan_model::refs::VObject::Ephemeral(77))])]
        }
        // Calls its first argument and answers with what that answers.
        "relay" => {
            let inner = VRef::Promise(capstan_model::refs::Side::Export, 10_000 + number(result));
            let methargs = CapData::data("#[\"greet\",[]]");
            let message = capstan_model::capdata::Message { methargs, result: Some(inner) };
            vec![
                VatSyscall::Send { target: message_slot(delivery), message },
                VatSyscall::Subscribe(inner),
                fulfil(result, "#\"$0\"", vec![inner]),
            ]
        }
        other => vec![fulfil(result, &format!("#\"{other} done\""), vec![])],
    }
}

fn number(vref: VRef) -> u64 {
    match vref {
        VRef::Promise(_, number) => number,
        VRef::Object(_) => panic!("no promise"),
    }
}

fn message_slot(delivery: &VatDelivery) -> VRef {
    match delivery {
        VatDelivery::Message { message, .. } => message.methargs.slots[0],
        _ => panic!("no message"),
    }
}

pub(super) struct Side {
    pub(super) name: PeerId,
    pub(super) kernel: Kernel,
    links: Links,
    generation: Generation,
    disk: Vec<ChangeSet>,
    pipes: BTreeMap<ChannelId, VecDeque<Parcel>>,
    orders: VecDeque<LinkOrder>,
    dials: VecDeque<PeerId>,
    pub(super) answers: BTreeMap<u64, Result<Answer, Refusal>>,
    kept: Vec<VRef>,
    pub(super) delivered: Vec<VatDelivery>,
    pub(super) logs: Vec<String>,
    requests: u64,
    /// Every link event, for tests that look closer.
    pub(super) events: Vec<LinkEvent>,
    pub(super) up: bool,
}

pub(super) struct World {
    pub(super) sides: Vec<Side>,
    pub(super) now: Millis,
    next_channel: u64,
    lives: u64,
    secrets: u8,
    /// Nothing is carried between kernels.
    pub(super) severed: bool,
    pub(super) letters_allowed: bool,
}

fn config(name: &PeerId, generation: Generation) -> KernelConfig {
    let mut config = KernelConfig::new(name.clone());
    config.generation = generation;
    config.audit_every_transaction = true;
    config
}

impl World {
    pub(super) fn new(names: &[&str], generation: Generation) -> Self {
        let mut world = World {
            sides: Vec::new(),
            now: Millis(1_000),
            next_channel: 1,
            lives: 0,
            secrets: 0,
            severed: false,
            letters_allowed: false,
        };
        for name in names {
            let name = PeerId::new(*name);
            let kernel = world.fresh_kernel(&name, generation);
            let links = Links::new(name.clone(), LinkOptions::default());
            world.sides.push(Side {
                name,
                kernel,
                links,
                generation,
                disk: Vec::new(),
                pipes: BTreeMap::new(),
                orders: VecDeque::new(),
                dials: VecDeque::new(),
                answers: BTreeMap::new(),
                kept: Vec::new(),
                delivered: Vec::new(),
                logs: Vec::new(),
                requests: 0,
                events: Vec::new(),
                up: true,
            });
        }
        for side in 0..names.len() {
            world.input(side, Input::Booted);
        }
        world.run();
        world
    }

    fn fresh_life(&mut self) -> Incarnation {
        self.lives += 1;
        Incarnation::new(format!("life-{:04}", self.lives))
    }

    fn fresh_kernel(&mut self, name: &PeerId, generation: Generation) -> Kernel {
        let mut db = Db::default();
        let mut tx = db.begin();
        tx.put::<Meta>("incarnation".into(), self.fresh_life().as_str().into());
        tx.commit();
        Kernel::new(db, config(name, generation))
    }

    pub(super) fn input(&mut self, at: usize, input: Input) {
        let now = self.now;
        let side = &mut self.sides[at];
        let Step { dispatches, effects } = side.kernel.step(now, input);
        side.disk.push(side.kernel.take_changes());
        for effect in effects {
            match effect {
                Effect::Answer { request, answer } => {
                    assert!(side.answers.insert(request.0, answer).is_none(), "answered twice");
                }
                Effect::Link(order) => side.orders.push_back(order),
                Effect::Log { text, .. } => side.logs.push(text),
                Effect::ServiceCall { .. } => panic!("nobody registers a service here"),
                Effect::Fetch { .. } | Effect::Look { .. } => panic!("nobody fetches here"),
            }
        }
        if !self.letters_allowed {
            let letters: Vec<_> = side.kernel.db().iter::<DeadLetters>().collect();
            assert!(letters.is_empty(), "{}: {letters:#?}", side.name);
        }
        for dispatch in dispatches {
            self.dispatch(at, dispatch);
        }
    }

    fn dispatch(&mut self, at: usize, dispatch: Dispatch) {
        match dispatch {
            Dispatch::Stop { .. } => {}
            Dispatch::Start(start) => {
                let started = VatStarted {
                    syscalls: Vec::new(),
                    store: StoreChanges::default(),
                    root_methods: vec!["greet".into()],
                };
                let (vat, incarnation): (VatId, VatIncarnation) = (start.vat, start.incarnation);
                self.input(at, Input::VatStarted { vat, incarnation, result: Ok(started) });
            }
            Dispatch::Deliver { vat, incarnation, batch } => {
                let mut replies: Vec<(DeliveryId, VatReply)> = Vec::new();
                for (id, delivery) in batch {
                    let side = &mut self.sides[at];
                    let syscalls = obey(&delivery, &mut side.kept);
                    side.delivered.push(delivery);
                    let reply = VatReply { syscalls, store: StoreChanges::default(), outcome: Ok(()) };
                    replies.push((id, reply));
                }
                self.input(at, Input::VatReplied { vat, incarnation, replies });
            }
        }
    }

    pub(super) fn index(&self, peer: &PeerId) -> Option<usize> {
        self.sides.iter().position(|side| &side.name == peer)
    }

    fn execute(&mut self, at: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial { peer, .. } => self.sides[at].dials.push_back(peer),
                Action::Write { channel, texts, token } => {
                    for side in 0..self.sides.len() {
                        if side != at
                            && !self.severed
                            && let Some(pipe) = self.sides[side].pipes.get_mut(&channel)
                        {
                            pipe.extend(texts.iter().cloned().map(Parcel::Text));
                        }
                    }
                    if let Some(token) = token {
                        self.observe(at, LinkFact::Written { channel, token, outcome: Ok(()) });
                    }
                }
                Action::Close { channel, .. } => {
                    self.sides[at].pipes.remove(&channel);
                    for side in &mut self.sides {
                        if let Some(pipe) = side.pipes.get_mut(&channel) {
                            pipe.push_back(Parcel::Down);
                        }
                    }
                }
                Action::Report(event) => {
                    self.sides[at].events.push(event.clone());
                    let fresh = self.fresh_life();
                    self.input(at, Input::Link { event, fresh });
                }
            }
        }
    }

    fn observe(&mut self, at: usize, fact: LinkFact) {
        let actions = self.sides[at].links.observe(self.now, 1 << 62, fact);
        self.execute(at, actions);
    }

    /// Does one thing that can happen now; false: none.
    pub(super) fn turn(&mut self) -> bool {
        for at in 0..self.sides.len() {
            if let Some(order) = self.sides[at].orders.pop_front() {
                let actions = self.sides[at].links.order(self.now, 1 << 62, order);
                self.execute(at, actions);
                return true;
            }
        }
        for at in 0..self.sides.len() {
            if let Some(peer) = self.sides[at].dials.pop_front() {
                self.dial(at, peer);
                return true;
            }
            let ready = self.sides[at].pipes.iter().find(|(_, pipe)| !pipe.is_empty()).map(|(id, _)| *id);
            let Some(channel) = ready else { continue };
            let parcel = self.sides[at].pipes.get_mut(&channel).unwrap().pop_front().unwrap();
            match parcel {
                Parcel::Up { dialed, peer } => {
                    self.observe(at, LinkFact::ChannelUp { channel, peer, dialed, reference: true })
                }
                Parcel::Text(text) => self.observe(at, LinkFact::TextRead { channel, text }),
                Parcel::Down => {
                    self.sides[at].pipes.remove(&channel);
                    self.observe(at, LinkFact::ChannelDown { channel, reason: "far end".into() });
                }
            }
            return true;
        }
        // What the kernel puts off until there is no other work.
        let overdue = |side: &Side| side.up && side.kernel.next_deadline() == Some(Millis(0));
        let Some(at) = self.sides.iter().position(overdue) else { return false };
        self.input(at, Input::TimeCame);
        true
    }

    fn dial(&mut self, at: usize, peer: PeerId) {
        let far = self.index(&peer).filter(|far| self.sides[*far].up && !self.severed);
        let Some(far) = far else {
            return self.observe(at, LinkFact::DialFailed { peer, error: "nobody there".into() });
        };
        let channel = ChannelId(self.next_channel);
        self.next_channel += 1;
        let own = self.sides[at].name.clone();
        self.sides[far].pipes.insert(channel, [Parcel::Up { dialed: false, peer: own }].into());
        self.sides[at].pipes.insert(channel, [Parcel::Up { dialed: true, peer }].into());
    }

    /// Runs until nothing is left to do at this time.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            if !self.turn() {
                return;
            }
        }
        panic!(
            "it does not end: {:?}",
            self.sides.iter().map(|s| s.logs.last().cloned()).collect::<Vec<_>>()
        );
    }

    /// Lets time pass, with everything that it brings.
    pub(super) fn pass(&mut self, length: u64) {
        let end = Millis(self.now.0 + length);
        for _ in 0..10_000 {
            self.run();
            let mut next = end;
            for side in self.sides.iter().filter(|side| side.up) {
                let of_side = [side.kernel.next_deadline(), side.links.next_deadline()];
                next = of_side.into_iter().flatten().min().unwrap_or(end).min(next);
            }
            if next >= end {
                self.now = end;
                return self.tick();
            }
            self.now = self.now.max(next);
            self.tick();
        }
        panic!("time does not pass");
    }

    fn tick(&mut self) {
        for at in 0..self.sides.len() {
            if self.sides[at].up {
                self.input(at, Input::TimeCame);
                self.observe(at, LinkFact::Tick);
            }
        }
        self.run();
    }

    /// Cuts every channel; what was on its way is lost.
    pub(super) fn cut(&mut self) {
        for side in &mut self.sides {
            for pipe in side.pipes.values_mut() {
                // A dial is always answered.
                pipe.retain(|parcel| matches!(parcel, Parcel::Up { .. }));
                pipe.push_back(Parcel::Down);
            }
        }
    }

    /// The process dies; with it the memory and all that was on its way to or from it.
    pub(super) fn kill(&mut self, at: usize) {
        let channels: Vec<ChannelId> = self.sides[at].pipes.keys().copied().collect();
        for channel in channels {
            for side in &mut self.sides {
                if let Some(pipe) = side.pipes.get_mut(&channel) {
                    pipe.push_back(Parcel::Down);
                }
            }
        }
        let side = &mut self.sides[at];
        side.pipes.clear();
        side.orders.clear();
        side.dials.clear();
        side.kept.clear();
        side.up = false;
        side.links = Links::new(side.name.clone(), LinkOptions::default());
    }

    /// Starts the process again, on its disk up to `commits` batches.
    pub(super) fn start(&mut self, at: usize, disk: Disk, commits: Option<usize>) {
        let (name, generation) = (self.sides[at].name.clone(), self.sides[at].generation);
        let kernel = match disk {
            Disk::Wipe => {
                self.sides[at].disk.clear();
                self.fresh_kernel(&name, generation)
            }
            Disk::Keep => {
                let kept = commits.unwrap_or(self.sides[at].disk.len());
                self.sides[at].disk.truncate(kept);
                let mut tables = Tables::default();
                self.sides[at].disk.iter().for_each(|changes| tables.apply(changes));
                tables.rebuild_mirrors();
                Kernel::new(Db::load(tables), config(&name, generation))
            }
        };
        let side = &mut self.sides[at];
        side.kernel = kernel;
        side.up = true;
        self.input(at, Input::Booted);
    }

    pub(super) fn restart(&mut self, at: usize, disk: Disk) {
        self.kill(at);
        self.start(at, disk, None);
        self.run();
    }

    pub(super) fn commits(&self, at: usize) -> usize {
        self.sides[at].disk.len()
    }

    pub(super) fn order(&mut self, at: usize, order: LinkOrder) {
        self.sides[at].orders.push_back(order);
    }

    pub(super) fn speak(&mut self, at: usize, generation: Generation) {
        self.sides[at].generation = generation;
    }

    pub(super) fn ask(&mut self, at: usize, op: HostOp) -> u64 {
        self.sides[at].requests += 1;
        let request = self.sides[at].requests;
        self.input(at, Input::Requested { request: RequestId(request), op });
        request
    }

    pub(super) fn request(&mut self, at: usize, op: HostOp) -> Result<Answer, Refusal> {
        let request = self.ask(at, op);
        self.run();
        self.answer(at, request)
    }

    pub(super) fn answer(&self, at: usize, request: u64) -> Result<Answer, Refusal> {
        let answer = self.sides[at].answers.get(&request).cloned();
        answer.unwrap_or_else(|| panic!("request {request} is not answered; {:#?}", self.sides[at].logs))
    }

    /// Launches a vat and returns its root.
    pub(super) fn vat(&mut self, at: usize) -> ObjectId {
        let code = VatCode { format: CodeFormat::Module, name: "v".into(), text: "".into() };
        let vat = VatConfig {
            name: "v".into(),
            code,
            code_hash: "h".into(),
            parameters: None,
            limits: VatLimits::default(),
            endowments: Default::default(),
        };
        let launch = LaunchConfig {
            bootstrap: "v".into(),
            bootstrap_optional: true,
            vats: vec![vat],
            services: Vec::new(),
            text: "{}".into(),
        };
        match self.request(at, HostOp::Launch(launch)) {
            Ok(Answer::Launched { root, .. }) => root,
            other => panic!("{other:?}"),
        }
    }

    /// Issues a URL.
    pub(super) fn url(&mut self, at: usize, object: ObjectId) -> String {
        self.secrets += 1;
        let secret = [self.secrets; 32];
        match self.request(at, HostOp::IssueUrl { object, secret }) {
            Ok(Answer::Url { .. }) => {}
            other => panic!("{other:?}"),
        }
        let host = self.sides[at].name.clone();
        OcapUrl { oid: oid_from_secret(&secret), host, hints: vec!["/somewhere".into()] }.to_string()
    }

    pub(super) fn ask_redeem(&mut self, at: usize, url: &str) -> u64 {
        let reply_key = format!("key-{}", self.sides[at].requests + 1);
        self.ask(at, HostOp::RedeemUrl { url: url.into(), reply_key: reply_key.as_str().into() })
    }

    /// Redeems a URL and returns the object.
    pub(super) fn redeem(&mut self, at: usize, url: &str) -> ObjectId {
        let request = self.ask_redeem(at, url);
        self.pass(5_000);
        match self.answer(at, request) {
            Ok(Answer::Redeemed { object }) => object,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn send(&mut self, at: usize, target: impl Into<KRef>, method: &str, slots: &[KRef]) -> u64 {
        let args: Vec<String> = (0..slots.len()).map(|n| format!("\"${n}\"")).collect();
        let body = format!("#[\"{method}\",[{}]]", args.join(","));
        let methargs = CapData { body: body.into(), slots: slots.to_vec() };
        self.ask(at, HostOp::Send { target: target.into(), methargs })
    }

    /// Calls and returns whether it was rejected, and the body.
    pub(super) fn call(&mut self, at: usize, target: impl Into<KRef>, method: &str) -> (bool, String) {
        let request = self.send(at, target, method, &[]);
        self.pass(5_000);
        self.settled(at, request)
    }

    pub(super) fn settled(&self, at: usize, request: u64) -> (bool, String) {
        match self.answer(at, request) {
            Ok(Answer::Settled { rejected, value }) => (rejected, value.body.to_string()),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn db(&self, at: usize) -> &Db {
        self.sides[at].kernel.db()
    }

    pub(super) fn remote(&self, at: usize) -> RemoteView {
        let side = &self.sides[at];
        crate::remote::remotes(side.kernel.db(), &side.kernel.channels).into_iter().next().expect("a remote")
    }

    /// How many calls of this method the vats of the kernel took.
    pub(super) fn calls(&self, at: usize, method: &str) -> usize {
        let quoted = format!("[\"{method}\"");
        let is = |delivery: &&VatDelivery| match delivery {
            VatDelivery::Message { message, .. } => message.methargs.body.contains(&quoted),
            _ => false,
        };
        self.sides[at].delivered.iter().filter(is).count()
    }
}
