//! Subclusters: all or nothing (02 §10.1).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal, SubclusterView};
use capstan_model::capdata::CapData;
use capstan_model::id::SubclusterId;
use capstan_model::vat::VatSyscall;
use capstan_store::schema::{Clist, Code, Objects, Promises, Subclusters, VatStore, Vats};

fn config(names: &[&str]) -> LaunchConfig {
    match World::launch_op(names) {
        HostOp::Launch(config) => config,
        other => panic!("{other:?}"),
    }
}

fn is_empty(world: &World) {
    let left = [
        world.rows::<Subclusters>(),
        world.rows::<Vats>(),
        world.rows::<Clist>(),
        world.rows::<Objects>(),
        world.rows::<Promises>(),
        world.rows::<VatStore>(),
        world.rows::<Code>(),
    ];
    assert_eq!(left, [0; 7]);
}

#[test]
fn k159_two_subclusters_of_two_vats() {
    let mut world = World::new();
    let one = world.launch(&["a", "b"]);
    let two = world.launch(&["c", "d"]);
    assert_eq!((one.subcluster, two.subcluster), (SubclusterId(1), SubclusterId(2)));
    let view = |launched: &Launched, names: [&str; 2]| SubclusterView {
        subcluster: launched.subcluster,
        bootstrap: names[0].into(),
        vats: names.iter().map(|name| ((*name).into(), launched.vat(name))).collect(),
    };
    let expected = vec![view(&one, ["a", "b"]), view(&two, ["c", "d"])];
    assert_eq!(world.request(HostOp::ListSubclusters), Ok(Answer::Subclusters(expected)));
}

#[test]
fn k160_bootstrap_gets_all_roots_and_its_result_is_the_answer() {
    let mut world = World::new();
    world.script("a", |delivery| {
        let m = message(delivery).expect("bootstrap");
        assert_eq!(
            &*m.methargs.body,
            "#[\"bootstrap\",[{\"a\":\"$0.Alleged: vatRoot\",\"b\":\"$1.Alleged: vatRoot\"},{}]]"
        );
        assert_eq!(m.methargs.slots, [vref("o+0"), vref("o-1")]);
        ok(returns(delivery, CapData::data("#\"ready\"")))
    });
    let launched = world.launch(&["a", "b"]);
    assert_eq!(launched.bootstrap_result, Some(CapData::data("#\"ready\"")));
}

#[test]
fn k160_a_root_without_bootstrap_may_be_launched_without_the_call() {
    let mut world = World::new();
    world.root_methods.clear();
    let op = HostOp::Launch(LaunchConfig { bootstrap_optional: true, ..config(&["a"]) });
    let answer = world.request(op);
    assert!(matches!(answer, Ok(Answer::Launched { bootstrap_result: None, .. })), "{answer:?}");
    assert!(world.log.is_empty());
}

#[test]
fn k161_unsound_configurations_leave_no_record() {
    let mut world = World::new();
    for (config, text) in [
        (LaunchConfig { bootstrap: "x".into(), ..config(&["a"]) }, "invalid bootstrap vat name \"x\""),
        (LaunchConfig { services: vec!["s".into()], ..config(&["a"]) }, "no registered kernel service 's'"),
        (config(&["a", "a"]), "invalid cluster config: two vats have one name"),
    ] {
        assert_eq!(world.request(HostOp::Launch(config)), Err(Refusal::BadConfig(text.into())));
    }
    is_empty(&world);
    assert!(world.starts.is_empty());
}

#[test]
fn k163_a_bootstrap_that_rejects_or_returns_an_error_fails_the_launch() {
    for rejects in [true, false] {
        let mut world = World::new();
        let value = "#{\"#error\":\"no\",\"name\":\"Error\"}";
        world.script("a", move |delivery| {
            let result = message(delivery).and_then(|m| m.result).expect("a result");
            ok(vec![if rejects { reject(result, "no") } else { fulfil(result, CapData::data(value)) }])
        });
        let answer = world.request(World::launch_op(&["a", "b"]));
        assert_eq!(answer, Err(Refusal::BootstrapRejected(CapData::data(value))));
        is_empty(&world);
    }
}

#[test]
fn k118_k164_a_vat_that_fails_to_start_takes_the_others_with_it() {
    let mut world = World::new();
    world.broken.insert("b".into(), "syntax".into());
    let answer = world.request(World::launch_op(&["a", "b", "c"]));
    assert_eq!(answer, Err(Refusal::LaunchFailed("Failed to launch vat v2 (b): syntax".into())));
    is_empty(&world);
    let stopped: Vec<_> = world.stops.iter().map(|(vat, _)| vat.0).collect();
    assert_eq!(stopped, [3, 2, 1]);
}

#[test]
fn k164_a_bootstrap_vat_that_dies_fails_the_launch_with_the_cause() {
    let mut world = World::new();
    world.script("a", |_| ok(vec![VatSyscall::Subscribe(vref("p-99"))]));
    match world.request(World::launch_op(&["a"])) {
        Err(Refusal::BootstrapRejected(value)) => assert_eq!(code(&value), "ILLEGAL_SYSCALL"),
        other => panic!("{other:?}"),
    }
    is_empty(&world);
}

#[test]
fn k165_a_terminated_subcluster_is_gone() {
    let mut world = World::new();
    let vats = world.launch(&["a", "b"]);
    assert_eq!(world.request(HostOp::TerminateSubcluster(vats.subcluster)), Ok(Answer::Done));
    let stopped: Vec<_> = world.stops.iter().map(|(vat, _)| *vat).collect();
    assert_eq!(stopped, [vats.vat("b"), vats.vat("a")]);
    world.request(HostOp::Collect).expect("collected");
    is_empty(&world);
    let refused = world.request(HostOp::TerminateSubcluster(vats.subcluster));
    assert_eq!(refused, Err(Refusal::SubclusterNotFound(vats.subcluster)));
}

#[test]
fn k166_a_subcluster_goes_with_its_last_vat() {
    let mut world = World::new();
    let vats = world.launch(&["a", "b"]);
    world.request(HostOp::TerminateVat(vats.vat("a"))).expect("terminated");
    assert_eq!(world.rows::<Subclusters>(), 1);
    world.request(HostOp::TerminateVat(vats.vat("b"))).expect("terminated");
    assert_eq!(world.rows::<Subclusters>(), 0);
}

#[test]
fn k168_work_elsewhere_does_not_sweep_away_a_launch_in_progress() {
    let mut world = World::new();
    let vats = world.launch(&["a"]);
    let request = world.ask(World::launch_op(&["b"]));
    world.send(vats.root("a"), "x", &[]);
    assert_eq!(world.rows::<Subclusters>(), 2);
    world.script("b", obliging);
    world.run();
    assert!(matches!(world.answers.get(&request), Some(Ok(Answer::Launched { .. }))));
}
