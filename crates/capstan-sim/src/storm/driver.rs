//! The world under a storm: what the hosts ask and are told, and what befalls kernels and links.

use super::agent::{NO, OWN, agent, answer_parts, chosen};
use super::errand::{Body, Errand, Pick};
use super::plan::{Act, Loss, Plan, Who};
use super::watch::{Watch, Wrong};
use crate::passable::Passable;
use crate::world::Restart::{RestoreSnapshot, Wipe};
use crate::world::{Batching, CallId, KernelId, Outcome, Strike, World};
use capstan_kernel::audit::audit;
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal, VatConfig};
use capstan_kernel::input::RequestId;
use capstan_kernel::kernel::Generation;
use capstan_model::id::{KRef, ObjectId, VatId};
use capstan_model::peer::Millis;
use capstan_model::refs::VRef;
use capstan_model::smallcaps::Value;
use capstan_model::vat::{CodeFormat, VatCode, VatLimits};
use capstan_store::schema::{ClistByEref, DeadLetters, VatPhase, VatStore, Vats};
use capstan_wire::url::{OcapUrl, oid_from_secret};
use std::collections::{BTreeMap, BTreeSet};

/// Vats of a kernel at first.
const VATS: usize = 2;
/// How far every clock is ahead at first, so that it can be set back, milliseconds.
const AHEAD: i64 = 60_000;
const NAMES: [&str; 4] = ["ann", "bob", "cid", "dot"];
/// Longer than anything read stays without consequence, milliseconds.
const LONG: u64 = 300;
/// Every such seed recounts after every transaction rather than after every act.
const RECOUNTED: u64 = 16;

/// What a request to a kernel is for.
#[derive(Clone, Debug)]
enum Wish {
    /// A vat with that label.
    Launch(String),
    /// A URL for what has that label.
    Issue { url: String, label: String },
    /// What a URL stands for, to be passed to a vat.
    Redeem { label: String, vat: Pick },
    /// New vats for a kernel that forgot everything.
    Reset,
    /// Nothing more.
    Done,
}

/// A call of a host that is not settled yet.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) kernel: KernelId,
    pub(super) call: CallId,
    /// The name of the message.
    pub(super) id: String,
    /// The label of the vat it is for.
    to: String,
}

/// One storm under way.
pub(super) struct Storm {
    pub(super) world: World,
    pub(super) kernels: Vec<KernelId>,
    pub(super) watch: Watch,
    pub(super) plan: Plan,
    copies: Vec<(KernelId, Millis)>,
    urls: Vec<(String, String)>,
    /// What each host was given in the present life of its kernel, with labels.
    given: BTreeMap<KernelId, Vec<(KRef, String)>>,
    pub(super) calls: Vec<Asked>,
    /// The labels of vats that their hosts ended.
    terminated: BTreeSet<String>,
    wishes: Vec<(KernelId, u64, RequestId, Wish)>,
    backups: BTreeMap<KernelId, Vec<usize>>,
    logged: BTreeMap<KernelId, usize>,
    /// In which life each kernel was last looked at, and how many inputs it had taken.
    looked: BTreeMap<KernelId, (u64, u64)>,
    numbers: u64,
    /// Frames were lost on streams that go on.
    pub(super) spoilt: bool,
    /// A user closed a peer.
    pub(super) closed: bool,
}

impl Storm {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut world = World::seeded(plan.seed);
        world.set_batching(if plan.fine { Batching::EachInput } else { Batching::Seeded });
        world.read_journal();
        let mut storm = Storm {
            world,
            kernels: Vec::new(),
            watch: Watch::default(),
            plan: plan.clone(),
            copies: Vec::new(),
            urls: Vec::new(),
            given: BTreeMap::new(),
            calls: Vec::new(),
            terminated: BTreeSet::new(),
            wishes: Vec::new(),
            backups: BTreeMap::new(),
            logged: BTreeMap::new(),
            looked: BTreeMap::new(),
            numbers: 0,
            spoilt: false,
            closed: false,
        };
        for (name, classic) in NAMES.iter().zip(&plan.classic) {
            let kernel = storm.world.kernel_with(name, |config, options| {
                config.generation = if *classic { Generation::Classic } else { Generation::Session };
                config.window_frames = plan.window;
                config.outbox_bytes_max = plan.outbox_bytes.unwrap_or(config.outbox_bytes_max);
                config.audit_every_transaction = plan.seed.is_multiple_of(RECOUNTED);
                options.handshake_timeout = Millis(1_000);
            });
            let rows = storm.world.rows(kernel);
            storm.watch.begin(kernel, storm.world.peer(kernel), &rows);
            storm.world.jump(kernel, AHEAD, false);
            storm.kernels.push(kernel);
        }
        for kernel in storm.kernels.clone() {
            (0..VATS).for_each(|_| storm.open(kernel));
        }
        storm
    }

    pub(super) fn perform(&mut self, plan: &Plan) -> Result<(), Wrong> {
        // Vats, then their URLs.
        for _ in 0..2 {
            self.world.run_until_quiet();
            self.look()?;
        }
        self.world.run_until_quiet();
        for act in &plan.acts {
            self.act(act);
            self.look()?;
        }
        self.conclude()
    }

    fn who(&self, who: Who) -> KernelId {
        // A plan has kernels.
        self.kernels[usize::from(who) % self.kernels.len()]
    }

    /// Two kernels; the same twice only if there is one.
    fn two(&self, a: Who, b: Who) -> (KernelId, KernelId) {
        let (a, others) = (usize::from(a) % self.kernels.len(), self.kernels.len() - 1);
        let b = (a + 1 + usize::from(b).checked_rem(others).unwrap_or(0)) % self.kernels.len();
        (self.kernels[a], self.kernels[b])
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Call(who, vat, slots, body) => {
                let kernel = self.who(*who);
                let given = self.given(kernel);
                let slots = slots.iter().filter_map(|at| chosen(given.clone(), *at)).collect();
                self.call(kernel, *vat, slots, body);
            }
            Act::Redeem(who, url, vat) => self.redeem(self.who(*who), *url, *vat),
            Act::Issue(who, at) => self.issue(self.who(*who), *at),
            Act::Collect(who) => {
                let kernel = self.who(*who);
                self.given.remove(&kernel);
                self.wish(kernel, HostOp::Collect, Wish::Done);
            }
            Act::Pass(millis) => self.world.advance(u64::from(*millis)),
            Act::Kill(who) => self.world.kill(self.who(*who)),
            Act::Start(who) => self.start(self.who(*who)),
            Act::Restart(who) => {
                self.world.kill(self.who(*who));
                self.start(self.who(*who));
            }
            Act::Turn(who) => {
                let kernel = self.who(*who);
                self.world.kill(kernel);
                self.world.reconfigure(kernel, |config| {
                    config.generation = match config.generation {
                        Generation::Session => Generation::Classic,
                        Generation::Classic => Generation::Session,
                    };
                });
                self.start(kernel);
            }
            Act::Strike(who, ahead, after) => {
                let kernel = self.who(*who);
                let strike = if *after { Strike::AfterCommit } else { Strike::BeforeCommit };
                self.world.strike_at(kernel, self.world.commits(kernel) + u64::from(*ahead), strike);
            }
            Act::Cut(a, b) => {
                let (a, b) = self.two(*a, *b);
                self.world.cut(a, b);
            }
            Act::Heal => self.heal(),
            Act::Break(a, b) => {
                let (a, b) = self.two(*a, *b);
                self.world.drop_streams(a, b);
            }
            Act::Freeze(a, b) => {
                let (a, b) = self.two(*a, *b);
                self.world.freeze(a, b);
            }
            Act::Thaw => self.world.thaw(),
            Act::Spoil(a, b, how) => {
                let (a, b) = self.two(*a, *b);
                self.spoilt |= self.world.spoil(a, b, *how);
            }
            Act::Slow(who, millis) => self.world.slow_disk(self.who(*who), u64::from(*millis)),
            Act::Jump(who, millis, told) => {
                self.world.jump(self.who(*who), i64::from(*millis), *told);
            }
            Act::Relink(who) => self.world.restart_links(self.who(*who)),
            Act::Deafen(who, lost) => self.world.lose_verdicts(self.who(*who), u32::from(*lost)),
            Act::RestartVat(who, at) => {
                self.of_vat(self.who(*who), *at, HostOp::RestartVat);
            }
            Act::Terminate(who, at) => {
                let label = self.of_vat(self.who(*who), *at, HostOp::TerminateVat);
                self.terminated.extend(label);
            }
            Act::Lose(loss) => self.lose(*loss),
        }
    }

    /// What ends lives, sessions, peers.
    fn lose(&mut self, loss: Loss) {
        match loss {
            Loss::Wipe(who) => {
                let kernel = self.who(who);
                if !self.plan.all_session() {
                    // Nothing of a dead life may arrive after it.
                    self.world.kill(kernel);
                    self.world.flush(kernel);
                    self.world.advance(LONG);
                }
                self.replace(kernel, Wipe);
                self.open(kernel);
            }
            Loss::Reset(who) => {
                let kernel = self.who(who);
                self.watch.ended = true;
                self.given.remove(&kernel);
                let life = self.world.node_mut(kernel).fresh();
                self.wish(kernel, HostOp::Reset { life }, Wish::Reset);
            }
            Loss::Backup(who) => {
                let kernel = self.who(who);
                let backup = self.world.snapshot(kernel);
                self.backups.entry(kernel).or_default().push(backup);
            }
            Loss::Restore(who, at) => {
                let kernel = self.who(who);
                let backups = self.backups.get(&kernel).cloned().unwrap_or_default();
                if let Some(backup) = chosen(backups, at) {
                    self.replace(kernel, RestoreSnapshot(backup));
                }
            }
            Loss::Undo(who) => {
                let kernel = self.who(who);
                if let Some(backup) = self.backups.get(&kernel).and_then(|backups| backups.last()).copied() {
                    self.replace(kernel, RestoreSnapshot(backup));
                }
            }
            Loss::Copy(who, millis) => {
                let kernel = self.who(who);
                let rows = self.world.rows(kernel);
                let copy = self.world.copy(kernel);
                self.watch.copied(kernel, copy, &rows);
                let until = self.world.now().after(Millis(u64::from(millis)));
                self.copies.push((copy, until));
            }
            Loss::Close(a, b) => {
                self.closed = true;
                self.of_peer(a, b, HostOp::PeerClose);
            }
            Loss::Forget(a, b) => self.of_peer(a, b, HostOp::PeerForget),
            Loss::Reconnect(a, b) => {
                let (kernel, other) = self.two(a, b);
                self.reconnect(kernel, other);
            }
        }
    }

    fn of_peer(&mut self, a: Who, b: Who, op: fn(capstan_model::peer::PeerId) -> HostOp) {
        let (kernel, other) = self.two(a, b);
        self.watch.ended = true;
        let peer = self.world.peer(other);
        self.wish(kernel, op(peer), Wish::Done);
    }

    pub(super) fn reconnect(&mut self, kernel: KernelId, other: KernelId) {
        let peer = self.world.peer(other);
        self.wish(kernel, HostOp::PeerReconnect { peer, hints: Vec::new() }, Wish::Done);
    }

    /// Returns the vat's label, if there is one.
    fn of_vat(&mut self, kernel: KernelId, at: Pick, op: fn(VatId) -> HostOp) -> Option<String> {
        let (vat, _, label) = chosen(self.vats(kernel), at)?;
        self.watch.vats_ended = true;
        self.wish(kernel, op(vat), Wish::Done);
        Some(label)
    }

    fn replace(&mut self, kernel: KernelId, how: crate::world::Restart) {
        self.world.kill(kernel);
        self.world.spare(kernel);
        // What was durable to the last counts.
        let _ = self.look();
        self.world.swap_disk(kernel, how);
        let rows = self.world.rows(kernel);
        self.watch.replaced(kernel, &rows, how != Wipe);
        self.given.remove(&kernel);
        self.world.start(kernel);
    }

    pub(super) fn start(&mut self, kernel: KernelId) {
        if !self.world.is_up(kernel) {
            self.given.remove(&kernel);
            self.world.start(kernel);
        }
    }

    pub(super) fn heal(&mut self) {
        for (at, a) in self.kernels.iter().enumerate() {
            for b in self.kernels.iter().skip(at + 1) {
                self.world.heal(*a, *b);
            }
        }
    }

    pub(super) fn wish_done(&mut self, kernel: KernelId, op: HostOp) {
        self.wish(kernel, op, Wish::Done);
    }

    fn wish(&mut self, kernel: KernelId, op: HostOp, wish: Wish) {
        if self.world.is_up(kernel) {
            let life = self.world.node(kernel).life;
            let request = self.world.request(kernel, op);
            self.wishes.push((kernel, life, request, wish));
        }
    }

    /// The vats of a kernel that have a label, with their roots.
    pub(super) fn vats(&self, kernel: KernelId) -> Vec<(VatId, ObjectId, String)> {
        if !self.world.is_up(kernel) {
            return Vec::new();
        }
        let db = self.world.db(kernel);
        let alive = db.iter::<Vats>().filter(|(_, row)| row.phase != VatPhase::Terminated);
        let with_root = alive.filter_map(|(vat, _)| {
            let root = db.get::<ClistByEref>(&((*vat).into(), VRef::ROOT.into()))?.object()?;
            let label = db.get::<VatStore>(&(*vat, format!("{OWN}{}", VRef::ROOT).into()))?;
            Some((*vat, root, label.to_string()))
        });
        with_root.collect()
    }

    fn given(&self, kernel: KernelId) -> Vec<(KRef, String)> {
        let roots = self.vats(kernel).into_iter().map(|(_, root, label)| (root.into(), label));
        roots.chain(self.given.get(&kernel).cloned().unwrap_or_default()).collect()
    }

    /// Launches a vat; its label and its URL follow.
    pub(super) fn open(&mut self, kernel: KernelId) {
        self.numbers += 1;
        let label = format!("v{}", self.numbers);
        let name = agent().name;
        let vat = VatConfig {
            name: name.into(),
            code: VatCode { format: CodeFormat::Module, name: name.into(), text: name.into() },
            code_hash: name.into(),
            parameters: None,
            limits: VatLimits::default(),
            endowments: Default::default(),
        };
        let config = LaunchConfig {
            bootstrap: name.into(),
            bootstrap_optional: true,
            vats: vec![vat],
            services: Vec::new(),
            text: "{}".into(),
        };
        self.wish(kernel, HostOp::Launch(config), Wish::Launch(label));
    }

    fn issue(&mut self, kernel: KernelId, at: Pick) {
        let Some((KRef::Object(object), label)) = chosen(self.given(kernel), at) else { return };
        self.issue_for(kernel, object, label);
    }

    fn issue_for(&mut self, kernel: KernelId, object: ObjectId, label: String) {
        let secret = self.world.chance.bytes();
        let host = self.world.peer(kernel);
        let hints = vec![format!("sim/{host}").into()];
        let url = OcapUrl { oid: oid_from_secret(&secret), host, hints }.to_string();
        self.wish(kernel, HostOp::IssueUrl { object, secret }, Wish::Issue { url, label });
    }

    fn redeem(&mut self, kernel: KernelId, at: Pick, vat: Pick) {
        if let Some((url, label)) = chosen(self.urls.clone(), at) {
            let op = self.world.redemption(url);
            self.wish(kernel, op, Wish::Redeem { label, vat });
        }
    }

    /// The host calls one of the kernel's vats; returns the name of the message.
    pub(super) fn call(&mut self, kernel: KernelId, vat: Pick, slots: Vec<(KRef, String)>, body: &Body) {
        if let Some((_, root, to)) = chosen(self.vats(kernel), vat) {
            self.call_object(kernel, root.into(), to, slots, body);
        }
    }

    pub(super) fn call_object(
        &mut self,
        kernel: KernelId,
        target: KRef,
        to: String,
        slots: Vec<(KRef, String)>,
        body: &Body,
    ) {
        self.numbers += 1;
        let id = format!("h{}", self.numbers);
        let errand = Errand {
            id: id.clone(),
            from: format!("host {} {}", self.world.peer(kernel), self.world.node(kernel).life),
            number: self.numbers,
            way: target.to_string(),
            to: Some(to.clone()),
            labels: slots.iter().map(|(_, label)| label.clone()).collect(),
            body: body.clone(),
        };
        let args = errand.args(slots.into_iter().map(|(kref, _)| kref.value()));
        let call = self.world.start_call(kernel, target, "do", args);
        self.calls.push(Asked { kernel, call, id, to });
    }

    /// Judges all that happened since the last look, and goes on with what was answered.
    pub(super) fn look(&mut self) -> Result<(), Wrong> {
        let records = self.world.read_journal();
        self.watch.read(records, self.plan.calm)?;
        let now = self.world.now();
        for (copy, _) in self.copies.extract_if(.., |(_, until)| *until <= now) {
            self.world.kill(copy);
        }
        self.answers()?;
        self.outcomes()?;
        for at in 0..self.world.nodes.len() {
            self.look_at(KernelId(at))?;
        }
        Ok(())
    }

    /// Copies of a kernel have no future.
    pub(super) fn end_copies(&mut self) {
        for (copy, _) in std::mem::take(&mut self.copies) {
            self.world.kill(copy);
        }
    }

    /// Requests that were never answered by processes that live.
    pub(super) fn unanswered(&self) -> Option<String> {
        let open = self.wishes.iter().find(|(kernel, life, ..)| self.world.lives(*kernel, *life));
        open.map(|(kernel, _, request, wish)| {
            format!("{wish:?} of {}: {request:?}", self.world.peer(*kernel))
        })
    }

    fn answers(&mut self) -> Result<(), Wrong> {
        let mut open = Vec::new();
        for (kernel, life, request, wish) in std::mem::take(&mut self.wishes) {
            let lives = self.world.lives(kernel, life);
            match self.world.answers.remove(&request) {
                Some(answer) => self.answered(kernel, lives, wish, answer)?,
                None if lives => open.push((kernel, life, request, wish)),
                None => {}
            }
        }
        self.wishes.extend(open);
        Ok(())
    }

    fn answered(
        &mut self,
        kernel: KernelId,
        lives: bool,
        wish: Wish,
        answer: Result<Answer, Refusal>,
    ) -> Result<(), Wrong> {
        match (wish, answer) {
            (Wish::Launch(label), Ok(Answer::Launched { root, .. })) if lives => {
                let _be = self.world.start_call(kernel, root, "be", vec![label.as_str().value()]);
                self.issue_for(kernel, root, label);
            }
            (Wish::Issue { url, label }, Ok(Answer::Url { .. })) => self.urls.push((url, label)),
            (Wish::Redeem { label, vat }, Ok(Answer::Redeemed { object })) if lives => {
                self.given.entry(kernel).or_default().push((object.into(), label.clone()));
                self.call(kernel, vat, vec![(object.into(), label)], &Body::default());
            }
            (Wish::Reset, Ok(Answer::Done)) if lives => self.open(kernel),
            (_, Err(Refusal::Internal(why))) => return Err(format!("I17: {why}")),
            (Wish::Redeem { .. }, Err(Refusal::RedemptionTimeout(_))) => {}
            (Wish::Redeem { label, .. }, Err(why)) if !self.watch.ended && !self.watch.vats_ended => {
                return Err(format!("I7: the redemption of {label} was refused: {why}"));
            }
            (_, _) => {}
        }
        Ok(())
    }

    fn outcomes(&mut self) -> Result<(), Wrong> {
        for asked in std::mem::take(&mut self.calls) {
            let id = &asked.id;
            match self.world.outcome(asked.call) {
                None => self.calls.push(asked),
                Some(Outcome::Fulfilled(value)) => {
                    let about = answer_parts(&value).map(|(text, _)| text);
                    let about =
                        about.as_deref().map(|text| text.split_once('|').map_or(text, |(about, _)| about));
                    if about.is_some_and(|about| about != id) {
                        return Err(format!("I9: {id} was settled by the answer to {about:?}"));
                    }
                    // A vat that ended in the batch of its answer took with it, before it was durable, what it noted.
                    let noted = !self.terminated.contains(&asked.to);
                    if about.is_some() && noted && !self.watch.ended && !self.watch.was_executed(id) {
                        return Err(format!("I1: {id} was answered and not executed"));
                    }
                }
                Some(Outcome::Rejected(Value::Error { message, .. })) if message != NO => {
                    let lost = self.watch.may_be_lost(&message, self.plan.calm);
                    lost.map_err(|why| format!("{why}: {id} was rejected: {message}"))?;
                }
                // What the host was given before a collection is not its any more.
                Some(Outcome::Refused(why)) if why.starts_with("invalid reference") => {}
                Some(Outcome::Refused(why)) if !self.watch.ended && !self.watch.vats_ended => {
                    return Err(format!("I7: {id} was refused: {why}"));
                }
                Some(Outcome::Rejected(_) | Outcome::Refused(_) | Outcome::Died) => {}
            }
        }
        Ok(())
    }

    /// Recounts, and looks for what was set aside or complained of.
    fn look_at(&mut self, kernel: KernelId) -> Result<(), Wrong> {
        let name = self.world.node(kernel).name.clone();
        let log = self.world.log(kernel);
        let seen = self.logged.insert(kernel, log.len()).unwrap_or(0);
        let ignored = |line: &&String| line.contains("is ignored") || line.contains("could not be processed");
        if let Some(line) = log.iter().skip(seen).find(ignored) {
            return Err(format!("I17: {name} logs {line}"));
        }
        let regressed = log.iter().skip(seen).any(|line| line.contains("is an older backup"));
        if regressed && !self.watch.was_set_back(kernel) {
            return Err(format!("I7: {name} takes itself for an older backup, and was never set back"));
        }
        let node = self.world.node(kernel);
        let Some(process) = &node.process else { return Ok(()) };
        let moved = (node.life, node.turns);
        if self.looked.insert(kernel, moved) == Some(moved) {
            return Ok(());
        }
        let db = process.kernel.db();
        if let Some((_, letter)) = db.iter::<DeadLetters>().next() {
            return Err(format!("I17: {name} set aside {}: {}", letter.item, letter.reason));
        }
        match audit(db.tables()).first() {
            Some(problem) => Err(format!("I13: audit of {name}: {problem}")),
            None => Ok(()),
        }
    }
}
