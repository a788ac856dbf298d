//! What the core costs by itself, over tables in memory: no disk, no vat code, no threads.
//! `cargo bench -p capstan-kernel`
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

use capstan_kernel::effect::{Dispatch, Effect, Step};
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, VatConfig};
use capstan_kernel::input::{Input, RequestId};
use capstan_kernel::kernel::{Kernel, KernelConfig};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::id::{EndpointId, KRef, ObjectId, VatId};
use capstan_model::peer::{Millis, PeerId, Seq};
use capstan_model::refs::{ERef, VObject, VRef};
use capstan_model::vat::{
    CodeFormat, Endowments, StoreChanges, VatCode, VatDelivery, VatLimits, VatReply, VatStarted, VatSyscall,
};
use capstan_store::memory::MemoryStore;
use capstan_store::overlay::Db;
use capstan_store::schema::{
    Clist, ClistRow, Counters, GcActions, ObjectRow, Objects, Owner, RunQueue, Vats,
};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use std::collections::VecDeque;
use std::hint::black_box;

/// Objects that alice exports to bob, beside the roots.
const LIVE: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Objects that become garbage at once.
const GARBAGE: u64 = 100_000;
/// References in one message.
const SLOTS: u64 = 16;
/// The first object after those of the launch.
const FIRST: u64 = 100;

/// A kernel with the vats alice and bob, who answer at once.
struct World {
    kernel: Kernel,
    work: VecDeque<Dispatch>,
    answers: Vec<Answer>,
    requests: u64,
    alice: VatId,
    bob: VatId,
    root: ObjectId,
    /// What bob says once besides his next answer.
    remark: Vec<VatSyscall>,
}

fn config() -> KernelConfig {
    KernelConfig { audit_every_transaction: false, ..KernelConfig::new(PeerId::new("bench")) }
}

impl World {
    /// With so many objects exported by alice and imported by bob.
    fn with(objects: u64) -> World {
        let kernel = Kernel::new(Db::default(), config());
        let (work, answers, nobody) = (VecDeque::new(), Vec::new(), VatId(0));
        let remark = Vec::new();
        let mut world = World {
            kernel,
            work,
            answers,
            requests: 0,
            alice: nobody,
            bob: nobody,
            root: ObjectId(0),
            remark,
        };
        world.input(Input::Booted);
        let vat = |name: &str| VatConfig {
            name: name.into(),
            code: VatCode { format: CodeFormat::Module, name: name.into(), text: name.into() },
            code_hash: name.into(),
            parameters: None,
            limits: VatLimits::default(),
            endowments: Endowments::default(),
        };
        let launch = LaunchConfig {
            bootstrap: "alice".into(),
            bootstrap_optional: true,
            vats: vec![vat("alice"), vat("bob")],
            services: Vec::new(),
            text: "{}".into(),
        };
        let Answer::Launched { vats, .. } = world.ask(HostOp::Launch(launch)) else { panic!("no launch") };
        (world.alice, world.bob, world.root) = (vats[0].1, vats[1].1, vats[1].2);
        world.populate(objects);
        world
    }

    /// Adds the objects to what is stored, and starts again from that.
    fn populate(&mut self, objects: u64) {
        let mut store = MemoryStore::default();
        store.apply(&self.kernel.db().tables().snapshot()).unwrap();
        let mut db = Db::load(store.reload());
        let mut tx = db.begin();
        let mut entry = |vat: VatId, ko, eref: VObject| {
            let row = ClistRow { eref: ERef::Vat(VRef::Object(eref)), reachable: true, last_mention: Seq(0) };
            tx.put::<Clist>((EndpointId::Vat(vat), KRef::Object(ko)), row);
        };
        for number in FIRST..FIRST + objects {
            entry(self.alice, ObjectId(number), VObject::Ephemeral(number));
            entry(self.bob, ObjectId(number), VObject::Import(number));
        }
        let owner = Some(Owner::Endpoint(self.alice.into()));
        for number in FIRST..FIRST + objects {
            let row = ObjectRow { owner, reachable: 1, recognizable: 1, revoked: false };
            tx.put::<Objects>(ObjectId(number), row);
        }
        tx.put::<Counters>("object".into(), FIRST + objects);
        tx.update::<Vats, _>(&self.bob, |row| row.next_object = FIRST + objects);
        tx.commit();
        store.apply(&db.take_changes()).unwrap();
        self.kernel = Kernel::new(Db::load(store.reload()), config());
        self.input(Input::Booted);
        self.run();
    }

    fn input(&mut self, input: Input) {
        let Step { dispatches, effects } = self.kernel.step(Millis(1000), input);
        self.work.extend(dispatches);
        self.answers.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::Answer { answer, .. } => Some(answer.unwrap()),
            Effect::ServiceCall { .. }
            | Effect::Link(_)
            | Effect::Fetch { .. }
            | Effect::Look { .. }
            | Effect::Log { .. } => None,
        }));
    }

    /// Plays the vats until they have nothing to do.
    fn run(&mut self) {
        while let Some(dispatch) = self.work.pop_front() {
            match dispatch {
                Dispatch::Stop { .. } => {}
                Dispatch::Start(start) => {
                    let store = StoreChanges::default();
                    let result = Ok(VatStarted { syscalls: Vec::new(), store, root_methods: Vec::new() });
                    let (vat, incarnation) = (start.vat, start.incarnation);
                    self.input(Input::VatStarted { vat, incarnation, result });
                }
                Dispatch::Deliver { vat, incarnation, batch } => {
                    let mut replies = Vec::with_capacity(batch.len());
                    for (id, delivery) in batch {
                        let mut syscalls = answer(&delivery);
                        if vat == self.bob && !syscalls.is_empty() {
                            syscalls.append(&mut self.remark);
                        }
                        let store = StoreChanges::default();
                        replies.push((id, VatReply { syscalls, store, outcome: Ok(()) }));
                    }
                    self.input(Input::VatReplied { vat, incarnation, replies });
                }
            }
        }
    }

    fn ask(&mut self, op: HostOp) -> Answer {
        self.requests += 1;
        self.input(Input::Requested { request: RequestId(self.requests), op });
        self.run();
        black_box(self.kernel.take_changes());
        self.answers.pop().unwrap()
    }

    /// One call of bob: two transactions of the queue, one crank.
    fn call(&mut self, slots: u64) -> Answer {
        let args = (0..slots).map(|slot| format!("\"${slot}\"")).collect::<Vec<_>>().join(",");
        let slots = (FIRST..FIRST + slots).map(|number| KRef::Object(ObjectId(number))).collect();
        let methargs = CapData { body: format!("#[\"take\",[{args}]]").into(), slots };
        self.ask(HostOp::Send { target: self.root.into(), methargs })
    }
}

/// Fulfils every message with `undefined`.
fn answer(delivery: &VatDelivery) -> Vec<VatSyscall> {
    let VatDelivery::Message { message: Message { result: Some(promise), .. }, .. } = delivery else {
        return Vec::new();
    };
    let resolution =
        Resolution { promise: *promise, rejected: false, value: CapData::data("#\"#undefined\"") };
    vec![VatSyscall::Resolve(vec![resolution])]
}

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("a call among live objects");
    for live in LIVE {
        let mut world = World::with(live);
        group.bench_function(BenchmarkId::from_parameter(live), |b| b.iter(|| world.call(0)));
    }
    group.finish();
}

fn translation(c: &mut Criterion) {
    let mut world = World::with(LIVE[2]);
    c.bench_function("a call with 16 references", |b| b.iter(|| world.call(SLOTS)));
}

fn garbage(c: &mut Criterion) {
    let mut group = c.benchmark_group("garbage");
    group.sample_size(10);
    let with_garbage = || {
        let mut world = World::with(GARBAGE);
        let imports: Vec<_> =
            (FIRST..FIRST + GARBAGE).map(|number| VRef::Object(VObject::Import(number))).collect();
        world.remark = vec![VatSyscall::DropImports(imports.clone()), VatSyscall::RetireImports(imports)];
        world
    };
    group.bench_function("100000 objects are dropped, retired and collected", |b| {
        b.iter_batched(
            with_garbage,
            |mut world| {
                world.call(0);
                let db = world.kernel.db();
                assert!(db.len::<Objects>() < 10 && db.is_empty::<GcActions>() && db.is_empty::<RunQueue>());
                world
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, calls, translation, garbage);
criterion_main!(benches);
