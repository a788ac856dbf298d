use super::*;
use crate::facts::Left;

fn life(text: &str) -> Incarnation {
    Incarnation::new(text)
}

fn session(believes: Option<&str>, epoch: u64) -> SessionFacts {
    SessionFacts {
        believes: believes.map(life),
        epoch: Epoch(epoch),
        base: Epoch(epoch),
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
    }
}

fn facts(own: &str, session: SessionFacts) -> Facts {
    Facts { incarnation: life(own), session: Some(session) }
}

/// Decides with rows that have not moved since `me` was said, and a history that agrees with the peer's.
fn decide_now(me: &Facts, th: &Facts) -> Decision {
    let (sent, recv) = me.session.as_ref().map_or((Seq(0), Seq(0)), |s| (s.sent, s.recv));
    let digest = th.session.as_ref().map(|s| s.digest);
    decide(me, th, &Standing { sent, recv, digest_at: &|_| digest }, false)
}

/// Every combination of what matters, for a side called `own` whose peer is called `other`.
fn every_fact(own: &str, other: &str) -> Vec<Facts> {
    let mut all = Vec::new();
    for believes in [None, Some(other), Some("dead")] {
        for (epoch, base) in [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)] {
            for (una, sent, recv) in [(1, 0, 0), (1, 1, 0), (2, 1, 0), (1, 0, 1), (2, 2, 1)] {
                for left in [None, Some((other, 0)), Some((other, 1)), Some((other, 2)), Some(("dead", 2))] {
                    for classic_born in [false, true] {
                        let left = left.map(|(of, epoch)| Left { life: life(of), epoch: Epoch(epoch) });
                        let (una, sent, recv) = (Seq(una), Seq(sent), Seq(recv));
                        let base = Epoch(base);
                        let told = SessionFacts {
                            base,
                            una,
                            sent,
                            recv,
                            left,
                            classic_born,
                            ..session(believes, epoch)
                        };
                        all.push(facts(own, told));
                    }
                }
            }
        }
    }
    all
}

#[test]
fn total_and_mirrored_over_the_whole_product() {
    let (ours, theirs) = (every_fact("A", "B"), every_fact("B", "A"));
    let (mut new, mut resumed) = (0u32, 0u32);
    for a in &ours {
        for b in &theirs {
            match (decide_now(a, b), decide_now(b, a)) {
                (Decision::New { epoch: here, .. }, Decision::New { epoch: there, .. }) => {
                    assert_eq!(here, there, "{a:?} {b:?}");
                    new += 1;
                }
                (Decision::Resume { epoch: here }, Decision::Resume { epoch: there }) => {
                    assert_eq!(here, there, "{a:?} {b:?}");
                    resumed += 1;
                }
                (Decision::New { .. }, Decision::Resume { .. })
                | (Decision::Resume { .. }, Decision::New { .. }) => {
                    unreachable!("one resumes what the other leaves: {a:?} {b:?}")
                }
                (here, there) => {
                    let judged = |d: Decision| matches!(d, Decision::IRegressed { .. } | Decision::Close(_));
                    assert!(judged(here) || judged(there), "{here:?} {there:?}");
                    assert!(!matches!((here, there), (Decision::Clone | Decision::Classic, _)));
                }
            }
        }
    }
    assert!(new > 1000 && resumed > 100, "{new} {resumed}");
}

#[test]
fn own_peer_id_is_a_clone_and_a_silent_side_is_classic() {
    let (me, th) = (facts("A", session(None, 0)), Facts { incarnation: life("B"), session: None });
    let now = Standing { sent: Seq(0), recv: Seq(0), digest_at: &|_| None };
    assert_eq!(decide(&me, &me, &now, true), Decision::Clone);
    assert_eq!(decide(&me, &th, &now, false), Decision::Classic);
    assert_eq!(decide(&th, &me, &now, false), Decision::Classic);
}

#[test]
fn first_contact_carries_what_waits_on_both_sides() {
    let (a, b) =
        (facts("A", SessionFacts { sent: Seq(2), ..session(None, 0) }), facts("B", session(None, 0)));
    assert_eq!(decide_now(&a, &b), Decision::New { epoch: Epoch(1), reset: false });
    assert_eq!(decide_now(&b, &a), Decision::New { epoch: Epoch(1), reset: false });
}

#[test]
fn a_wiped_peer_ends_the_session_and_keeps_its_own_first_messages() {
    let kept =
        facts("A", SessionFacts { una: Seq(3), sent: Seq(4), recv: Seq(2), ..session(Some("dead"), 1) });
    let wiped = facts("B", SessionFacts { sent: Seq(1), ..session(None, 0) });
    assert_eq!(decide_now(&kept, &wiped), Decision::New { epoch: Epoch(2), reset: true });
    assert_eq!(decide_now(&wiped, &kept), Decision::New { epoch: Epoch(2), reset: false });
}

#[test]
fn a_side_that_lags_joins_the_unconfirmed_session_of_the_other() {
    let ahead = facts("A", SessionFacts { sent: Seq(1), ..session(Some("B"), 1) });
    let behind = facts("B", session(None, 0));
    assert_eq!(decide_now(&ahead, &behind), Decision::New { epoch: Epoch(1), reset: false });
    assert_eq!(decide_now(&behind, &ahead), Decision::New { epoch: Epoch(1), reset: false });
}

#[test]
fn a_restored_backup_judges_itself_and_the_other_side_waits() {
    let whole = facts("A", SessionFacts { una: Seq(2), sent: Seq(1), recv: Seq(5), ..session(Some("B"), 1) });
    let restored = facts("B", SessionFacts { sent: Seq(3), ..session(Some("A"), 1) });
    assert_eq!(decide_now(&restored, &whole), Decision::IRegressed { epoch: Epoch(1) });
    assert!(matches!(decide_now(&whole, &restored), Decision::Close(_)));
}

#[test]
fn equal_marks_with_another_history_are_a_regression_too() {
    let me = facts("A", SessionFacts { sent: Seq(1), ..session(Some("B"), 1) });
    let th = facts("B", SessionFacts { recv: Seq(1), digest: Digest([7; 16]), ..session(Some("A"), 1) });
    let with = |digest: Option<Digest>| {
        decide(&me, &th, &Standing { sent: Seq(1), recv: Seq(0), digest_at: &|_| digest }, false)
    };
    assert_eq!(with(Some(Digest([7; 16]))), Decision::Resume { epoch: Epoch(1) });
    assert_eq!(with(Some(Digest([8; 16]))), Decision::IRegressed { epoch: Epoch(1) });
    assert!(matches!(with(None), Decision::Close(_)));
}

#[test]
fn a_session_left_for_good_is_not_entered_again() {
    let left = Some(Left { life: life("B"), epoch: Epoch(3) });
    let forgot = facts("A", SessionFacts { left, ..session(None, 3) });
    let restored = facts("B", SessionFacts { sent: Seq(1), ..session(Some("A"), 1) });
    assert_eq!(decide_now(&restored, &forgot), Decision::IRegressed { epoch: Epoch(3) });
    assert!(matches!(decide_now(&forgot, &restored), Decision::Close(_)));
}

#[test]
fn classic_born_sessions_do_not_compare_epochs() {
    let a = facts("A", SessionFacts { classic_born: true, ..session(Some("B"), 4) });
    let b = facts("B", session(Some("A"), 2));
    assert_eq!(
        (decide_now(&a, &b), decide_now(&b, &a)),
        (Decision::Resume { epoch: Epoch(4) }, Decision::Resume { epoch: Epoch(4) })
    );
}

#[test]
fn entries_processed_in_an_earlier_epoch_are_not_carried() {
    let carrier =
        |base| facts("A", SessionFacts { base: Epoch(base), sent: Seq(1), ..session(Some("B"), 2) });
    let processed = facts("B", SessionFacts { recv: Seq(1), ..session(Some("A"), 1) });
    assert!(!can_carry(&carrier(1), &processed));
    assert!(can_carry(&carrier(2), &processed));
    assert!(!can_carry(&carrier(1), &Facts { incarnation: life("B"), session: None }));
}

#[test]
fn stale_facts_conclude_nothing() {
    let said = facts("A", session(None, 0));
    let (peer, epoch) = (life("B"), Epoch(1));
    assert_eq!(stale_new(&said, &said, &peer, epoch), NewVerdict::Commit);
    let grown = facts("A", SessionFacts { sent: Seq(9), ..session(None, 0) });
    assert_eq!(stale_new(&said, &grown, &peer, epoch), NewVerdict::Commit);
    let won = facts("A", session(Some("B"), 1));
    assert_eq!(stale_new(&said, &won, &peer, epoch), NewVerdict::Bind);
    let used = facts("A", SessionFacts { recv: Seq(1), ..session(Some("B"), 1) });
    assert_eq!(stale_new(&said, &used, &peer, epoch), NewVerdict::Close);
    for moved in
        [facts("A2", session(None, 0)), facts("A", session(Some("C"), 0)), facts("A", session(None, 1))]
    {
        assert_eq!(stale_new(&said, &moved, &peer, epoch), NewVerdict::Close, "{moved:?}");
        assert!(stale_resume(&said, &moved));
    }
    assert!(!stale_resume(
        &used,
        &facts("A", SessionFacts { sent: Seq(3), recv: Seq(1), ..session(Some("B"), 1) })
    ));
    assert!(stale_resume(&won, &used));
    assert!(!stale_classic(&said, &facts("A", session(Some("B"), 0)), &peer));
    assert!(stale_classic(&said, &facts("A", session(Some("C"), 0)), &peer));
    assert!(stale_classic(&said, &won, &peer));
}

#[test]
fn only_a_changed_session_awaits_confirm() {
    let peer = life("B");
    let new = Decision::New { epoch: Epoch(1), reset: false };
    assert!(awaits_confirm(&new, &facts("A", session(None, 0)), &peer));
    assert!(!awaits_confirm(&new, &facts("A", session(Some("B"), 1)), &peer));
    assert!(!awaits_confirm(&Decision::Resume { epoch: Epoch(1) }, &facts("A", session(None, 0)), &peer));
}
