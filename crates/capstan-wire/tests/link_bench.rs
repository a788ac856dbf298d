//! One machine with a scripted far end.

use capstan_model::peer::{ChannelId, Digest, Epoch, Incarnation, Millis, PeerId, Seq};
use capstan_wire::facts::{Facts, SessionFacts};
use capstan_wire::link::{Action, LinkFact, LinkOptions, Links};
use capstan_wire::seam::{LinkEvent, LinkOrder, Verdict};
use std::sync::Arc;

pub(crate) fn peer(name: &str) -> PeerId {
    PeerId::new(name)
}

pub(crate) fn classic(life: &str) -> Facts {
    Facts { incarnation: Incarnation::new(life), session: None }
}

pub(crate) fn session(life: &str) -> Facts {
    let session = SessionFacts {
        believes: None,
        epoch: Epoch(0),
        base: Epoch(0),
        una: Seq(1),
        sent: Seq(0),
        recv: Seq(0),
        digest: Digest::default(),
        left: None,
        classic_born: false,
        frame_bytes_max: 1 << 20,
        credit: 100,
        words: Vec::new(),
        listen: Vec::new(),
    };
    Facts { incarnation: Incarnation::new(life), session: Some(session) }
}

/// A machine named `m` (peers sort before or after it by their names) and its clock.
pub(crate) struct Bench {
    pub(crate) links: Links,
    pub(crate) now: Millis,
}

impl Bench {
    pub(crate) fn new(options: LinkOptions) -> Self {
        Bench { links: Links::new(peer("m"), options), now: Millis(1_000) }
    }
    pub(crate) fn order(&mut self, order: LinkOrder) -> Vec<Action> {
        self.links.order(self.now, u64::MAX / 2, order)
    }
    pub(crate) fn fact(&mut self, fact: LinkFact) -> Vec<Action> {
        self.links.observe(self.now, u64::MAX / 2, fact)
    }
    pub(crate) fn want(&mut self, name: &str, for_send: bool) -> Vec<Action> {
        self.order(LinkOrder::Want { peer: peer(name), hints: vec![], for_send })
    }
    pub(crate) fn up(&mut self, channel: u64, name: &str, dialed: bool) -> Vec<Action> {
        self.fact(LinkFact::ChannelUp {
            channel: ChannelId(channel),
            peer: peer(name),
            dialed,
            reference: true,
        })
    }
    pub(crate) fn read(&mut self, channel: u64, text: &str) -> Vec<Action> {
        self.fact(LinkFact::TextRead { channel: ChannelId(channel), text: text.into() })
    }
    pub(crate) fn down(&mut self, channel: u64) -> Vec<Action> {
        self.fact(LinkFact::ChannelDown { channel: ChannelId(channel), reason: "cut".into() })
    }
    pub(crate) fn greet(&mut self, channel: u64, facts: Facts) -> Vec<Action> {
        self.order(LinkOrder::Greet { channel: ChannelId(channel), facts })
    }
    pub(crate) fn answer(&mut self, channel: u64, verdict: Verdict) -> Vec<Action> {
        self.order(LinkOrder::Answer { channel: ChannelId(channel), verdict })
    }
    /// Lets the clock run to the next deadline.
    pub(crate) fn tick(&mut self) -> Vec<Action> {
        self.now = self.links.next_deadline().unwrap_or(self.now);
        self.fact(LinkFact::Tick)
    }
    /// A classic channel up to the kernel's verdict.
    pub(crate) fn dial_to_verdict(&mut self, channel: u64, name: &str, life: &str) -> Vec<Action> {
        self.up(channel, name, true);
        self.greet(channel, classic("mine"));
        self.read(channel, &ack(life))
    }
    pub(crate) fn accept_to_verdict(&mut self, channel: u64, name: &str, life: &str) -> Vec<Action> {
        self.up(channel, name, false);
        self.read(channel, &hello(life));
        self.greet(channel, classic("mine"))
    }
}

pub(crate) fn hello(life: &str) -> String {
    format!(r#"{{"method":"handshake","params":{{"incarnationId":"{life}"}}}}"#)
}
pub(crate) fn ack(life: &str) -> String {
    format!(r#"{{"method":"handshakeAck","params":{{"incarnationId":"{life}"}}}}"#)
}

pub(crate) fn dials(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Dial { .. })).count()
}
pub(crate) fn closes(actions: &[Action]) -> Vec<u64> {
    let closed = |action: &Action| match action {
        Action::Close { channel, .. } => Some(channel.0),
        Action::Dial { .. } | Action::Write { .. } | Action::Report(_) => None,
    };
    actions.iter().filter_map(closed).collect()
}
pub(crate) fn written(actions: &[Action]) -> Vec<String> {
    let texts = |action: &Action| match action {
        Action::Write { texts, .. } => texts.iter().map(|text| text.to_string()).collect(),
        Action::Dial { .. } | Action::Close { .. } | Action::Report(_) => Vec::new(),
    };
    actions.iter().flat_map(texts).collect()
}
pub(crate) fn reports(actions: &[Action]) -> Vec<LinkEvent> {
    let event = |action: &Action| match action {
        Action::Report(event) => Some(event.clone()),
        Action::Dial { .. } | Action::Close { .. } | Action::Write { .. } => None,
    };
    actions.iter().filter_map(event).collect()
}
pub(crate) fn frames(actions: &[Action]) -> Vec<Arc<str>> {
    let read =
        |event: LinkEvent| if let LinkEvent::FramesRead { frames, .. } = event { frames } else { vec![] };
    reports(actions).into_iter().flat_map(read).collect()
}
