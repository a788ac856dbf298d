//! The order guarantees of 02 §4.4, over random interleavings of concurrent cranks.
//!
//! The cranks are played again, in the order in which they were kept, by a model that has one queue and no vats to wait
//! for. What each vat was delivered must be what the model gives it, one for one.

use capstan_kernel::effect::{Dispatch, Effect};
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, VatConfig};
use capstan_kernel::input::{Input, RequestId};
use capstan_kernel::kernel::{Kernel, KernelConfig};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::id::{KRef, VatId};
use capstan_model::peer::{Millis, PeerId};
use capstan_model::refs::{Side, VRef};
use capstan_model::vat::{
    CodeFormat, DeliveryId, StoreChanges, VatCode, VatDelivery, VatLimits, VatReply, VatStarted, VatSyscall,
};
use capstan_sim::chance::Chance;
use capstan_store::overlay::Db;
use capstan_store::schema::DeadLetters;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SEEDS: u64 = 150;
const STEPS: usize = 120;
const VATS: usize = 3;
/// Promises that each vat decides at the beginning.
const PROMISES: usize = 3;
/// Things by number: first the vats' roots, then the promises of the first vat, of the second, …
const THINGS: usize = VATS + VATS * PROMISES;

/// What a crank asks for.
#[derive(Clone, Copy, Debug)]
enum Output {
    /// A message to a thing.
    Send { to: usize, number: u64 },
    /// A promise is settled with a thing, or with nothing in particular.
    Settle { promise: usize, to: Option<usize> },
}

/// The same in the plainest way.
#[derive(Default)]
struct Model {
    settled: BTreeMap<usize, Option<usize>>,
    parked: BTreeMap<usize, Vec<u64>>,
    delivered: [Vec<u64>; VATS],
}

impl Model {
    fn crank(&mut self, outputs: &[Output]) {
        let mut queue = Vec::new();
        for output in outputs {
            match *output {
                Output::Send { to, number } => queue.push((to, number)),
                Output::Settle { promise, to } => {
                    self.settled.insert(promise, to);
                    let parked = self.parked.remove(&promise).unwrap_or_default();
                    queue.extend(parked.into_iter().map(|number| (promise, number)));
                }
            }
        }
        for (to, number) in queue {
            self.route(to, number);
        }
    }

    fn route(&mut self, to: usize, number: u64) {
        let (mut to, mut seen) = (to, BTreeSet::new());
        while to >= VATS {
            match self.settled.get(&to) {
                None => return self.parked.entry(to).or_default().push(number),
                Some(Some(next)) if seen.insert(to) => to = *next,
                Some(_) => return, // Settled with no object, or in a circle.
            }
        }
        self.delivered[to].push(number);
    }
}

#[derive(Default)]
struct Vat {
    inbox: VecDeque<(DeliveryId, VatDelivery)>,
    /// Its present names of things.
    names: BTreeMap<usize, VRef>,
    executed: Vec<u64>,
}

struct Run {
    kernel: Kernel,
    chance: Chance,
    vats: BTreeMap<VatId, Vat>,
    ids: Vec<VatId>,
    krefs: Vec<KRef>,
    answers: BTreeMap<u64, Answer>,
    requests: u64,
    numbers: u64,
    unsettled: BTreeSet<usize>,
    model: Model,
}

/// `#["method", [...]]` with the things as arguments; their numbers are in the method's name.
fn methargs<R: Copy>(method: &str, things: &[(usize, R)], is_object: impl Fn(usize) -> bool) -> CapData<R> {
    let at = |(at, (thing, _)): (usize, &(usize, R))| {
        format!("\"{}{at}\"", if is_object(*thing) { '$' } else { '&' })
    };
    let args: Vec<_> = things.iter().enumerate().map(at).collect();
    let numbers: Vec<_> = things.iter().map(|(thing, _)| thing.to_string()).collect();
    let body = format!("#[\"{method} {}\",[{}]]", numbers.join(" "), args.join(","));
    CapData { body: body.into(), slots: things.iter().map(|(_, name)| *name).collect() }
}

impl Run {
    fn new(seed: u64) -> Self {
        let config = KernelConfig {
            audit_every_transaction: false,
            ..KernelConfig::new(PeerId::new("12D3KooWorder"))
        };
        let mut run = Run {
            kernel: Kernel::new(Db::default(), config),
            chance: Chance::seeded(seed),
            vats: BTreeMap::new(),
            ids: Vec::new(),
            krefs: Vec::new(),
            answers: BTreeMap::new(),
            requests: 0,
            numbers: 0,
            unsettled: (VATS..THINGS).collect(),
            model: Model::default(),
        };
        run.input(Input::Booted);
        run.launch();
        run
    }

    fn input(&mut self, input: Input) {
        let step = self.kernel.step(Millis(1), input);
        for effect in step.effects {
            if let Effect::Answer { request, answer } = effect {
                self.answers.insert(request.0, answer.unwrap());
            }
        }
        for dispatch in step.dispatches {
            match dispatch {
                Dispatch::Start(start) => {
                    self.vats.insert(start.vat, Vat::default());
                    self.ids.push(start.vat);
                }
                Dispatch::Deliver { vat, batch, .. } => self.vats.get_mut(&vat).unwrap().inbox.extend(batch),
                other => panic!("{other:?}"),
            }
        }
        assert!(self.kernel.db().is_empty::<DeadLetters>());
    }

    fn request(&mut self, op: HostOp) -> u64 {
        self.requests += 1;
        self.input(Input::Requested { request: RequestId(self.requests), op });
        self.requests
    }

    /// Launches the vats and has each make its promises, which the host then holds.
    fn launch(&mut self) {
        let vat = |at: usize| VatConfig {
            name: format!("vat{at}").into(),
            code: VatCode { format: CodeFormat::Module, name: "order".into(), text: "order".into() },
            code_hash: "order".into(),
            parameters: None,
            limits: VatLimits::default(),
            endowments: Default::default(),
        };
        let launch = self.request(HostOp::Launch(LaunchConfig {
            bootstrap: "vat0".into(),
            bootstrap_optional: true,
            vats: (0..VATS).map(vat).collect(),
            services: Vec::new(),
            text: "{}".into(),
        }));
        for vat in self.ids.clone() {
            let started = VatStarted {
                syscalls: vec![],
                store: StoreChanges::default(),
                root_methods: vec!["started".into()],
            };
            let incarnation = capstan_model::vat::VatIncarnation(1);
            self.input(Input::VatStarted { vat, incarnation, result: Ok(started) });
        }
        let Some(Answer::Launched { vats, .. }) = self.answers.get(&launch).cloned() else { panic!() };
        self.krefs = vats.iter().map(|(.., root)| KRef::from(*root)).collect();
        for at in 0..VATS {
            let target = self.krefs[at];
            let request = self.request(HostOp::Send { target, methargs: CapData::data("#[\"make\",[]]") });
            let vat = self.ids[at];
            let (id, delivery) = self.vats.get_mut(&vat).unwrap().inbox.pop_front().unwrap();
            let VatDelivery::Message { message, .. } = delivery else { panic!() };
            let own: Vec<(usize, VRef)> = (0..PROMISES)
                .map(|number| (VATS + at * PROMISES + number, VRef::Promise(Side::Export, number as u64 + 1)))
                .collect();
            let value = methargs("made", &own, |_| false);
            self.vats.get_mut(&vat).unwrap().names.extend(own);
            let resolution = Resolution { promise: message.result.unwrap(), rejected: false, value };
            self.reply(vat, vec![(id, vec![VatSyscall::Resolve(vec![resolution])])]);
            let Some(Answer::Settled { value, .. }) = self.answers.get(&request) else { panic!() };
            let made = value.slots.clone();
            self.krefs.extend(made);
        }
    }

    fn reply(&mut self, vat: VatId, replies: Vec<(DeliveryId, Vec<VatSyscall>)>) {
        let reply = |syscalls| VatReply { syscalls, store: StoreChanges::default(), outcome: Ok(()) };
        let replies = replies.into_iter().map(|(id, syscalls)| (id, reply(syscalls))).collect();
        self.input(Input::VatReplied { vat, incarnation: capstan_model::vat::VatIncarnation(1), replies });
    }

    #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
    fn below(&mut self, bound: usize) -> usize {
        self.chance.below(bound as u64) as usize
    }

    /// The host calls a thing, with all things as arguments.
    fn host_sends(&mut self) {
        self.numbers += 1;
        let (to, number) = (self.below(THINGS), self.numbers);
        let things: Vec<_> = self.krefs.iter().copied().enumerate().collect();
        let methargs = methargs(&number.to_string(), &things, |thing| thing < VATS);
        self.model.crank(&[Output::Send { to, number }]);
        self.request(HostOp::Send { target: self.krefs[to], methargs });
    }

    /// A vat answers some of its deliveries in one go.
    fn vat_answers(&mut self) {
        let busy: Vec<_> =
            self.vats.iter().filter(|(_, vat)| !vat.inbox.is_empty()).map(|(id, _)| *id).collect();
        if busy.is_empty() {
            return;
        }
        let id = busy[self.below(busy.len())];
        let mut vat = self.vats.remove(&id).unwrap();
        let count = 1 + self.below(vat.inbox.len().min(4));
        let mut replies = Vec::new();
        for (delivery, what) in vat.inbox.drain(..count).collect::<Vec<_>>() {
            let syscalls = match &what {
                VatDelivery::Message { message, .. } => self.executes(&mut vat, id, message),
                _ => Vec::new(),
            };
            replies.push((delivery, syscalls));
        }
        self.vats.insert(id, vat);
        self.reply(id, replies);
    }

    fn executes(&mut self, vat: &mut Vat, id: VatId, message: &Message<VRef>) -> Vec<VatSyscall> {
        let method = message.methargs.body.split('"').nth(1).unwrap();
        let mut words = method.split(' ').map(|word| word.parse::<usize>().unwrap());
        vat.executed.push(words.next().unwrap() as u64);
        vat.names.extend(words.zip(message.methargs.slots.iter().copied()));
        let own = self.ids.iter().position(|other| *other == id).unwrap();
        let own: BTreeSet<usize> = (0..PROMISES).map(|number| VATS + own * PROMISES + number).collect();
        let (mut outputs, mut syscalls) = (Vec::new(), Vec::new());
        for _ in 0..self.below(4) {
            let known: Vec<(usize, VRef)> = vat.names.iter().map(|(thing, name)| (*thing, *name)).collect();
            let settleable: Vec<usize> =
                own.intersection(&self.unsettled).copied().filter(|p| vat.names.contains_key(p)).collect();
            if settleable.is_empty() || self.below(5) > 0 {
                self.numbers += 1;
                let ((to, target), number) = (known[self.below(known.len())], self.numbers);
                let methargs = methargs(&number.to_string(), &known, |thing| thing < VATS);
                syscalls.push(VatSyscall::Send { target, message: Message { methargs, result: None } });
                outputs.push(Output::Send { to, number });
            } else {
                let promise = settleable[self.below(settleable.len())];
                let to = (self.below(6) > 0).then(|| known[self.below(known.len())]);
                let value = match to {
                    Some((thing, name)) => {
                        let sigil = if thing < VATS { '$' } else { '&' };
                        CapData { body: format!("#\"{sigil}0\"").into(), slots: vec![name] }
                    }
                    None => CapData::data("#null"),
                };
                let resolution = Resolution { promise: vat.names[&promise], rejected: false, value };
                syscalls.push(VatSyscall::Resolve(vec![resolution]));
                outputs.push(Output::Settle { promise, to: to.map(|(thing, _)| thing) });
                self.unsettled.remove(&promise);
                vat.names.remove(&promise);
            }
        }
        self.model.crank(&outputs);
        syscalls
    }

    fn compare(&self, seed: u64) {
        for (at, id) in self.ids.iter().enumerate() {
            let executed = &self.vats[id].executed;
            let expected = &self.model.delivered[at];
            assert_eq!(executed[..], expected[..executed.len()], "seed {seed}, {id}");
        }
    }
}

#[test]
fn messages_are_delivered_in_the_order_that_one_queue_would_give() {
    for seed in 0..SEEDS {
        let mut run = Run::new(seed);
        for _ in 0..STEPS {
            if run.below(3) == 0 {
                run.host_sends();
            } else {
                run.vat_answers();
            }
            run.compare(seed);
        }
    }
}
