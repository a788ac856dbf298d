//! A reset, and how a kernel notices having been away (02 §14).

use crate::harness::*;
use crate::subclusters::is_empty;
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_kernel::input::Input;
use capstan_model::capdata::CapData;
use capstan_model::peer::{Incarnation, Millis, PeerId};
use capstan_model::vat::VatSyscall;
use capstan_store::schema::{Counters, Grants, Holds, Meta, Remotes, RunQueue, Sessions};

fn reset(life: &str) -> HostOp {
    HostOp::Reset { life: Incarnation::new(life) }
}

fn meta(world: &World) -> Vec<(String, String)> {
    let rows = world.kernel.db().iter::<Meta>();
    rows.map(|(key, text)| (key.to_string(), text.to_string())).collect()
}

#[test]
fn k200_a_reset_leaves_the_identity_and_nothing_else() {
    let mut world = World::new().reboot_changed(|tx| {
        for key in ["keySeed", "peerId", "ocapURLKey", "incarnation", "anything else"] {
            tx.put::<Meta>(key.into(), format!("old {key}").into());
        }
    });
    let vats = world.launch(&["a", "b"]);
    world.system.insert("one".into(), "{}".into());
    let system = HostOp::LaunchSystem { name: "one".into(), config: World::config(&["a"]) };
    world.request(system).expect("launched");
    world.request(HostOp::IssueUrl { object: vats.root("a"), secret: [7; 32] }).expect("issued");
    let peer = PeerId::new("12D3KooWpeer");
    world.request(HostOp::PeerHint { peer, hints: vec!["/ip4/1.2.3.4".into()] }).expect("noted");
    world.stops.clear();
    assert_eq!(world.request(reset("new life")), Ok(Answer::Done));
    is_empty(&world);
    let rows = [
        world.rows::<Grants>(),
        world.rows::<Holds>(),
        world.rows::<Remotes>(),
        world.rows::<RunQueue>(),
        world.rows::<Sessions>(),
    ];
    assert_eq!(rows, [0; 5]);
    let kept = [
        ("incarnation", "new life"),
        ("keySeed", "old keySeed"),
        ("lastActiveTime", "1000"),
        ("ocapURLKey", "old ocapURLKey"),
        ("peerId", "old peerId"),
    ];
    assert_eq!(meta(&world), kept.map(|(key, text)| (key.to_owned(), text.to_owned())));
    let stopped: Vec<_> = world.stops.iter().map(|(vat, _)| vat.0).collect();
    assert_eq!(stopped, [3, 2, 1]);
    let root = world.request(HostOp::SystemRoot("one".into()));
    assert_eq!(root, Err(Refusal::SystemSubclusterNotFound("one".into())));
}

#[test]
fn k200_all_who_wait_are_refused_once_and_late_answers_are_nobodys() {
    let mut world = World::new();
    let vats = world.launch(&["a", "b"]);
    world.hold("a");
    world.hold("b");
    let flying = world.send(vats.root("a"), "x", &[]);
    let queued = world.send(vats.root("a"), "y", &[]);
    world.run();
    let restart = world.ask(HostOp::RestartVat(vats.vat("b")));
    let collection = world.ask(HostOp::Collect);
    let launch = world.ask(World::launch_op(&["c"]));
    let done = world.ask(reset("two"));
    for request in [flying, queued, restart, collection, launch] {
        assert_eq!(world.answers.get(&request), Some(&Err(Refusal::Reset)), "request {request}");
    }
    assert_eq!(world.answers.get(&done), Some(&Ok(Answer::Done)));
    // The old workers still answer.
    world.release("a");
    world.release("b");
    is_empty(&world);
}

#[test]
fn k200_the_kernel_is_usable_after_a_reset_and_no_number_comes_twice() {
    let mut world = World::new();
    let old = world.launch(&["a"]);
    let next: Vec<_> =
        world.kernel.db().iter::<Counters>().map(|(name, next)| (name.clone(), *next)).collect();
    world.request(reset("two")).expect("reset");
    for (name, next) in next {
        let now = world.kernel.db().get::<Counters>(&name);
        assert!(now.is_some_and(|now| *now >= next), "{name}");
    }
    let new = world.launch(&["a"]);
    assert_ne!((old.vat("a"), old.root("a")), (new.vat("a"), new.root("a")));
    assert_eq!(code(&world.call(old.root("a"), "x", &[]).1), "OBJECT_DELETED");
    assert!(!world.call(new.root("a"), "x", &[]).0);
    // And after a restart on what is durable.
    let mut world = world.reboot();
    assert!(!world.call(new.root("a"), "x", &[]).0);
    world.request(reset("three")).expect("reset");
    let mut world = world.reboot();
    is_empty(&world);
    assert!(world.starts.is_empty());
    world.launch(&["a"]);
}

#[test]
fn k199_r28_an_absence_of_more_than_an_hour_is_noticed_once() {
    let hour = 3_600_000;
    let now = 10 * hour;
    for (last, wakes) in [
        (Some((now - hour - 1).to_string()), 1),
        (Some((now - hour).to_string()), 0),
        (Some((now + 1).to_string()), 0),
        (None, 0),
        (Some("yesterday".to_owned()), 0),
    ] {
        let mut world = World::new();
        world.now = Millis(now);
        let mut world = world.reboot_changed(|tx| {
            let key = "lastActiveTime".into();
            match &last {
                Some(text) => tx.put::<Meta>(key, text.as_str().into()),
                None => drop(tx.delete::<Meta>(&key)),
            }
        });
        let woke = |world: &World| world.lines.iter().filter(|line| line.contains("last active")).count();
        assert_eq!(woke(&world), wakes, "{last:?}: {:?}", world.lines);
        assert!(meta(&world).contains(&("lastActiveTime".into(), now.to_string())));
        world.input(Input::TimeCame);
        assert_eq!(woke(&world), wakes);
        world = world.reboot();
        assert_eq!(woke(&world), 0, "only once");
    }
}

#[test]
fn k198_k199_the_time_of_last_activity_is_recorded_now_and_then_and_at_the_stop() {
    let mut world = World::new();
    let recorded = |world: &World| world.kernel.db().get::<Meta>(&"lastActiveTime".into()).cloned();
    for (now, stored) in [(1_000, "1000"), (300_999, "1000"), (301_000, "301000"), (5, "5"), (6, "5")] {
        world.now = Millis(now);
        world.input(Input::TimeCame);
        assert_eq!(recorded(&world).as_deref(), Some(stored), "at {now}");
    }
    world.now = Millis(7);
    assert_eq!(world.request(HostOp::PrepareStop), Ok(Answer::Done));
    assert_eq!(recorded(&world).as_deref(), Some("7"));
}

#[test]
fn k201_status_is_of_a_boundary_between_cranks() {
    let mut world = World::new();
    let vats = world.launch(&["a"]);
    let overview = |world: &mut World| {
        let request = world.ask(HostOp::Overview);
        match world.answers[&request].clone() {
            Ok(Answer::Overview { vats, subclusters }) => (vats, subclusters),
            other => panic!("{other:?}"),
        }
    };
    let before = overview(&mut world);
    assert_eq!((before.0.len(), before.1.len()), (1, 1));
    assert_eq!((before.0[0].vat, before.0[0].subcluster), (vats.vat("a"), vats.subcluster));
    assert_eq!((&*before.1[0].config, before.1[0].vats.len()), ("{}", 1));
    // A crank is under way that will end the vat: nothing of it shows until it is complete.
    world.script("a", |_| ok(vec![VatSyscall::Exit { failure: false, info: CapData::data("#\"bye\"") }]));
    world.hold("a");
    world.send(vats.root("a"), "x", &[]);
    world.run();
    assert_eq!(overview(&mut world), before);
    world.release("a");
    assert_eq!(overview(&mut world), (Vec::new(), Vec::new()));
}
