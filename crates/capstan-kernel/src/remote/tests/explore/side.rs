//! One kernel at one moment: its rows and what it knows of channels. Every step is taken by the kernel's own code.

use crate::effect::{Effect, LogLevel, Step};
use crate::kernel::{Generation, KernelConfig};
use crate::remote::channels::Channels;
use crate::remote::{Reach, forget, link_event, outbox, transmit};
use crate::turn::transact;
use capstan_model::peer::{ChannelId, Incarnation, Millis, PeerId, Seq};
use capstan_model::refs::{RRef, RefKind, Side as Polarity};
use capstan_store::overlay::Db;
use capstan_store::schema::{ChangeSet, DeadLetters, Meta, Tables};
use capstan_wire::facts::Facts;
use capstan_wire::frame::Frame;
use capstan_wire::seam::{LinkEvent, LinkOrder, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Time stands still: nothing here waits for a timer.
const NOW: Millis = Millis(1_000);
/// The names of messages begin here, far from any name that a c-list could hold.
const NAMES: u64 = 100;
/// Messages of one side, at most.
pub(super) const MESSAGES: u8 = 3;

/// A moment of one kernel, by number.
pub(super) type Moment = u32;
/// Something written on a channel, by number.
pub(super) type Parcel = u16;
/// 0 or 1; the peers' names have the same order.
pub(super) type At = usize;

/// What may be written on a channel.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Written {
    /// The dialler's first frame, or the answer to it.
    Handshake(Facts),
    Confirm,
    /// A frame; `message`: the one it carries, of the side that wrote it.
    Frame {
        text: Arc<str>,
        message: Option<u8>,
    },
}

/// What happens to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// Something is to be sent: the message of this number.
    Say(u8),
    FactsWanted(u8, bool),
    /// The peer's handshake was read; the name of the next life, should one be needed.
    HandshakeRead(u8, Parcel, u8),
    Confirmed(u8, u8),
    FrameRead(u8, Parcel),
    /// A classic write ended.
    Sent(u8, u64),
    Closed(u8),
    Forget,
    /// The process begins again on the same rows, speaking this generation.
    Begin(bool),
}

/// An order to the links.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Greet(u8, Parcel),
    Register(u8),
    AwaitConfirm(u8),
    Close(u8),
    /// Frames, and the number of the last if its writing is awaited.
    Write(u8, Vec<Parcel>, Option<u64>),
    ForgetPeer,
    ResetNote,
}

/// How a message left the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Acknowledged,
    Rejected,
}

/// What one step did, as seen from outside the code that did it.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) after: Moment,
    pub(super) orders: Vec<Order>,
    /// The session was ended: counters went back, what waited was rejected.
    pub(super) reset: bool,
    /// The session has another name now.
    pub(super) renamed: bool,
    /// The kernel took another incarnation.
    pub(super) reborn: bool,
    /// The receive mark moved.
    pub(super) received: bool,
    pub(super) left: Vec<(u8, Left)>,
    /// What the kernel itself found wrong.
    pub(super) trouble: Option<String>,
}

/// The name of a session as one side has it: lives (ours, theirs) and epoch.
pub(super) type Name = (u8, u8, u64);

/// What the search needs to see of a moment.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) name: Option<Name>,
    pub(super) bound: [Option<Name>; 2],
    pub(super) believes: bool,
    /// There is a remote to forget.
    pub(super) forgettable: bool,
    /// Nothing waits for an acknowledgement.
    pub(super) drained: bool,
}

struct Stored {
    at: At,
    classic: bool,
    rows: ChangeSet,
    channels: Channels,
    view: View,
    known: BTreeMap<Event, usize>,
}

/// All moments met so far, each once, and what each event did to them: the kernel is deterministic, so one run of its
/// code serves every state of the pair in which that moment occurs.
#[derive(Default)]
pub(super) struct Kernels {
    moments: Vec<Stored>,
    by_text: BTreeMap<String, Moment>,
    parcels: Vec<Written>,
    parcels_by_text: BTreeMap<String, Parcel>,
    outcomes: Vec<Outcome>,
}

fn peer(at: At) -> PeerId {
    PeerId::new(["ann", "bob"][at])
}

/// The name of a life.
fn life(at: At, number: u8) -> Incarnation {
    Incarnation::new(format!("{}{number}", ["A", "B"][at]))
}

/// The number of a life.
pub(super) fn life_number(life: &Incarnation) -> u8 {
    life.as_str()[1..].parse().unwrap()
}

fn channel_id(channel: u8) -> ChannelId {
    ChannelId(u64::from(channel) + 1)
}

fn channel_number(channel: ChannelId) -> u8 {
    u8::try_from(channel.0 - 1).unwrap()
}

fn config(at: At, classic: bool) -> KernelConfig {
    let mut config = KernelConfig::new(peer(at));
    config.generation = if classic { Generation::Classic } else { Generation::Session };
    config.audit_every_transaction = false; // the storm does that
    config.ack_delay = Millis(0);
    config
}

/// The message in the text of a frame.
fn message_in(text: &str) -> Option<u8> {
    let digits = text.split("\"ro").nth(1)?.trim_start_matches(['+', '-']);
    let number: u64 = digits.split('"').next()?.parse().ok()?;
    number.checked_sub(NAMES)?.try_into().ok()
}

impl Kernels {
    /// A kernel that has never heard of the other one.
    pub(super) fn blank(&mut self, at: At, number: u8, classic: bool) -> Moment {
        let mut db = Db::default();
        let mut tx = db.begin();
        tx.put::<Meta>("incarnation".into(), life(at, number).as_str().into());
        tx.commit();
        self.intern(at, classic, db, Channels::default())
    }

    pub(super) fn view(&self, moment: Moment) -> &View {
        &self.moments[moment as usize].view
    }

    pub(super) fn written(&self, parcel: Parcel) -> &Written {
        &self.parcels[usize::from(parcel) - 1]
    }

    /// The same, as a number that is never 0.
    pub(super) fn parcel(&mut self, written: Written) -> Parcel {
        let text = format!("{written:?}");
        let parcels = &mut self.parcels;
        *self.parcels_by_text.entry(text).or_insert_with(|| {
            parcels.push(written);
            parcels.len().try_into().expect("more parcels than numbers for them")
        })
    }

    fn intern(&mut self, at: At, classic: bool, db: Db, mut channels: Channels) -> Moment {
        // Only saves repeated orders.
        channels.asked.clear();
        for open in channels.open.values_mut().filter(|open| open.bound.is_some()) {
            // What was said is not looked at once a channel is bound, beyond the limits that are the same here.
            let blank = Facts { incarnation: Incarnation::new(""), session: None };
            (open.said, open.rows, open.theirs) = (blank.clone(), blank, None);
        }
        let rows = db.tables().snapshot();
        let text = text(at, classic, &rows, &channels);
        if let Some(moment) = self.by_text.get(&text) {
            return *moment;
        }
        let view = view(&rows, &channels, at);
        let moment = Moment::try_from(self.moments.len()).unwrap();
        self.moments.push(Stored { at, classic, rows, channels, view, known: BTreeMap::new() });
        self.by_text.insert(text, moment);
        moment
    }

    /// Lets something happen to a kernel.
    pub(super) fn step(&mut self, moment: Moment, event: Event) -> &Outcome {
        let known = self.moments[moment as usize].known.get(&event).copied();
        let number = known.unwrap_or_else(|| {
            let outcome = self.run(moment, event);
            self.outcomes.push(outcome);
            self.moments[moment as usize].known.insert(event, self.outcomes.len() - 1);
            self.outcomes.len() - 1
        });
        &self.outcomes[number]
    }

    fn run(&mut self, moment: Moment, event: Event) -> Outcome {
        let stored = &self.moments[moment as usize];
        let (at, mut classic) = (stored.at, stored.classic);
        let (before, before_view) = (stored.rows.clone(), stored.view.clone());
        let mut tables = Tables::default();
        tables.apply(&stored.rows);
        tables.rebuild_mirrors();
        let (mut db, mut channels) = (Db::load(tables), stored.channels.clone());
        if let Event::Begin(speaks_classic) = event {
            classic = speaks_classic;
            channels = Channels::default();
        }
        let config = config(at, classic);
        let (step, db_after) = (&mut Step::default(), &mut db);
        self.happen(at, event, db_after, &mut channels, &config, step);
        if !matches!(event, Event::FactsWanted(..) | Event::Begin(_)) {
            transmit(db_after, &mut channels, &config, NOW, Reach::All, step);
        }
        let effects = std::mem::take(&mut step.effects);
        let rows = db.tables().snapshot();
        let letters = db.len::<DeadLetters>();
        let after = self.intern(at, classic, db, channels);
        let mut outcome = self.compare(at, &before, &before_view, &rows, after);
        if letters > 0 {
            outcome.trouble = Some(format!("a dead letter: {:?}", rows.dead_letters));
        }
        for effect in effects {
            self.effect(effect, &mut outcome);
        }
        outcome
    }

    fn happen(
        &self,
        at: At,
        event: Event,
        db: &mut Db,
        channels: &mut Channels,
        config: &KernelConfig,
        step: &mut Step,
    ) {
        let nobody = || Incarnation::new("nobody");
        let mut link = |event: LinkEvent, fresh: Incarnation| {
            link_event(db, channels, config, NOW, event, fresh, step);
        };
        let item = || "a move of the search".to_owned();
        match event {
            Event::Say(message) => {
                let index = NAMES + u64::from(message);
                let name = RRef { kind: RefKind::Object, side: Polarity::Export, index };
                let said = transact(db, config, NOW, step, item, |turn| {
                    let rid = crate::remote::facts::ensure_remote(turn, &peer(1 - at), &[])?;
                    outbox::append(turn, rid, &Frame::DropExports(vec![name]), Vec::new())
                });
                said.unwrap().unwrap();
            }
            Event::FactsWanted(channel, dialed) => {
                let peer = peer(1 - at);
                link(LinkEvent::FactsWanted { channel: channel_id(channel), peer, dialed }, nobody());
            }
            Event::HandshakeRead(channel, parcel, next) => {
                let theirs = match self.written(parcel) {
                    Written::Handshake(facts) => facts.clone(),
                    other => panic!("no handshake: {other:?}"),
                };
                let channel = channel_id(channel);
                link(LinkEvent::HandshakeRead { channel, theirs, note_changed: false }, life(at, next));
            }
            Event::Confirmed(channel, next) => {
                link(LinkEvent::Confirmed { channel: channel_id(channel) }, life(at, next));
            }
            Event::FrameRead(channel, parcel) => {
                let Written::Frame { text, .. } = self.written(parcel) else { panic!("no frame") };
                let (channel, frames) = (channel_id(channel), vec![text.clone()]);
                link(LinkEvent::FramesRead { channel, frames }, nobody());
            }
            Event::Sent(channel, seq) => {
                let (channel, seq) = (channel_id(channel), Some(Seq(seq)));
                link(LinkEvent::Sent { channel, seq, outcome: Ok(()) }, nobody());
            }
            Event::Closed(channel) => {
                let reason = "the search closed it".into();
                link(LinkEvent::ChannelClosed { channel: channel_id(channel), reason }, nobody());
            }
            Event::Forget => {
                let forgotten = transact(db, config, NOW, step, item, |turn| {
                    forget::peer_forget(turn, channels, &peer(1 - at))
                });
                let _unknown_peers_are_refused = forgotten.unwrap();
            }
            Event::Begin(_) => {}
        }
    }

    /// What changed in the rows.
    fn compare(&self, at: At, before: &ChangeSet, was: &View, rows: &ChangeSet, after: Moment) -> Outcome {
        let view = self.view(after);
        let session = |rows: &ChangeSet| rows.sessions.get(&peer(1 - at)).cloned().flatten();
        let (old, new) = (session(before), session(rows));
        let marks = |row: &Option<capstan_store::schema::SessionRow>| {
            row.as_ref().map_or((0, 1, 0), |row| (row.sent.0, row.una.0, row.recv.0))
        };
        let ((old_sent, old_una, old_recv), (sent, una, recv)) = (marks(&old), marks(&new));
        let reset = sent < old_sent || una < old_una || recv < old_recv;
        let mut left = Vec::new();
        for (key, row) in &before.outbox {
            let Some(row) = row.as_ref().filter(|_| !rows.outbox.contains_key(key)) else { continue };
            let how = if reset || key.1 >= Seq(una) { Left::Rejected } else { Left::Acknowledged };
            left.extend(message_in(&row.text).map(|message| (message, how)));
        }
        Outcome {
            after,
            orders: Vec::new(),
            reset,
            renamed: was.name != view.name && view.name.is_some(),
            reborn: before.meta.get("incarnation") != rows.meta.get("incarnation"),
            received: recv > old_recv,
            left,
            trouble: None,
        }
    }

    fn effect(&mut self, effect: Effect, outcome: &mut Outcome) {
        let order = match effect {
            Effect::Log { level: LogLevel::Error, text } => {
                if text.contains("never sent") {
                    outcome.trouble = Some(text);
                }
                return;
            }
            Effect::Log { level: LogLevel::Warn, text } => {
                if text.contains("ahead of number") {
                    outcome.trouble = Some(text);
                }
                return;
            }
            Effect::Link(order) => order,
            Effect::Log { .. } | Effect::Answer { .. } => return,
            other => panic!("not in a search: {other:?}"),
        };
        let made = match order {
            LinkOrder::Greet { channel, facts } => {
                Order::Greet(channel_number(channel), self.parcel(Written::Handshake(facts)))
            }
            LinkOrder::Answer { channel, verdict } => {
                let channel = channel_number(channel);
                match verdict {
                    Verdict::Register => Order::Register(channel),
                    Verdict::AwaitConfirm => Order::AwaitConfirm(channel),
                    Verdict::Restarted | Verdict::Refuse(_) => Order::Close(channel),
                }
            }
            LinkOrder::Send { channel, frames, awaited } => {
                let last = frames.last().and_then(|frame| frame.seq).filter(|_| awaited).map(|seq| seq.0);
                let written = |text: Arc<str>| Written::Frame { message: message_in(&text), text };
                let parcels = frames.into_iter().map(|frame| self.parcel(written(frame.text)));
                Order::Write(channel_number(channel), parcels.collect(), last)
            }
            LinkOrder::CloseChannel { channel, .. } => Order::Close(channel_number(channel)),
            LinkOrder::ForgetPeer { .. } => Order::ForgetPeer,
            LinkOrder::ResetNote { .. } => {
                outcome.reset = true;
                Order::ResetNote
            }
            // The search dials when it likes.
            LinkOrder::Want { .. } | LinkOrder::Unwant { .. } => return,
            other => panic!("not in a search: {other:?}"),
        };
        outcome.orders.push(made);
    }
}

/// A moment as text: the same text, the same moment.
fn text(at: At, classic: bool, rows: &ChangeSet, channels: &Channels) -> String {
    let ChangeSet { meta, counters, remotes, sessions, peer_incarnations, outbox, dead_letters, .. } = rows;
    let read = meta.len() + counters.len() + remotes.len() + sessions.len();
    let read = read + peer_incarnations.len() + outbox.len() + dead_letters.len();
    assert_eq!(rows.len(), read, "rows of other tables: {rows:?}");
    let rows = (meta, counters, remotes, sessions, peer_incarnations, outbox, dead_letters);
    format!("{at} {classic} {rows:?} {channels:?}")
}

fn view(rows: &ChangeSet, channels: &Channels, at: At) -> View {
    let own = rows.meta.get("incarnation").cloned().flatten().unwrap();
    let ours = life_number(&Incarnation::new(own));
    let believes = rows.peer_incarnations.get(&peer(1 - at)).cloned().flatten();
    let theirs = believes.and_then(|row| row.incarnation).map(|life| life_number(&life));
    let session = rows.sessions.get(&peer(1 - at)).cloned().flatten();
    let epoch = session.as_ref().map_or(0, |row| row.epoch.0);
    let bound = |channel: u8| {
        let name = &channels.open.get(&channel_id(channel))?.bound.as_ref()?.name;
        Some((life_number(&name.ours), life_number(&name.theirs), name.epoch.0))
    };
    View {
        name: theirs.map(|theirs| (ours, theirs, epoch)),
        bound: [bound(0), bound(1)],
        believes: theirs.is_some(),
        forgettable: theirs.is_some() && rows.remotes.values().any(Option::is_some),
        drained: session.is_none_or(|row| row.una > row.sent) && rows.outbox.is_empty(),
    }
}

#[test]
fn a_message_is_found_in_its_frame() {
    let mut kernels = Kernels::default();
    let blank = kernels.blank(0, 1, false);
    let said = kernels.step(blank, Event::Say(2)).after;
    let stored = &kernels.moments[said as usize];
    let texts: Vec<_> = stored.rows.outbox.values().flatten().map(|row| message_in(&row.text)).collect();
    assert_eq!(texts, [Some(2)]);
    assert!(stored.rows.outbox.keys().all(|(_, seq)| *seq == Seq(1)), "{:?}", stored.rows.outbox);
}
