//! What a peer's restart does to rows (03 D.2 to D.5), met by a peer whose every word the test decides.

use crate::pairs::{Meeting, PAIRS, meeting, strangers};
use capstan_kernel::host_op::Refusal;
use capstan_model::id::{EndpointId, KRef, PromiseId};
use capstan_model::peer::{Incarnation, Seq};
use capstan_model::refs::ERef;
use capstan_sim::passable::Passable;
use capstan_sim::world::Restart;
use capstan_store::schema::{
    ChangeSet, Clist, ClistRow, DeadLetters, Decider, Meta, Objects, Outbox, Owner, PromiseState, Promises,
};
use capstan_wire::seam::Verdict;
use serde_json::json;

fn life(text: &str) -> Option<Incarnation> {
    Some(Incarnation::new(text))
}

#[test]
fn r112_first_contact_is_recorded_and_is_no_restart() {
    for pair in PAIRS {
        let mut meeting = strangers(112, pair);
        assert_eq!(meeting.connect(false), Verdict::Register, "{pair:?}");
        assert_eq!(meeting.on_file(), life("dee-1"));
        meeting.target = meeting.redeem();
        assert_eq!(meeting.remote().restarts_seen, 0);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r113_the_life_we_know_writes_nothing() {
    for pair in PAIRS {
        let mut meeting = meeting(113, pair);
        meeting.dee.hang_up(&mut meeting.world);
        let before = meeting.world.rows(meeting.bob);
        assert_eq!(meeting.connect(false), Verdict::Register, "{pair:?}");
        assert_eq!(meeting.world.rows(meeting.bob), before);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r114_another_life_resets_and_is_recorded() {
    for pair in PAIRS {
        let mut meeting = meeting(114, pair);
        meeting.dee.hang_up(&mut meeting.world);
        meeting.dee.wipe("dee-2");
        let refused = meeting.connect(false);
        assert_eq!(refused == Verdict::Restarted, !meeting.session, "{pair:?}");
        assert_eq!(meeting.on_file(), life("dee-2"));
        assert_eq!(meeting.remote().restarts_seen, 1);
        let row = meeting.session_row();
        assert_eq!((row.una, row.sent, row.recv), (Seq(1), Seq(0), Seq(0)));
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r115_another_life_of_a_peer_without_remote_is_recorded_with_a_warning() {
    for pair in PAIRS {
        let mut meeting = strangers(115, pair);
        assert_eq!(meeting.connect(false), Verdict::Register);
        meeting.dee.hang_up(&mut meeting.world);
        meeting.dee.wipe("dee-2");
        let refused = meeting.connect(false);
        assert_eq!(refused == Verdict::Restarted, !meeting.session, "{pair:?}");
        assert_eq!(meeting.on_file(), life("dee-2"));
        let warned =
            meeting.world.log(meeting.bob).iter().any(|line| line.contains("no remote for this peer"));
        assert_eq!(warned, !meeting.session);
        assert_eq!(meeting.world.remote(meeting.bob, &meeting.dee.peer), None);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r115b_a_handshake_during_boot_resets_in_full() {
    for pair in PAIRS {
        let mut meeting = meeting(115, pair);
        meeting.world.kill(meeting.bob);
        meeting.dee.wipe("dee-2");
        meeting.world.start(meeting.bob);
        // Not a moment passes: what Dee says is queued right behind the start.
        meeting.connect_until_registered();
        assert_eq!(meeting.remote().restarts_seen, 1);
        assert_eq!(meeting.redeem(), meeting.target, "{pair:?}: number 1 of the new life is heard");
        meeting.world.assert_quiescent();
    }
}

/// A row that contradicts itself: the peer's c-list names a promise that does not exist.
fn contradiction(meeting: &Meeting) -> ChangeSet {
    let row = ClistRow { eref: ERef::Remote("rp+9".parse().unwrap()), reachable: true, last_mention: Seq(0) };
    let key = (meeting.endpoint(), KRef::Promise(PromiseId(999)));
    ChangeSet { clist: [(key, Some(row))].into(), ..ChangeSet::default() }
}

#[test]
fn r116_r133_a_failed_reset_is_undone_and_the_handshake_fails() {
    for pair in PAIRS {
        for dialed in [false, true] {
            let mut meeting = meeting(116, pair);
            let bob = meeting.bob;
            let broken = contradiction(&meeting);
            meeting.dee_calls("#[\"hang\",[\"h\"]]", &[], Some("rp+1"));
            meeting.world.reconfigure(bob, |config| config.audit_every_transaction = false);
            meeting.world.kill(bob);
            meeting.world.tamper(bob, &broken);
            meeting.world.start(bob);
            meeting.world.run_until_quiet();
            let before = meeting.world.rows(bob);
            meeting.dee.wipe("dee-2");
            let Verdict::Refuse(reason) = meeting.connect(dialed) else { panic!("{pair:?}: not refused") };
            assert!(reason.contains("handshake failed"), "{reason}");
            // The old life is still on file, and so is everything else but the note of the fault itself.
            let after = meeting.world.rows(bob);
            let same = ChangeSet {
                dead_letters: before.dead_letters.clone(),
                counters: before.counters.clone(),
                ..after
            };
            assert_eq!(same, before, "{pair:?}");
            assert_eq!(meeting.on_file(), life("dee-1"));
            assert_ne!(meeting.world.db(bob).len::<DeadLetters>(), 0, "the fault is not on record");
            // The next handshake compares again.
            let Verdict::Refuse(_) = meeting.connect(dialed) else { panic!("{pair:?}: not refused again") };
        }
    }
}

#[test]
fn r117_promises_that_the_peer_decides_reject_once_and_in_order() {
    for pair in PAIRS {
        let mut meeting = meeting(117, pair);
        meeting.dee_calls("#[\"keep\",[\"dee\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        meeting.dee_calls("#[\"keep\",[\"given\",\"&0\"]]", &["rp+2"], Some("rp+3"));
        meeting.puppet("watch", &["given"]);
        meeting.puppet("begin", &["dee", "hello", "answer"]);
        assert_eq!(meeting.seen("answer"), None);
        meeting.dee_restarts();
        meeting.world.run_until_quiet();
        for name in ["answer", "given"] {
            let seen = meeting.seen(name).unwrap();
            assert!(seen.starts_with("rejected [Error: [KERNEL:PEER_RESTARTED] "), "{pair:?} {name}: {seen}");
            assert_eq!(meeting.world.stored(meeting.bob, meeting.puppet, &format!("twice.{name}")), None);
        }
        let place = |n| meeting.world.stored(meeting.bob, meeting.puppet, &format!("place.{n}"));
        assert_eq!((place(1).as_deref(), place(2).as_deref()), (Some("given"), Some("answer")));
        meeting.settle();
    }
}

#[test]
fn r117c_a_call_of_the_dead_life_is_executed_once_without_an_answer() {
    for pair in PAIRS {
        // Dispatched and not complete.
        let mut meeting = meeting(1171, pair);
        meeting.world.pause(meeting.bob, meeting.puppet);
        meeting.dee_calls("#[\"object\",[\"once\"]]", &[], Some("rp+4"));
        meeting.dee_restarts();
        meeting.world.resume(meeting.bob, meeting.puppet);
        meeting.world.run_until_quiet();
        assert_eq!(meeting.kref("rp+4"), None, "{pair:?}");
        let made = meeting.world.stored(meeting.bob, meeting.puppet, "next.object");
        assert_eq!(made.as_deref(), Some("1"), "{pair:?}");
        meeting.puppet("object", &["another"]);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r117c_a_queued_call_of_the_dead_life_is_executed_once_without_an_answer() {
    for pair in PAIRS {
        let mut meeting = meeting(1172, pair);
        // Waits on a promise of the puppet's.
        meeting.dee_calls("#[\"promise\",[\"p\"]]", &[], Some("rp+1"));
        let told = meeting.dee.heard(&mut meeting.world);
        assert!(told.iter().any(|text| text.contains("rp+1")), "{told:?}");
        let parked = capstan_sim::stranger::message("rp-1", "#[\"object\",[\"once\"]]", &[], Some("rp+4"));
        meeting.dee.send(&mut meeting.world, "deliver", parked);
        meeting.dee_restarts();
        assert_eq!(meeting.kref("rp+4"), None, "{pair:?}");
        let args = vec!["p".value(), meeting.puppet.value()];
        meeting.world.call_with(meeting.bob, meeting.puppet, "fulfil", args).fulfils(());
        meeting.world.run_until_quiet();
        let made = meeting.world.stored(meeting.bob, meeting.puppet, "next.object");
        assert_eq!(made.as_deref(), Some("1"), "{pair:?}");
        meeting.settle();
    }
}

#[test]
fn r118_without_promises_nothing_is_settled() {
    for pair in PAIRS {
        let mut meeting = meeting(118, pair);
        let before = meeting.world.rows(meeting.bob).promises;
        meeting.dee_restarts();
        let after = meeting.world.rows(meeting.bob);
        assert_eq!((&after.promises, after.run_queue.len()), (&before, 0), "{pair:?}");
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r119_numbers_start_again_in_both_directions() {
    for pair in PAIRS {
        let mut meeting = meeting(119, pair);
        for n in 1..=4 {
            meeting.dee_calls("#[\"promise\",[\"p\"]]", &[], Some(&format!("rp+{n}")));
        }
        meeting.dee.heard(&mut meeting.world);
        let row = meeting.session_row();
        assert_eq!((row.sent, row.recv), (Seq(5), Seq(5)), "{pair:?}");
        meeting.dee_restarts();
        meeting.dee_calls("#[\"promise\",[\"p\"]]", &[], Some("rp+1"));
        let heard = meeting.dee.heard(&mut meeting.world);
        assert_eq!((meeting.dee.sent, meeting.session_row().recv), (Seq(1), Seq(1)));
        let first = heard.iter().find(|text| text.starts_with("{\"seq\"")).unwrap();
        assert!(first.starts_with("{\"seq\":1,"), "{pair:?}: {first}");
        meeting.dee.acknowledge(&mut meeting.world);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r119_the_first_frame_to_the_new_life_acknowledges_nothing() {
    for pair in PAIRS {
        let mut meeting = meeting(119, pair);
        meeting.dee_restarts();
        // Nobody but us has spoken in the new session yet.
        let url = format!("ocap:zAny@{}", meeting.dee.peer);
        meeting.world.start_redeem(meeting.bob, &url);
        meeting.world.advance(50);
        let heard = meeting.dee.heard(&mut meeting.world);
        let first = heard.iter().find(|text| text.starts_with("{\"seq\"")).unwrap();
        assert!(first.starts_with("{\"seq\":1,\"method\""), "{pair:?}: {first}");
    }
}

#[test]
fn r120_the_outbox_and_the_counters_go_and_the_record_stays() {
    for pair in PAIRS {
        let mut meeting = meeting(120, pair);
        let bob = meeting.bob;
        for n in 1..=3 {
            meeting.dee_calls("#[\"promise\",[\"p\"]]", &[], Some(&format!("rp+{n}")));
        }
        meeting.world.run_until_quiet();
        assert!(meeting.world.outbox_len(bob) >= 3, "{pair:?}");
        let (rid, record) = (meeting.rid(), meeting.remote());
        meeting.dee_restarts();
        assert_eq!(meeting.world.db(bob).len::<Outbox>(), 0);
        let row = meeting.session_row();
        assert_eq!((row.una, row.sent, row.recv), (Seq(1), Seq(0), Seq(0)));
        let kept = meeting.remote();
        assert_eq!(meeting.rid(), rid);
        assert_eq!((kept.next_object, kept.next_promise), (record.next_object, record.next_promise));
        assert_eq!(kept.hints, record.hints);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r121_a_redemption_in_flight_is_refused() {
    for pair in PAIRS {
        let mut meeting = meeting(121, pair);
        let url = format!("ocap:zAny@{}", meeting.dee.peer);
        let request = meeting.world.start_redeem(meeting.bob, &url);
        meeting.world.run_until(|world| world.outbox_len(meeting.bob) > 0);
        assert_eq!(meeting.world.answer(request), None);
        meeting.dee_restarts();
        let refused = Err(Refusal::PeerRestarted);
        assert_eq!(meeting.world.answer(request), Some(&refused), "{pair:?}");
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r122_the_echo_mark_goes() {
    for pair in PAIRS {
        let mut meeting = meeting(122, pair);
        let (bob, rid) = (meeting.bob, meeting.rid());
        let key: std::sync::Arc<str> = format!("gcEcho {rid}").into();
        meeting.world.kill(bob);
        let mark = ChangeSet { meta: [(key.clone(), Some("1".into()))].into(), ..ChangeSet::default() };
        meeting.world.tamper(bob, &mark);
        meeting.world.start(bob);
        meeting.dee_restarts();
        assert_eq!(meeting.world.db(bob).get::<Meta>(&key), None, "{pair:?}");
        meeting.dee.send(&mut meeting.world, "deliver", json!(["bringOutYourDead"]));
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r127b_a_fresh_life_that_redeems_the_same_url_gets_the_same_name() {
    for pair in PAIRS {
        let mut meeting = meeting(1272, pair);
        meeting.dee_restarts();
        assert_eq!(meeting.redeem(), meeting.target, "{pair:?}");
        meeting.world.assert_quiescent();
    }
}

#[test]
fn a_restart_of_our_own_is_none_of_the_peer() {
    for pair in PAIRS {
        let mut meeting = meeting(1, pair);
        meeting.dee_calls("#[\"hang\",[\"h\"]]", &[], Some("rp+1"));
        meeting.dee.heard(&mut meeting.world);
        meeting.world.restart(meeting.bob, Restart::Keep);
        assert_eq!(meeting.connect(false), Verdict::Register, "{pair:?}");
        let kp = meeting.kref("rp+1").and_then(KRef::promise).unwrap();
        let state = meeting.world.db(meeting.bob).get::<Promises>(&kp).unwrap().state.clone();
        let vat = EndpointId::Vat(meeting.world.vat_of(meeting.bob, meeting.puppet));
        // The vat's worker is another one: what it had promised is rejected, everything else goes on.
        let rejected = matches!(state, PromiseState::Rejected(_));
        let decided = matches!(state, PromiseState::Unresolved { decider: Some(Decider::Endpoint(by)), .. } if by == vat);
        assert!(rejected || decided, "{state:?}");
        let owner = meeting.world.db(meeting.bob).get::<Objects>(&meeting.puppet).unwrap().owner;
        assert_eq!(owner, Some(Owner::Endpoint(vat)));
        assert_ne!(meeting.world.db(meeting.bob).len::<Clist>(), 0);
        assert_eq!(meeting.remote().restarts_seen, 0);
    }
}
