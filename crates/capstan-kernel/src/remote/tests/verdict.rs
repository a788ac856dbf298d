//! The classic verdict and the transition's tear-down, one kernel alone.

use super::super::restart::handle_peer_restart;
use super::super::{Channels, Delivered, facts, forget, link_event};
use crate::clist;
use crate::effect::{Effect, Step};
use crate::kernel::{Generation, KernelConfig};
use crate::promise;
use crate::turn::{Turn, transact};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, RemoteId, VatId};
use capstan_model::peer::{ChannelId, Incarnation, Millis, PeerId, Seq};
use capstan_model::refs::{ERef, RRef};
use capstan_store::overlay::Db;
use capstan_store::schema::{
    Clist, Decider, HoldKind, Meta, ObjectRow, Objects, Outbox, Owner, PeerIncarnations, PromiseState,
    Promises, Remotes, RunQueue, Sessions,
};
use capstan_wire::facts::Facts;
use capstan_wire::seam::{LinkEvent, LinkOrder, Verdict};

pub(super) struct Lone {
    pub(super) db: Db,
    pub(super) channels: Channels,
    pub(super) config: KernelConfig,
    channel: u64,
}

pub(super) fn bob() -> PeerId {
    PeerId::new("bob")
}

impl Lone {
    pub(super) fn new() -> Self {
        let mut config = KernelConfig::new(PeerId::new("ann"));
        config.generation = Generation::Classic;
        config.audit_every_transaction = false; // some rows are made up
        let mut db = Db::default();
        let mut tx = db.begin();
        tx.put::<Meta>("incarnation".into(), "ours".into());
        tx.commit();
        Lone { db, channels: Channels::default(), config, channel: 0 }
    }

    pub(super) fn with<T>(&mut self, body: impl FnOnce(&mut Turn<'_>) -> T) -> T {
        let mut step = Step::default();
        let item = || "set-up".to_owned();
        transact(&mut self.db, &self.config, Millis(1), &mut step, item, |turn| Ok(body(turn))).unwrap()
    }

    pub(super) fn event(&mut self, event: LinkEvent) -> Vec<Effect> {
        let mut step = Step::default();
        let fresh = Incarnation::new("fresh");
        let Lone { db, channels, config, .. } = self;
        link_event(db, channels, config, Millis(2), event, fresh, &mut step);
        step.effects
    }

    /// One handshake in which bob shows this life; returns the verdict.
    pub(super) fn greet(&mut self, life: &str, dialed: bool) -> (Verdict, Vec<Effect>) {
        self.channel += 1;
        let channel = ChannelId(self.channel);
        self.event(LinkEvent::FactsWanted { channel, peer: bob(), dialed });
        let theirs = Facts { incarnation: Incarnation::new(life), session: None };
        let effects = self.event(LinkEvent::HandshakeRead { channel, theirs, note_changed: false });
        let verdict = effects.iter().find_map(|effect| match effect {
            Effect::Link(LinkOrder::Answer { verdict, .. }) => Some(verdict.clone()),
            _ => None,
        });
        (verdict.expect("a verdict"), effects)
    }

    fn on_file(&self) -> Option<Incarnation> {
        self.db.get::<PeerIncarnations>(&bob()).and_then(|row| row.incarnation.clone())
    }

    pub(super) fn remote(&mut self) -> RemoteId {
        self.with(|turn| facts::ensure_remote(turn, &bob(), &[]).expect("a remote"))
    }

    /// An object of the peer's, held so that it stays.
    pub(super) fn theirs(&mut self, rid: RemoteId, name: &str) -> KRef {
        let eref: RRef = name.parse().unwrap();
        self.with(|turn| {
            let kref = clist::export(turn, rid.into(), eref.into()).unwrap();
            promise::hold_for_control(&mut turn.tx, kref, HoldKind::Handed).unwrap();
            kref
        })
    }

    pub(super) fn known(&self, rid: RemoteId, name: &str) -> Option<KRef> {
        let eref: RRef = name.parse().unwrap();
        let key = (EndpointId::Remote(rid), ERef::Remote(eref));
        self.db.get::<capstan_store::schema::ClistByEref>(&key).copied()
    }

    fn restart(&mut self, rid: RemoteId) -> Vec<Effect> {
        let mut step = Step::default();
        let item = || "restart".to_owned();
        transact(&mut self.db, &self.config, Millis(3), &mut step, item, |turn| {
            handle_peer_restart(turn, rid)
        })
        .unwrap();
        step.effects
    }

    fn counts(&self, ko: ObjectId) -> Option<(u64, u64)> {
        self.db.get::<Objects>(&ko).map(|row| (row.reachable, row.recognizable))
    }
}

#[test]
fn r112_r113_first_contact_and_the_same_life_pass() {
    for dialed in [true, false] {
        let mut lone = Lone::new();
        assert_eq!(lone.greet("A", dialed).0, Verdict::Register);
        assert_eq!(lone.on_file(), Some(Incarnation::new("A")));
        let _ = lone.db.take_changes();
        assert_eq!(lone.greet("A", dialed).0, Verdict::Register);
        assert!(lone.db.take_changes().is_empty(), "the same life writes nothing");
        assert_eq!(lone.db.len::<Remotes>(), 0);
    }
}

#[test]
fn r114_r119_r120_another_life_is_refused_once_and_starts_from_nothing() {
    for dialed in [true, false] {
        let mut lone = Lone::new();
        let rid = lone.remote();
        lone.greet("A", dialed);
        let mut row = lone.db.get::<Sessions>(&bob()).unwrap().clone();
        (row.recv, row.una) = (Seq(7), Seq(6));
        row.sent = Seq(5);
        lone.with(|turn| turn.tx.put::<Sessions>(bob(), row));
        lone.with(|turn| {
            super::super::deliver(turn, rid, super::super::RemoteDelivery::BringOutYourDead).unwrap()
        });
        assert_eq!(lone.db.len::<Outbox>(), 1);
        let (verdict, _) = lone.greet("B", dialed);
        assert_eq!(verdict, Verdict::Restarted);
        assert_eq!(lone.on_file(), Some(Incarnation::new("B")));
        let row = lone.db.get::<Sessions>(&bob()).unwrap();
        assert_eq!((row.una, row.sent, row.recv), (Seq(1), Seq(0), Seq(0)));
        assert_eq!(lone.db.len::<Outbox>(), 0);
        assert_eq!(lone.db.get::<Remotes>(&rid).unwrap().restarts_seen, 1);
        assert_eq!(lone.greet("B", dialed).0, Verdict::Register);
    }
}

#[test]
fn r115_without_a_remote_the_new_life_is_recorded_with_a_warning() {
    let mut lone = Lone::new();
    lone.greet("A", false);
    let (verdict, effects) = lone.greet("B", false);
    assert_eq!(verdict, Verdict::Restarted);
    assert_eq!(lone.on_file(), Some(Incarnation::new("B")));
    let warned =
        effects.iter().any(|effect| matches!(effect, Effect::Log { text, .. } if text.contains("no remote")));
    assert!(warned, "{effects:?}");
    assert_eq!(lone.greet("B", false).0, Verdict::Register);
}

#[test]
fn r116_a_contradictory_row_undoes_everything() {
    for dialed in [true, false] {
        let mut lone = Lone::new();
        let rid = lone.remote();
        lone.greet("A", dialed);
        let kref = lone.theirs(rid, "ro+1");
        lone.theirs(rid, "rp+2");
        let ko = kref.object().unwrap();
        let mut tx = lone.db.begin();
        tx.delete::<Objects>(&ko);
        tx.commit();
        let picture = |db: &Db| {
            let t = db.tables();
            format!(
                "{:?}",
                (
                    &t.objects,
                    &t.promises,
                    &t.clist,
                    &t.clist_by_eref,
                    &t.importers,
                    &t.run_queue,
                    &t.gc_actions,
                    (
                        &t.remotes,
                        &t.sessions,
                        &t.outbox,
                        &t.peer_incarnations,
                        &t.redemptions,
                        &t.holds,
                        &t.promises_by_decider,
                        &t.meta
                    )
                )
            )
        };
        let before = picture(&lone.db);
        let (verdict, effects) = lone.greet("B", dialed);
        assert!(matches!(verdict, Verdict::Refuse(_)), "{verdict:?}");
        assert_eq!(picture(&lone.db), before);
        assert_eq!(lone.on_file(), Some(Incarnation::new("A")));
        let reset = effects.iter().any(|effect| matches!(effect, Effect::Link(LinkOrder::ResetNote { .. })));
        assert!(!reset, "nothing is finalised");
    }
}

#[test]
fn r117_r124_promises_that_the_peer_decides_are_rejected_before_their_names_go() {
    let mut lone = Lone::new();
    let rid = lone.remote();
    let passed = lone.theirs(rid, "rp+2").promise().unwrap();
    let ours: PromiseId = lone.with(|turn| {
        let kp = promise::create(&mut turn.tx, Some(Decider::Endpoint(rid.into())));
        clist::import(turn, rid.into(), kp.into()).unwrap();
        promise::hold_for_control(&mut turn.tx, kp.into(), HoldKind::Handed).unwrap();
        kp
    });
    let foreign = lone.theirs(rid, "rp+3").promise().unwrap();
    lone.with(|turn| promise::set_decider(&mut turn.tx, foreign, Some(Decider::Kernel)).unwrap());
    lone.restart(rid);
    for kp in [passed, ours] {
        let row = lone.db.get::<Promises>(&kp).unwrap();
        let PromiseState::Rejected(value) = &row.state else { panic!("{row:?}") };
        assert!(value.body.contains("[KERNEL:PEER_RESTARTED] Remote peer restarted (incarnation changed)"));
    }
    let row = lone.db.get::<Promises>(&foreign).unwrap();
    assert!(matches!(row.state, PromiseState::Unresolved { .. }), "another decides it");
    assert_eq!(row.count, 2, "its decider's claim and the hold");
    assert_eq!(lone.known(rid, "rp+2"), None);
    assert_eq!(lone.known(rid, "rp+3"), None);
    assert_eq!(lone.known(rid, "rp-1"), Some(ours.into()));
}

#[test]
fn r123_r125_objects_of_the_peer_become_orphans() {
    let mut lone = Lone::new();
    let rid = lone.remote();
    let ko = lone.theirs(rid, "ro+7").object().unwrap();
    let before = lone.counts(ko);
    lone.restart(rid);
    assert_eq!(lone.known(rid, "ro+7"), None);
    assert!(lone.db.get::<Clist>(&(rid.into(), ko.into())).is_none());
    assert_eq!(lone.db.get::<Objects>(&ko).unwrap().owner, None);
    assert_eq!(lone.counts(ko), before);
}

#[test]
fn r126_an_object_that_moved_to_another_owner_loses_only_its_name() {
    let mut lone = Lone::new();
    let rid = lone.remote();
    let ko = lone.theirs(rid, "ro+7").object().unwrap();
    let owner = Some(Owner::Endpoint(EndpointId::Vat(VatId(9))));
    let row: ObjectRow = lone.db.get::<Objects>(&ko).unwrap().clone();
    lone.with(|turn| turn.tx.put::<Objects>(ko, ObjectRow { owner, ..row }));
    let before = lone.counts(ko);
    let effects = lone.restart(rid);
    assert_eq!(lone.known(rid, "ro+7"), None);
    assert_eq!(lone.db.get::<Objects>(&ko).unwrap().owner, owner);
    assert_eq!(lone.counts(ko), before);
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Log { text, .. } if text.contains("another owner")))
    );
}

#[test]
fn r127_r128_what_we_exported_stays_and_half_entries_are_skipped() {
    let mut lone = Lone::new();
    let rid = lone.remote();
    let kref = lone.with(|turn| {
        let ko = clist::new_object(&mut turn.tx, Some(Owner::Kernel));
        clist::import(turn, rid.into(), ko.into()).unwrap();
        KRef::Object(ko)
    });
    lone.theirs(rid, "ro+1");
    let half: RRef = "ro+8".parse().unwrap();
    lone.with(|turn| {
        let key = (EndpointId::Remote(rid), ERef::Remote(half));
        turn.tx.put::<capstan_store::schema::ClistByEref>(key, KRef::Object(ObjectId(99)));
    });
    let effects = lone.restart(rid);
    assert_eq!(lone.known(rid, "ro-1"), Some(kref));
    assert_eq!(lone.known(rid, "ro+1"), None);
    assert_eq!(lone.counts(kref.object().unwrap()), Some((1, 1)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Log { text, .. } if text.contains("ro+8"))));
}

#[test]
fn r118_nothing_to_settle_settles_nothing() {
    let mut lone = Lone::new();
    let rid = lone.remote();
    let effects = lone.restart(rid);
    assert_eq!(effects.len(), 1, "only the note is reset: {effects:?}");
    assert_eq!(lone.db.len::<RunQueue>(), 0);
}

#[test]
fn d24_messages_of_the_dead_life_lose_their_result_only() {
    let mut lone = Lone::new();
    let rid = lone.remote();
    let result = lone.theirs(rid, "rp+1").promise().unwrap();
    lone.with(|turn| {
        let ko = clist::new_object(&mut turn.tx, Some(Owner::Endpoint(EndpointId::Vat(VatId(1)))));
        let methargs = CapData::data("#[\"m\",[]]");
        let item = capstan_store::schema::SendItem { target: ko.into(), methargs, result: Some(result) };
        crate::queue::enqueue_send(&mut turn.tx, item).unwrap();
    });
    lone.restart(rid);
    let results: Vec<_> = lone
        .db
        .iter::<RunQueue>()
        .filter_map(|(_, item)| match item {
            capstan_store::schema::QueueItem::Send(item) => Some(item.result),
            capstan_store::schema::QueueItem::Notify { .. }
            | capstan_store::schema::QueueItem::Unreadable(_) => None,
        })
        .collect();
    assert_eq!(results, [None]);
}

#[test]
fn r122_the_echo_mark_goes_with_the_session() {
    let mut lone = Lone::new();
    let rid = lone.remote();
    lone.with(|turn| forget::set_echo(turn, rid));
    lone.restart(rid);
    let deliver = |turn: &mut Turn<'_>| {
        super::super::deliver(turn, rid, super::super::RemoteDelivery::BringOutYourDead).unwrap()
    };
    lone.with(deliver);
    assert_eq!(lone.db.len::<Outbox>(), 1);
    lone.with(|turn| forget::set_echo(turn, rid));
    lone.with(deliver);
    assert_eq!(lone.db.len::<Outbox>(), 1, "the peer asked for this reap");
}

#[test]
fn r111_what_we_export_is_ours_in_our_list_and_the_senders_on_the_wire() {
    let mut lone = Lone::new();
    let rid = lone.remote();
    lone.with(|turn| facts::record_life(turn, &bob(), Some(Incarnation::new("A"))));
    let theirs = lone.theirs(rid, "ro+3");
    let new_object = |turn: &mut Turn<'_>| {
        let ko = clist::new_object(&mut turn.tx, Some(Owner::Kernel));
        promise::hold_for_control(&mut turn.tx, ko.into(), HoldKind::Handed).unwrap();
        ko
    };
    let (told, untold) = lone.with(|turn| (new_object(turn), new_object(turn)));
    let call = |target: KRef, slots: Vec<KRef>| {
        let methargs = CapData { body: "#[\"m\",[\"$0\"]]".into(), slots };
        super::super::RemoteDelivery::Message(capstan_store::schema::SendItem {
            target,
            methargs,
            result: None,
        })
    };
    let deliver = |lone: &mut Lone, target: KRef, slots: Vec<KRef>| {
        lone.with(|turn| super::super::deliver(turn, rid, call(target, slots)).unwrap())
    };
    for _ in 0..2 {
        assert_eq!(deliver(&mut lone, theirs, vec![told.into()]), Delivered::Queued);
    }
    assert_eq!(lone.known(rid, "ro-1"), Some(told.into()));
    assert_eq!(lone.known(rid, "ro-2"), None, "the second mention is the same name");
    let texts: Vec<String> = lone.db.iter::<Outbox>().map(|(_, row)| row.text.to_string()).collect();
    assert_eq!(texts.len(), 2);
    for text in texts {
        assert!(text.contains(r#"["message","ro-3",{"methargs":"#), "{text}");
        assert!(text.contains(r#""slots":["ro+1"]"#), "{text}");
    }
    // The other way round: their names in our terms, and back.
    let wire: capstan_model::refs::WireRef = "ro-1".parse().unwrap();
    assert_eq!(wire.received().to_string(), "ro-1", "ours, as they say it");
    assert_eq!(lone.known(rid, &wire.received().to_string()), Some(told.into()));
    // A target is never introduced by being called.
    let refused = deliver(&mut lone, untold.into(), vec![theirs]);
    assert_eq!(refused, Delivered::Refused(format!("the peer does not know {untold}")));
    assert_eq!((lone.db.len::<Outbox>(), lone.known(rid, "ro-2")), (2, None));
}
