//! Subclusters: all or nothing (02 §10.1).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal, SubclusterView};
use capstan_model::capdata::CapData;
use capstan_model::id::{SubclusterId, VatId};
use capstan_model::refs::VRef;
use capstan_model::vat::{VatDelivery, VatReply, VatSyscall};
use capstan_store::schema::{Clist, Code, Objects, Promises, Subclusters, VatStore, Vats};

/// Whether nothing of a launch is left.
pub(crate) fn is_empty(world: &World) {
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
        system: None,
        config: "{}".into(),
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
    let op = HostOp::Launch(LaunchConfig { bootstrap_optional: true, ..World::config(&["a"]) });
    let answer = world.request(op);
    assert!(matches!(answer, Ok(Answer::Launched { bootstrap_result: None, .. })), "{answer:?}");
    assert!(world.log.is_empty());
}

#[test]
fn k161_unsound_configurations_leave_no_record() {
    let mut world = World::new();
    for (config, text) in [
        (LaunchConfig { bootstrap: "x".into(), ..World::config(&["a"]) }, "invalid bootstrap vat name \"x\""),
        (
            LaunchConfig { services: vec!["s".into()], ..World::config(&["a"]) },
            "no registered kernel service 's'",
        ),
        (World::config(&["a", "a"]), "invalid cluster config: two vats have one name"),
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

#[test]
fn k128_all_vats_end_in_reverse_order_launches_included() {
    let mut world = World::new();
    world.launch(&["a", "b"]);
    world.launch(&["c", "d"]);
    let half = world.ask(World::launch_op(&["e"]));
    assert_eq!(world.request(HostOp::TerminateAllVats), Ok(Answer::Done));
    assert_eq!(world.answers.get(&half), Some(&Err(Refusal::LaunchFailed("Vat was deleted.".into()))));
    let stopped: Vec<_> = world.stops.iter().map(|(vat, _)| vat.0).collect();
    assert_eq!(stopped, [5, 4, 3, 2, 1]);
    world.request(HostOp::Collect).expect("collected");
    is_empty(&world);
    assert_eq!(world.request(HostOp::ListVats), Ok(Answer::Vats(Vec::new())));
    assert_eq!(world.request(HostOp::TerminateAllVats), Ok(Answer::Done));
    let root = world.launch(&["f"]).root("f");
    assert!(!world.call(root, "x", &[]).0);
}

/// `bootstrap` asks the other vat and answers with what that one says: a launch over as many steps as there can be.
fn asks_b(delivery: &VatDelivery, result: &mut Option<VRef>) -> VatReply {
    match delivery {
        VatDelivery::Message { .. } => {
            *result = message(delivery).and_then(|message| message.result);
            ok(vec![send("o-1", "hello", &[], Some("p+1")), VatSyscall::Subscribe(vref("p+1"))])
        }
        VatDelivery::Notify(_) => {
            ok(result.take().map(|result| fulfil(result, CapData::data("1"))).into_iter().collect())
        }
        _ => ok(vec![]),
    }
}

#[test]
fn k169_a_crash_at_any_moment_of_a_launch_leaves_nothing_of_it() {
    for steps in 0.. {
        let mut world = World::new();
        let mut result = None;
        world.script("a", move |delivery| asks_b(delivery, &mut result));
        world.script("b", obliging);
        let request = world.ask(World::launch_op(&["a", "b"]));
        world.run_some(steps);
        if world.answers.contains_key(&request) {
            assert!(matches!(world.answers[&request], Ok(Answer::Launched { .. })), "{:?}", world.answers);
            assert!(steps >= 5, "only {steps} moments were tried");
            break;
        }
        assert_eq!(world.rows::<Subclusters>(), 1);
        let mut world = world.reboot();
        assert!(world.starts.is_empty(), "after {steps} steps");
        world.request(HostOp::Collect).expect("collected");
        is_empty(&world);
    }
}

#[test]
fn k167_a_vat_belongs_to_one_subcluster_by_construction() {
    // The record of a vat names its subcluster, no record of a subcluster names vats: no row can say that a vat is in
    // two, and no request names an existing vat for a launch. Equal names in two subclusters are two vats.
    let mut world = World::new();
    let (one, two) = (world.launch(&["a"]), world.launch(&["a"]));
    assert_ne!(one.vat("a"), two.vat("a"));
    let members: Vec<_> = world.kernel.db().iter::<Vats>().map(|(vat, row)| (*vat, row.subcluster)).collect();
    assert_eq!(members, [(one.vat("a"), one.subcluster), (two.vat("a"), two.subcluster)]);
}

#[test]
fn k164_a_vat_that_ends_before_bootstrap_fails_the_launch() {
    let mut world = World::new();
    let launch = world.ask(World::launch_op(&["a", "b"]));
    assert_eq!(world.request(HostOp::TerminateVat(VatId(2))), Ok(Answer::Done));
    let text = "Failed to launch vat v2 (b): Vat was deleted.";
    assert_eq!(world.answers[&launch], Err(Refusal::LaunchFailed(text.into())));
    is_empty(&world);
}
