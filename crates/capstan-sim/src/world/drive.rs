//! The loop: the next event or deadline, one at a time.

use super::{Batching, Event, KernelId, Record, World};
use crate::net::Item;
use crate::node::Strike;
use capstan_kernel::effect::Effect;
use capstan_kernel::input::Input;
use capstan_model::peer::Millis;
use capstan_wire::link::LinkFact;
use capstan_wire::seam::LinkOrder;

/// A world is quiet when for so long nothing happens but vain attempts to connect.
const QUIET: u64 = 4_000;
/// A world that is not quiet after so long never will be.
const NEVER: u64 = 200_000;

impl World {
    /// Runs until nothing more happens by itself.
    ///
    /// # Panics
    /// If that is not so after a long time.
    pub fn run_until_quiet(&mut self) {
        self.active = self.now;
        let limit = self.now.0 + NEVER;
        while let Some(at) = self.next_moment() {
            if at.0 > self.active.0 + QUIET {
                break;
            }
            assert!(at.0 < limit, "the world does not come to rest:\n{}", self.trace(60));
            self.one_event();
        }
    }

    /// Lets time pass, with all that happens in it.
    pub fn advance(&mut self, millis: u64) {
        let until = Millis(self.now.0 + millis);
        while self.next_moment().is_some_and(|at| at <= until) {
            self.one_event();
        }
        self.now = until;
    }

    /// Runs until `done`, or until quiet.
    pub fn run_until(&mut self, mut done: impl FnMut(&World) -> bool) -> bool {
        self.active = self.now;
        while !done(self) {
            match self.next_moment() {
                Some(at) if at.0 <= self.active.0 + QUIET => self.one_event(),
                Some(_) | None => return false,
            }
        }
        true
    }

    pub(crate) fn schedule(&mut self, at: Millis, event: Event) {
        self.ticks += 1;
        self.agenda.insert((at, self.ticks), event);
    }

    /// Now or up to `most` milliseconds later.
    pub(crate) fn soon(&mut self, most: u64) -> Millis {
        let delay = self.chance.below(most + 1);
        self.now.after(Millis(delay))
    }

    fn next_moment(&self) -> Option<Millis> {
        let event = self.agenda.keys().next().map(|(at, _)| *at);
        let deadline = self.next_deadline().map(|(at, ..)| at);
        event.into_iter().chain(deadline).min()
    }

    /// The first deadline of any kernel (`true`) or its links, never in the past.
    fn next_deadline(&self) -> Option<(Millis, KernelId, bool)> {
        let mut first: Option<(Millis, KernelId, bool)> = None;
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { continue };
            let kernel = process.kernel.next_deadline().map(|at| (at, process.told.0, true));
            let links = process.links.next_deadline().map(|at| (at, process.told.1, false));
            for (at, told, of_kernel) in kernel.into_iter().chain(links) {
                let at = Millis(at.0.saturating_add_signed(node.ahead.saturating_neg()));
                // A deadline that stays past is told once a millisecond.
                let at = at.max(Millis(told.0 + 1)).max(self.now);
                if first.is_none_or(|(earliest, ..)| at < earliest) {
                    first = Some((at, KernelId(index), of_kernel));
                }
            }
        }
        first
    }

    fn one_event(&mut self) {
        let event = self.agenda.keys().next().copied();
        match (event, self.next_deadline()) {
            (Some((at, tick)), deadline) if deadline.is_none_or(|(later, ..)| at <= later) => {
                self.now = self.now.max(at);
                if let Some(event) = self.agenda.remove(&(at, tick)) {
                    self.happen(event);
                }
            }
            (_, Some((at, kernel, of_kernel))) => {
                self.now = self.now.max(at);
                self.tell_time(kernel, of_kernel);
            }
            (_, None) => {}
        }
    }

    fn tell_time(&mut self, kernel: KernelId, of_kernel: bool) {
        let (now, chance) = (self.now, self.chance.next());
        let node = self.node_mut(kernel);
        let clock = node.clock(now);
        let Some(process) = &mut node.process else { return };
        if of_kernel {
            process.told.0 = now;
            self.input(kernel, Input::TimeCame);
        } else {
            process.told.1 = now;
            let actions = process.links.observe(clock, chance, LinkFact::Tick);
            self.act(kernel, actions);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(kernel, life) => {
                if self.lives(kernel, life) {
                    self.turn(kernel);
                }
            }
            Event::Commit(kernel, life) => {
                if self.lives(kernel, life) {
                    self.commit(kernel);
                }
            }
            Event::Arrives(kernel, life, input) => {
                if self.lives(kernel, life) {
                    self.input(kernel, *input);
                }
            }
            Event::Dialed(kernel, life, peer) => {
                if self.lives(kernel, life) {
                    self.dialed(kernel, peer);
                }
            }
            Event::Written(kernel, life, channel, token) => {
                if self.lives(kernel, life) {
                    let fact = LinkFact::Written { channel, token, outcome: Ok(()) };
                    self.observe(kernel, fact);
                }
            }
            Event::Flows(stream, from) => {
                let Some((reader, item)) = self.net.arrive(stream, from) else { return };
                if !reader.open || !self.lives(reader.kernel, reader.life) {
                    return;
                }
                let channel = reader.channel;
                match item {
                    Item::Up { dialed } => {
                        let writer = self.net.streams.get(&stream).and_then(|s| s.ends.get(from)).copied();
                        let Some(writer) = writer else { return };
                        let peer = self.node(writer.kernel).config.peer.clone();
                        // Here the classic kernels stand for those of the reference.
                        let up = LinkFact::ChannelUp { channel, peer, dialed, reference: true };
                        self.observe(reader.kernel, up);
                    }
                    Item::Texts(texts) => {
                        self.active = self.now;
                        self.observe(reader.kernel, LinkFact::TextsRead { channel, texts });
                    }
                    Item::End(reason) => {
                        self.net.leave(stream, 1 - from);
                        let reason = reason.to_owned();
                        self.observe(reader.kernel, LinkFact::ChannelDown { channel, reason });
                    }
                }
            }
        }
    }

    /// Whether the kernel is still in that life.
    pub(crate) fn lives(&self, kernel: KernelId, life: u64) -> bool {
        let node = self.node(kernel);
        node.process.is_some() && node.life == life
    }

    /// Queues an input.
    pub(crate) fn input(&mut self, kernel: KernelId, input: Input) {
        let at = self.soon(1);
        let node = self.node_mut(kernel);
        let life = node.life;
        let Some(process) = &mut node.process else { return };
        process.inbox.push_back(input);
        if !std::mem::replace(&mut process.turn_due, true) {
            self.schedule(at, Event::Turn(kernel, life));
        }
    }

    /// One input into the kernel; vats get their work at once, all else waits for the batch.
    fn turn(&mut self, kernel: KernelId) {
        let now = self.now;
        let node = self.node_mut(kernel);
        let life = node.life;
        let name = node.name.clone();
        let clock = node.clock(now);
        let journal = self.journal.is_some();
        let node = self.node_mut(kernel);
        let Some(process) = &mut node.process else { return };
        process.turn_due = false;
        let Some(input) = process.inbox.pop_front() else { return };
        node.turns += 1;
        let more = !process.inbox.is_empty();
        let said = format!("{input:?}");
        let step = process.kernel.step(clock, input);
        if journal {
            let news = process.now_received();
            let news: Vec<_> = news.into_iter().filter(|mark| !process.marks.contains(mark)).collect();
            process.marks.extend(news);
        }
        let vain = |effect: &Effect| {
            matches!(
                effect,
                Effect::Log { .. }
                    | Effect::Link(
                        LinkOrder::Want { .. } | LinkOrder::Unwant { .. } | LinkOrder::Knock { .. }
                    )
            )
        };
        let active = !step.dispatches.is_empty() || !step.effects.iter().all(vain);
        process.held.extend(step.effects);
        let mut answers = Vec::new();
        for dispatch in step.dispatches {
            answers.extend(process.vats.execute(dispatch));
        }
        self.trace.say(now, format_args!("{name} takes {said}"));
        if active {
            self.active = self.now;
        }
        self.answer_later(kernel, answers);
        if more {
            let at = self.soon(1);
            if let Some(process) = &mut self.node_mut(kernel).process {
                process.turn_due = true;
            }
            self.schedule(at, Event::Turn(kernel, life));
        }
        self.gather(kernel, life);
    }

    /// Lets a batch end soon, or at once.
    fn gather(&mut self, kernel: KernelId, life: u64) {
        match self.batching {
            Batching::EachInput => self.commit(kernel),
            Batching::Seeded => {
                let at = self.soon(self.node(kernel).slow);
                let Some(process) = &mut self.node_mut(kernel).process else { return };
                if !std::mem::replace(&mut process.commit_due, true) {
                    self.schedule(at, Event::Commit(kernel, life));
                }
            }
        }
    }

    /// Brings answers of vats to the kernel after a while, in order.
    pub(crate) fn answer_later(&mut self, kernel: KernelId, answers: Vec<Input>) {
        for input in answers {
            let at = self.soon(5);
            let node = self.node_mut(kernel);
            let life = node.life;
            let Some(process) = &mut node.process else { return };
            process.vats_last = process.vats_last.max(at);
            let at = process.vats_last;
            self.schedule(at, Event::Arrives(kernel, life, Box::new(input)));
        }
    }

    /// Makes the batch durable, then releases its effects. A crash may strike on either side.
    fn commit(&mut self, kernel: KernelId) {
        let node = self.node_mut(kernel);
        let Some(process) = &mut node.process else { return };
        process.commit_due = false;
        let changes = process.kernel.take_changes();
        let held: Vec<Effect> = std::mem::take(&mut process.held);
        if changes.is_empty() && held.is_empty() {
            return;
        }
        let strike = node.strike.filter(|(at, _)| *at == node.commits).map(|(_, strike)| strike);
        if strike == Some(Strike::BeforeCommit) {
            node.strike = None;
            return self.kill(kernel);
        }
        let marks = std::mem::take(&mut process.marks);
        node.commits += 1;
        node.write(&changes);
        let (rows, name) = (changes.len(), node.name.clone());
        if let Some(journal) = &mut self.journal {
            journal.push(Record::Committed { kernel, changes: changes.into(), marks });
        }
        let node = self.node_mut(kernel);
        if strike == Some(Strike::AfterCommit) {
            node.strike = None;
            return self.kill(kernel);
        }
        if rows > 0 {
            self.active = self.now;
        }
        self.trace.say(self.now, format_args!("{name} commits {rows} rows"));
        let life = self.node(kernel).life;
        for effect in held {
            if self.lives(kernel, life) {
                self.execute(kernel, effect);
            }
        }
    }
}
