//! What becomes of a delivery to a peer: frames of its outbox, written without a peer to read them.

use super::verdict::{Lone, bob};
use crate::clist;
use crate::kernel::Generation;
use crate::promise;
use crate::remote::{Delivered, RemoteDelivery, facts, outbox};
use capstan_model::capdata::CapData;
use capstan_model::error::IntentionalCloseError;
use capstan_model::id::{KRef, PromiseId, RemoteId};
use capstan_model::peer::Seq;
use capstan_store::schema::{HoldKind, Outbox, OutboxRow, Remotes, SendItem};

fn session() -> (Lone, RemoteId) {
    let mut lone = Lone::new();
    lone.config.generation = Generation::Session;
    let rid = lone.remote();
    (lone, rid)
}

/// A promise that the peer knows and awaits, settled with this text.
fn told(lone: &mut Lone, rid: RemoteId, text: &str) -> PromiseId {
    lone.with(|turn| {
        let kp = promise::create(&mut turn.tx, None);
        clist::import(turn, rid.into(), kp.into()).unwrap();
        promise::hold_for_control(&mut turn.tx, kp.into(), HoldKind::Handed).unwrap();
        promise::settle(turn, kp, None, false, CapData::data(format!("#\"{text}\""))).unwrap();
        kp
    })
}

fn deliver(lone: &mut Lone, rid: RemoteId, delivery: RemoteDelivery) -> Delivered {
    lone.with(|turn| outbox::deliver(turn, rid, delivery).unwrap())
}

fn message(target: KRef, slots: &[KRef]) -> RemoteDelivery {
    let methargs = CapData { body: "#[\"greet\",[\"$0\"]]".into(), slots: slots.to_vec() };
    RemoteDelivery::Message(SendItem { target, methargs, result: None })
}

fn rows(lone: &Lone, rid: RemoteId) -> Vec<OutboxRow> {
    let all = lone.db.range::<Outbox>((rid, Seq(0))..=(rid, Seq(u64::MAX)));
    all.map(|(_, row)| row.clone()).collect()
}

fn limit(lone: &mut Lone, bytes: u64) {
    lone.with(|turn| facts::record_frame_limit(turn, &bob(), bytes));
}

#[test]
fn a_promise_whose_name_is_being_retired_is_another_promise_when_it_is_named_again() {
    let (mut lone, rid) = session();
    let target = lone.theirs(rid, "ro+1");
    let kp = told(&mut lone, rid, "done");
    deliver(&mut lone, rid, RemoteDelivery::Notify(vec![kp]));
    assert!(matches!(deliver(&mut lone, rid, message(target, &[kp.into()])), Delivered::Queued));
    let frames = rows(&lone, rid);
    assert_eq!((frames.len(), &frames[0].retires), (2, &vec![kp]));
    assert!(frames[0].text.contains("rp+1") && !frames[1].text.contains("rp+1"), "{frames:?}");
    let Some(KRef::Promise(copy)) = lone.known(rid, "rp-2") else { panic!("{frames:?}") };
    // The copy has the same settlement, and its name is told of once and retired like any other.
    deliver(&mut lone, rid, RemoteDelivery::Notify(vec![copy, copy, kp]));
    let frames = rows(&lone, rid);
    assert_eq!((frames.len(), &frames[2].retires), (3, &vec![copy]));
    assert!(frames[2].text.contains(r#"[["rp+2",false,"#) && frames[2].text.contains("done"), "{frames:?}");
    lone.with(|turn| outbox::acknowledge(turn, Some(rid), &bob(), Seq(3), true).unwrap());
    assert_eq!((rows(&lone, rid).len(), lone.known(rid, "rp-1"), lone.known(rid, "rp-2")), (0, None, None));
}

#[test]
fn b33b_settlements_too_long_together_go_in_frames_of_their_own() {
    let (mut lone, rid) = session();
    let all: Vec<_> = (0..4).map(|_| told(&mut lone, rid, &"x".repeat(300))).collect();
    limit(&mut lone, 800);
    deliver(&mut lone, rid, RemoteDelivery::Notify(all.clone()));
    let frames = rows(&lone, rid);
    assert_eq!(frames.iter().map(|row| row.retires.clone()).collect::<Vec<_>>(), [&all[..2], &all[2..]]);
    assert!(frames.iter().all(|row| row.text.len() <= 800 && !row.text.contains("DELIVERY_FAILED")));
}

#[test]
fn b33b_a_settlement_too_long_by_itself_is_replaced_toward_a_classic_peer_too() {
    let mut lone = Lone::new();
    let rid = lone.remote();
    let kp = told(&mut lone, rid, &"x".repeat(2_000));
    limit(&mut lone, 800);
    deliver(&mut lone, rid, RemoteDelivery::Notify(vec![kp]));
    let frames = rows(&lone, rid);
    assert!(frames.len() == 1 && frames[0].text.contains("[KERNEL:DELIVERY_FAILED]"), "{frames:?}");
    assert!(frames[0].retires.is_empty(), "the name is kept");
    // It counts as told: there is no second time.
    deliver(&mut lone, rid, RemoteDelivery::Notify(vec![kp]));
    assert_eq!(rows(&lone, rid).len(), 1);
}

#[test]
fn of_deliveries_to_a_closed_or_unknown_peer_only_messages_are_refused() {
    let (mut lone, rid) = session();
    let target = lone.theirs(rid, "ro+1");
    let kp = told(&mut lone, rid, "done");
    lone.with(|turn| turn.tx.update::<Remotes, _>(&rid, |row| row.closed = true));
    for (whom, why) in [(rid, IntentionalCloseError::MESSAGE), (RemoteId(9), "no such peer")] {
        let Delivered::Refused(reason) = deliver(&mut lone, whom, message(target, &[])) else {
            panic!("{whom}")
        };
        assert_eq!(reason, why);
        let of_object = vec![target.object().unwrap()];
        for delivery in [
            RemoteDelivery::Notify(vec![kp]),
            RemoteDelivery::DropExports(of_object.clone()),
            RemoteDelivery::RetireExports(of_object.clone()),
            RemoteDelivery::RetireImports(of_object),
            RemoteDelivery::BringOutYourDead,
        ] {
            assert!(matches!(deliver(&mut lone, whom, delivery), Delivered::Queued), "{whom}");
        }
        assert_eq!(rows(&lone, whom).len(), 0, "{whom}");
    }
    assert!(!lone.with(|turn| outbox::wanted(&turn.tx, rid)), "a closed peer is not dialled");
}

#[test]
fn a_settlement_whose_name_was_torn_down_meanwhile_is_told_to_nobody() {
    let (mut lone, rid) = session();
    let (gone, kept) = (told(&mut lone, rid, "one"), told(&mut lone, rid, "two"));
    lone.with(|turn| clist::remove(&mut turn.tx, rid.into(), gone.into()).unwrap());
    deliver(&mut lone, rid, RemoteDelivery::Notify(vec![gone]));
    assert_eq!(rows(&lone, rid).len(), 0);
    deliver(&mut lone, rid, RemoteDelivery::Notify(vec![gone, kept]));
    assert_eq!(rows(&lone, rid).iter().map(|row| row.retires.clone()).collect::<Vec<_>>(), [vec![kept]]);
}
