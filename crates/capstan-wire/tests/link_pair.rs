//! Two machines against each other through a lossy in-test pipe (r76).

use crate::link_bench::{classic, peer, session};
use capstan_model::peer::{ChannelId, Millis};
use capstan_wire::facts::Facts;
use capstan_wire::link::{Action, LinkFact, LinkOptions, Links};
use capstan_wire::seam::{LinkEvent, LinkOrder, Verdict};
use std::collections::{BTreeMap, VecDeque};

/// What travels to a side on one channel, in order.
enum Parcel {
    Up { dialed: bool },
    Text(std::sync::Arc<str>),
    Down,
}

struct World {
    sides: [Links; 2],
    facts: [Facts; 2],
    now: Millis,
    chance: u64,
    next_channel: u64,
    /// Per side and channel; a channel missing here is dead for that side.
    pipes: [BTreeMap<ChannelId, VecDeque<Parcel>>; 2],
    orders: [VecDeque<LinkOrder>; 2],
    dialling: [bool; 2],
    confirmed: [Vec<ChannelId>; 2],
}

impl World {
    fn new(seed: u64, facts: [Facts; 2]) -> Self {
        let sides = ["a", "b"].map(|name| Links::new(peer(name), LinkOptions::default()));
        let chance = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        World {
            sides,
            facts,
            now: Millis(0),
            chance,
            next_channel: 1,
            pipes: Default::default(),
            orders: Default::default(),
            dialling: [false; 2],
            confirmed: Default::default(),
        }
    }
    fn random(&mut self, below: usize) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 20) as usize % below
    }
    fn chance(&mut self) -> u64 {
        self.random(2);
        self.chance.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn execute(&mut self, side: usize, actions: Vec<Action>) {
        let far = 1 - side;
        for action in actions {
            match action {
                Action::Dial { .. } => {
                    assert!(!self.dialling[side], "two dials at once");
                    self.dialling[side] = true;
                }
                Action::Write { channel, texts, .. } => {
                    if let Some(pipe) = self.pipes[far].get_mut(&channel) {
                        pipe.extend(texts.into_iter().map(Parcel::Text));
                    }
                }
                Action::Close { channel, .. } => {
                    self.pipes[side].remove(&channel);
                    if let Some(pipe) = self.pipes[far].get_mut(&channel) {
                        pipe.push_back(Parcel::Down);
                    }
                }
                Action::Report(event) => self.kernel(side, event),
            }
        }
    }
    /// A kernel that registers everything; as responder of a session it sometimes wants the confirm first.
    fn kernel(&mut self, side: usize, event: LinkEvent) {
        let order = match event {
            LinkEvent::FactsWanted { channel, dialed, .. } => {
                if !dialed {
                    self.confirmed[side].push(channel);
                }
                LinkOrder::Greet { channel, facts: self.facts[side].clone() }
            }
            LinkEvent::HandshakeRead { channel, theirs, .. } => {
                let inbound = self.confirmed[side].contains(&channel);
                let both = theirs.session.is_some() && self.facts[side].session.is_some();
                let waits = inbound && both && self.random(2) == 0;
                let verdict = if waits { Verdict::AwaitConfirm } else { Verdict::Register };
                LinkOrder::Answer { channel, verdict }
            }
            LinkEvent::Confirmed { channel } => LinkOrder::Answer { channel, verdict: Verdict::Register },
            _ => return,
        };
        self.orders[side].push_back(order);
    }
    fn observe(&mut self, side: usize, fact: LinkFact) {
        let chance = self.chance();
        let actions = self.sides[side].observe(self.now, chance, fact);
        self.execute(side, actions);
    }
    /// Does one of the things that can happen now; false: none.
    fn turn(&mut self) -> bool {
        let mut ready = Vec::new();
        for side in 0..2 {
            ready.extend((!self.orders[side].is_empty()).then_some((side, None)));
            ready.extend(self.dialling[side].then_some((side, Some(ChannelId(0)))));
            for (channel, pipe) in &self.pipes[side] {
                ready.extend((!pipe.is_empty()).then_some((side, Some(*channel))));
            }
        }
        if ready.is_empty() {
            return false;
        }
        let at = self.random(ready.len());
        match ready[at] {
            (side, None) => {
                let order = self.orders[side].pop_front().unwrap();
                let chance = self.chance();
                let actions = self.sides[side].order(self.now, chance, order);
                self.execute(side, actions);
            }
            (side, Some(ChannelId(0))) => {
                self.dialling[side] = false;
                let channel = ChannelId(self.next_channel);
                self.next_channel += 1;
                self.pipes[1 - side].insert(channel, [Parcel::Up { dialed: false }].into());
                self.pipes[side].insert(channel, [Parcel::Up { dialed: true }].into());
            }
            (side, Some(channel)) => {
                let name = peer(["b", "a"][side]);
                match self.pipes[side].get_mut(&channel).unwrap().pop_front().unwrap() {
                    Parcel::Up { dialed } => self
                        .observe(side, LinkFact::ChannelUp { channel, peer: name, dialed, reference: true }),
                    Parcel::Text(text) => self.observe(side, LinkFact::TextRead { channel, text }),
                    Parcel::Down => {
                        self.pipes[side].remove(&channel);
                        self.observe(side, LinkFact::ChannelDown { channel, reason: "far end".into() });
                    }
                }
            }
        }
        true
    }
    /// Runs until nothing is left to happen and no retry is pending.
    fn quiesce(&mut self) {
        for _ in 0..20_000 {
            if self.turn() {
                self.now.0 += self.random(3) as u64;
                continue;
            }
            let Some(next) = self.sides.iter().filter_map(Links::next_deadline).min() else { return };
            self.now = self.now.max(next);
            (0..2).for_each(|side| self.observe(side, LinkFact::Tick));
        }
        panic!("no quiescence");
    }
    fn cut_something(&mut self) {
        let all: Vec<ChannelId> = self.pipes.iter().flat_map(|pipes| pipes.keys().copied()).collect();
        if all.is_empty() {
            return;
        }
        let channel = all[self.random(all.len())];
        for side in 0..2 {
            if let Some(pipe) = self.pipes[side].get_mut(&channel) {
                pipe.push_back(Parcel::Down);
            }
        }
    }
    fn assert_one_channel(&self, seed: u64) {
        let registered = [self.sides[0].registered(&peer("b")), self.sides[1].registered(&peer("a"))];
        assert!(registered[0].is_some() && registered[0] == registered[1], "seed {seed}: {registered:?}");
        for pipes in &self.pipes {
            assert_eq!(pipes.keys().copied().collect::<Vec<_>>(), [registered[0].unwrap()], "seed {seed}");
        }
    }
}

fn run(seed: u64, facts: [Facts; 2], cuts: usize) {
    let mut world = World::new(seed, facts);
    for side in 0..2 {
        let want = LinkOrder::Want { peer: peer(["b", "a"][side]), hints: vec![], for_send: false };
        world.orders[side].push_back(want);
    }
    for _ in 0..cuts {
        let steps = world.random(40);
        for _ in 0..steps {
            world.turn();
        }
        world.cut_something();
    }
    world.quiesce();
    world.assert_one_channel(seed);
}

#[test]
fn r76_both_dial_at_once_and_one_channel_survives() {
    for seed in 0..2_000 {
        run(seed, [session("a"), session("b")], 0);
        run(seed, [classic("a"), classic("b")], 0);
    }
}

#[test]
fn r76_one_channel_survives_cuts_at_any_moment() {
    for seed in 0..2_000 {
        run(seed, [session("a"), session("b")], 1 + seed as usize % 6);
        run(seed, [session("a"), classic("b")], 1 + seed as usize % 6);
    }
}
