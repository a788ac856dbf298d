//! What leaves a kernel: answers, and orders to its links, which become streams and frames.

use super::{Event, KernelId, Record, ServiceCall, World};
use crate::net::{End, Item};
use capstan_kernel::effect::{Effect, LogLevel};
use capstan_kernel::input::Input;
use capstan_model::peer::{ChannelId, Millis, PeerId};
use capstan_wire::link::{Action, DialFault, FaultCode, LinkFact};
use capstan_wire::seam::{LinkOrder, Verdict};

/// How numbered frames begin.
const NUMBERED: &str = "{\"seq\":";

impl World {
    /// Executes one effect whose batch is durable.
    pub(crate) fn execute(&mut self, kernel: KernelId, effect: Effect) {
        let name = self.node(kernel).name.clone();
        match effect {
            Effect::Answer { request, answer } => {
                self.trace.say(self.now, format_args!("{name} answers {request:?} {answer:?}"));
                self.answered(kernel, request, answer);
            }
            Effect::Log { level, text } => {
                self.trace.say(self.now, format_args!("{name} logs {level:?} {text}"));
                if level >= LogLevel::Info {
                    self.node_mut(kernel).log.push(format!("{level:?}: {text}"));
                }
            }
            Effect::ServiceCall { call, service, methargs } => {
                self.trace.say(self.now, format_args!("{name} calls service {service} {call:?}"));
                self.serve(kernel, ServiceCall { call, service, methargs });
            }
            // Scripted vats ask nothing of the web.
            Effect::Fetch { .. } | Effect::Look { .. } => {}
            Effect::Link(order) => self.order(kernel, order),
        }
    }

    fn order(&mut self, kernel: KernelId, mut order: LinkOrder) {
        let (now, chance) = (self.now, self.chance.next());
        let node = self.node_mut(kernel);
        let clock = node.clock(now);
        if node.bare {
            node.orders.push(order);
            return;
        }
        if let LinkOrder::Answer { verdict, .. } = &mut order
            && node.verdicts_lost > 0
        {
            node.verdicts_lost -= 1;
            *verdict = Verdict::Refuse("verdict unknown".into());
        }
        let name = node.name.clone();
        let Some(process) = &mut node.process else { return };
        let said = format!("{order:?}");
        let actions = process.links.order(clock, chance, order);
        self.trace.say(now, format_args!("{name} orders {said}"));
        self.act(kernel, actions);
    }

    /// Tells the links of a kernel a fact.
    pub(crate) fn observe(&mut self, kernel: KernelId, fact: LinkFact) {
        let (now, chance) = (self.now, self.chance.next());
        let node = self.node_mut(kernel);
        let clock = node.clock(now);
        let Some(process) = &mut node.process else { return };
        let actions = process.links.observe(clock, chance, fact);
        self.act(kernel, actions);
    }

    /// Carries out what the links want.
    pub(crate) fn act(&mut self, kernel: KernelId, actions: Vec<Action>) {
        let life = self.node(kernel).life;
        for action in actions {
            match action {
                Action::Report(event) => {
                    let fresh = self.node_mut(kernel).fresh();
                    self.input(kernel, Input::Link { event, fresh });
                }
                Action::Dial { peer, .. } => {
                    let at = self.soon(10).after(Millis(1));
                    if let Some(far) = self.by_peer(&peer) {
                        *self.dials.entry((kernel, far)).or_default() += 1;
                    }
                    self.schedule(at, Event::Dialed(kernel, life, peer));
                }
                Action::Write { channel, texts, token } => {
                    let Some((stream, side)) = self.net.side(kernel, life, channel) else { continue };
                    self.record(stream, side, &texts);
                    let at = self.soon(10).after(Millis(1));
                    if let Some(at) = self.net.push(stream, side, at, Item::Texts(texts)) {
                        self.schedule(at, Event::Flows(stream, side));
                    }
                    if let Some(token) = token {
                        let at = self.soon(3);
                        self.schedule(at, Event::Written(kernel, life, channel, token));
                    }
                }
                Action::Close { channel, graceful } => self.hang_up(kernel, channel, graceful),
            }
        }
    }

    fn record(&mut self, stream: crate::net::StreamId, side: usize, texts: &[std::sync::Arc<str>]) {
        let Some(ends) = self.net.streams.get(&stream).map(|stream| stream.ends) else { return };
        let [dialer, answerer] = ends;
        let (writer, reader) =
            if side == 0 { (dialer.kernel, answerer.kernel) } else { (answerer.kernel, dialer.kernel) };
        let (from, to) = (self.node(writer).name.clone(), self.node(reader).name.clone());
        for text in texts {
            self.trace.say(self.now, format_args!("{from} → {to} {text}"));
            let numbered = text.starts_with(NUMBERED);
            let beside = numbered && self.net.use_for_frames(stream, side);
            match &mut self.journal {
                Some(journal) => {
                    journal.push(Record::Wrote { from: writer, to: reader, text: text.clone(), beside });
                }
                None => self.written.entry((writer, reader)).or_default().push(text.clone()),
            }
        }
    }

    fn hang_up(&mut self, kernel: KernelId, channel: ChannelId, graceful: bool) {
        let life = self.node(kernel).life;
        let Some((stream, side)) = self.net.side(kernel, life, channel) else { return };
        if !graceful {
            self.net.lose(stream, side);
        }
        self.end(stream, side, "closed by the peer");
        self.net.leave(stream, side);
    }

    /// Ends the pipe written by `side`.
    pub(crate) fn end(&mut self, stream: crate::net::StreamId, side: usize, why: &'static str) {
        let at = self.soon(10).after(Millis(1));
        if let Some(at) = self.net.push(stream, side, at, Item::End(why)) {
            self.schedule(at, Event::Flows(stream, side));
        }
    }

    pub(crate) fn by_peer(&self, peer: &PeerId) -> Option<KernelId> {
        self.nodes.iter().position(|node| &node.config.peer == peer).map(KernelId)
    }

    /// A dial ends: two new channels, or none.
    pub(crate) fn dialed(&mut self, kernel: KernelId, peer: PeerId) {
        let far = self.by_peer(&peer).filter(|far| self.net.reachable(kernel, *far));
        let far = far.filter(|far| self.node(*far).process.is_some() && !self.node(*far).bare);
        let near = self.fresh_end(kernel);
        match (near, far.and_then(|far| self.fresh_end(far))) {
            (Some(near), Some(far)) => {
                let stream = self.net.open(near, far);
                for (side, dialed) in [(0, false), (1, true)] {
                    let at = self.soon(10).after(Millis(1));
                    if let Some(at) = self.net.push(stream, side, at, Item::Up { dialed }) {
                        self.schedule(at, Event::Flows(stream, side));
                    }
                }
            }
            (_, _) => {
                let error = DialFault::new(FaultCode::Refused, "connection refused");
                self.observe(kernel, LinkFact::DialFailed { peer, error });
            }
        }
    }

    fn fresh_end(&mut self, kernel: KernelId) -> Option<End> {
        let node = self.node_mut(kernel);
        let life = node.life;
        let channel = node.process.as_mut()?.channel();
        Some(End { kernel, life, channel, open: true, used: false })
    }
}
