//! What the tear-down of a restarted peer's contributions removes, and what it leaves (03 D.5).

use crate::pairs::{Meeting, PAIRS, meeting};
use capstan_kernel::kernel::Generation;
use capstan_model::id::{EndpointId, KRef};
use capstan_model::peer::Seq;
use capstan_model::refs::ERef;
use capstan_sim::passable::Passable;
use capstan_store::schema::{ChangeSet, Clist, ClistRow, Decider, Objects, Owner, PromiseState, Promises};

/// Dee gives the puppet her object `ro+7`, kept as `seven`.
fn with_object(seed: u64, pair: (Generation, Generation)) -> Meeting {
    let mut meeting = meeting(seed, pair);
    meeting.dee_calls("#[\"keep\",[\"seven\",\"$0\"]]", &["ro+7"], Some("rp+1"));
    meeting.dee.heard(&mut meeting.world);
    meeting.dee.acknowledge(&mut meeting.world);
    meeting
}

/// Changes rows behind the kernel's back, which no audit would let pass.
fn tamper(meeting: &mut Meeting, rows: &ChangeSet) {
    let bob = meeting.bob;
    meeting.world.reconfigure(bob, |config| config.audit_every_transaction = false);
    meeting.world.kill(bob);
    meeting.world.tamper(bob, rows);
    meeting.world.start(bob);
    meeting.world.run_until_quiet();
}

fn warnings(meeting: &Meeting) -> Vec<String> {
    let log = meeting.world.log(meeting.bob).iter();
    log.filter(|line| line.starts_with("Warn")).cloned().collect()
}

#[test]
fn r123_both_halves_of_a_peers_object_go() {
    for pair in PAIRS {
        let mut meeting = with_object(123, pair);
        let ko = meeting.kref("ro+7").unwrap();
        meeting.dee_restarts();
        assert_eq!(meeting.kref("ro+7"), None, "{pair:?}");
        assert_eq!(meeting.world.db(meeting.bob).get::<Clist>(&(meeting.endpoint(), ko)), None);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r123b_names_of_the_new_life_mean_new_things() {
    for pair in PAIRS {
        let mut meeting = meeting(1232, pair);
        meeting.dee_calls("#[\"keep\",[\"old\",\"$0\"]]", &["ro+1"], Some("rp+1"));
        meeting.dee.heard(&mut meeting.world);
        meeting.dee.acknowledge(&mut meeting.world);
        let old = meeting.kref("ro+1").unwrap();
        meeting.dee_restarts();
        meeting.dee_calls("#[\"keep\",[\"new\",\"$0\"]]", &["ro+1"], Some("rp+2"));
        meeting.dee_calls("#[\"hang\",[\"h\"]]", &[], Some("rp+1"));
        let new = meeting.kref("ro+1").unwrap();
        assert_ne!(new, old, "{pair:?}");
        let kp = meeting.kref("rp+1").and_then(KRef::promise).unwrap();
        let state = &meeting.world.db(meeting.bob).get::<Promises>(&kp).unwrap().state;
        assert!(matches!(state, PromiseState::Unresolved { .. }), "{state:?}");
        let bob = meeting.bob;
        let call = vec!["old".value(), "hello".value()];
        meeting.world.call_with(bob, meeting.puppet, "call", call).rejects("[KERNEL:OBJECT_DELETED]");
        meeting.dee.heard(&mut meeting.world);
        meeting.puppet("tell", &["new", "hello"]);
        meeting.world.advance(100);
        let heard = meeting.dee.heard(&mut meeting.world);
        assert!(heard.iter().any(|text| text.contains("\"ro-1\"") && text.contains("hello")), "{heard:?}");
        meeting.dee.acknowledge(&mut meeting.world);
        meeting.world.assert_audit();
    }
}

#[test]
fn r124_the_deciders_claim_is_released_once_and_only_if_it_is_the_peers() {
    for pair in PAIRS {
        let mut meeting = meeting(124, pair);
        meeting.dee_calls("#[\"keep\",[\"given\",\"&0\"]]", &["rp+2"], Some("rp+1"));
        meeting.dee_calls("#[\"hang\",[\"h\"]]", &[], Some("rp+3"));
        meeting.dee.heard(&mut meeting.world);
        let given = meeting.kref("rp+2").and_then(KRef::promise).unwrap();
        let hanging = meeting.kref("rp+3").and_then(KRef::promise).unwrap();
        meeting.dee_restarts();
        let db = meeting.world.db(meeting.bob);
        assert_eq!((meeting.kref("rp+2"), meeting.kref("rp+3")), (None, None), "{pair:?}");
        if let Some(row) = db.get::<Promises>(&given) {
            assert!(matches!(row.state, PromiseState::Rejected(_)), "{row:?}");
        }
        let vat = EndpointId::Vat(meeting.world.vat_of(meeting.bob, meeting.puppet));
        let row = db.get::<Promises>(&hanging).unwrap();
        let decider = match &row.state {
            PromiseState::Unresolved { decider, .. } => *decider,
            PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => None,
        };
        assert_eq!(decider, Some(Decider::Endpoint(vat)));
        meeting.puppet("fulfil", &["h", "nobody hears this"]);
        meeting.settle();
    }
}

#[test]
fn r125_an_object_of_the_peer_becomes_an_orphan() {
    for pair in PAIRS {
        let mut meeting = with_object(125, pair);
        let ko = meeting.kref("ro+7").and_then(KRef::object).unwrap();
        meeting.dee_restarts();
        let row = meeting.world.db(meeting.bob).get::<Objects>(&ko).unwrap().clone();
        // The puppet holds it and nobody else.
        assert_eq!((row.owner, row.reachable, row.recognizable), (None, 1, 1), "{pair:?}");
        meeting.puppet("drop", &["seven"]);
        meeting.world.run_until_quiet();
        assert_eq!(meeting.world.db(meeting.bob).get::<Objects>(&ko), None);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r125b_a_pair_without_an_owner_goes_without_a_warning() {
    for pair in PAIRS {
        let mut meeting = with_object(1252, pair);
        let ko = meeting.kref("ro+7").and_then(KRef::object).unwrap();
        let mut row = meeting.world.db(meeting.bob).get::<Objects>(&ko).unwrap().clone();
        row.owner = None;
        tamper(&mut meeting, &ChangeSet { objects: [(ko, Some(row))].into(), ..ChangeSet::default() });
        let before = warnings(&meeting);
        meeting.dee_restarts();
        assert_eq!(meeting.kref("ro+7"), None, "{pair:?}");
        assert_eq!(warnings(&meeting), before);
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r126_an_object_that_moved_loses_its_name_only() {
    for pair in PAIRS {
        let mut meeting = with_object(126, pair);
        let ko = meeting.kref("ro+7").and_then(KRef::object).unwrap();
        let mut row = meeting.world.db(meeting.bob).get::<Objects>(&ko).unwrap().clone();
        row.owner = Some(Owner::Kernel);
        let moved = row.clone();
        tamper(&mut meeting, &ChangeSet { objects: [(ko, Some(row))].into(), ..ChangeSet::default() });
        meeting.dee_restarts();
        assert_eq!(meeting.kref("ro+7"), None, "{pair:?}");
        assert_eq!(meeting.world.db(meeting.bob).get::<Objects>(&ko), Some(&moved));
        assert!(warnings(&meeting).iter().any(|line| line.contains("another owner")), "{pair:?}");
    }
}

#[test]
fn r127_what_we_exported_is_untouched() {
    for pair in PAIRS {
        let mut meeting = meeting(127, pair);
        meeting.dee_calls("#[\"object\",[\"o\"]]", &[], Some("rp+1"));
        meeting.dee_calls("#[\"promise\",[\"p\"]]", &[], Some("rp+2"));
        meeting.dee.heard(&mut meeting.world);
        meeting.dee.acknowledge(&mut meeting.world);
        let exports = |meeting: &Meeting| -> Vec<(KRef, ERef, bool)> {
            let rows = meeting.world.db(meeting.bob).iter::<Clist>();
            let own = rows.filter(|((endpoint, _), _)| *endpoint == meeting.endpoint());
            own.filter(|(_, row)| row.eref.to_string().contains('-'))
                .map(|((_, k), row)| (*k, row.eref, row.reachable))
                .collect()
        };
        let before = exports(&meeting);
        assert!(before.len() >= 3, "{before:?}");
        meeting.dee_restarts();
        assert_eq!(exports(&meeting), before, "{pair:?}");
        meeting.world.assert_quiescent();
    }
}

#[test]
fn r128_half_a_pair_is_skipped_with_a_warning() {
    for pair in PAIRS {
        let mut meeting = with_object(128, pair);
        // Two rows claim one name: the mirror has room for one of them.
        let eref = ERef::Remote("ro+7".parse().unwrap());
        let row = ClistRow { eref, reachable: true, last_mention: Seq(0) };
        let key = (meeting.endpoint(), KRef::Object(meeting.puppet));
        tamper(&mut meeting, &ChangeSet { clist: [(key, Some(row))].into(), ..ChangeSet::default() });
        meeting.dee_restarts();
        assert!(warnings(&meeting).iter().any(|line| line.contains("half an entry")), "{pair:?}");
        assert_eq!(meeting.kref("ro+7"), None, "{pair:?}");
    }
}
