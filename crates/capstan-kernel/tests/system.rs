//! System subclusters: launched once, restored at every start (02 §10.4).

use crate::harness::*;
use crate::subclusters::is_empty;
use capstan_kernel::host_op::{Answer, HostOp, Refusal, SubclusterView};
use capstan_kernel::system::SystemDamage;
use capstan_model::id::{EndpointId, KRef, ObjectId};
use capstan_store::schema::{Clist, ClistByEref, Subclusters, Vats};

/// A system subcluster of these vats, wanted from now on.
fn launch_system(world: &mut World, name: &str, vats: &[&str]) -> Launched {
    for vat in vats {
        world.scripts.entry((*vat).to_owned()).or_insert_with(|| Box::new(obliging));
    }
    world.system.insert(name.into(), "{}".into());
    match world.request(HostOp::LaunchSystem { name: name.into(), config: World::config(vats) }) {
        Ok(Answer::Launched { subcluster, bootstrap_result, vats, .. }) => {
            world.log.clear();
            let vats = vats.into_iter().map(|(name, vat, root)| (name.to_string(), (vat, root)));
            Launched { subcluster, bootstrap_result, vats: vats.collect() }
        }
        other => panic!("{other:?}"),
    }
}

fn root(world: &mut World, name: &str) -> Result<ObjectId, Refusal> {
    world.request(HostOp::SystemRoot(name.into())).map(|answer| match answer {
        Answer::Root { object } => object,
        other => panic!("{other:?}"),
    })
}

fn not_found(name: &str) -> Result<ObjectId, Refusal> {
    Err(Refusal::SystemSubclusterNotFound(name.into()))
}

fn subclusters(world: &mut World) -> Vec<SubclusterView> {
    match world.request(HostOp::ListSubclusters) {
        Ok(Answer::Subclusters(list)) => list,
        other => panic!("{other:?}"),
    }
}

#[test]
fn k171_k176_roots_are_found_by_name() {
    let mut world = World::new();
    let one = launch_system(&mut world, "one", &["a"]);
    let two = launch_system(&mut world, "two", &["a", "b"]);
    assert_ne!(one.root("a"), two.root("a"));
    assert_eq!(root(&mut world, "one"), Ok(one.root("a")));
    assert_eq!(root(&mut world, "two"), Ok(two.root("a")));
    let refusal = root(&mut world, "three");
    assert_eq!(refusal, not_found("three"));
    assert_eq!(not_found("three").unwrap_err().to_string(), "System subcluster \"three\" not found");
    let names: Vec<_> = subclusters(&mut world).into_iter().map(|view| view.system).collect();
    assert_eq!(names, [Some("one".into()), Some("two".into())]);
}

#[test]
fn k170_a_name_is_given_once() {
    let mut world = World::new();
    launch_system(&mut world, "one", &["a"]);
    let again = world.request(HostOp::LaunchSystem { name: "one".into(), config: World::config(&["b"]) });
    assert!(matches!(again, Err(Refusal::BadConfig(_))), "{again:?}");
    assert_eq!(world.rows::<Subclusters>(), 1);
}

#[test]
fn k171_a_launch_in_progress_has_no_root_and_one_that_fails_leaves_the_name_free() {
    let mut world = World::new();
    let request = world.ask(HostOp::LaunchSystem { name: "one".into(), config: World::config(&["a"]) });
    assert_eq!(root_now(&mut world, "one"), not_found("one"));
    world.broken.insert("a".into(), "syntax".into());
    world.run();
    assert!(matches!(world.answers[&request], Err(Refusal::LaunchFailed(_))), "{:?}", world.answers);
    is_empty(&world);
    world.broken.clear();
    let launched = launch_system(&mut world, "one", &["a"]);
    assert_eq!(root(&mut world, "one"), Ok(launched.root("a")));
}

/// Asks without running anything.
fn root_now(world: &mut World, name: &str) -> Result<ObjectId, Refusal> {
    let request = world.ask(HostOp::SystemRoot(name.into()));
    match world.answers[&request].clone() {
        Ok(Answer::Root { object }) => Ok(object),
        Err(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn k173_a_restart_restores_id_root_and_store_and_does_not_bootstrap() {
    let mut world = World::new();
    let launched = launch_system(&mut world, "one", &["a", "b"]);
    for _ in 0..2 {
        world = world.reboot();
        assert!(world.log.is_empty(), "no second bootstrap");
        assert_eq!(root(&mut world, "one"), Ok(launched.root("a")));
        assert_eq!(subclusters(&mut world)[0].subcluster, launched.subcluster);
        assert!(!world.call(launched.root("a"), "x", &[]).0);
        world.log.clear();
        assert_eq!(world.checked, Ok(()));
    }
    assert!(world.lines.iter().all(|line| !line.contains("system subcluster")), "{:?}", world.lines);
}

#[test]
fn k173_a_changed_configuration_is_not_applied_and_said_in_the_log() {
    let mut world = World::new();
    let launched = launch_system(&mut world, "one", &["a"]);
    world.system.insert("one".into(), "{\"changed\":true}".into());
    let mut world = world.reboot();
    assert_eq!(root(&mut world, "one"), Ok(launched.root("a")));
    let said = world.lines.iter().filter(|line| line.contains("the changed one is ignored")).count();
    assert_eq!(said, 1, "{:?}", world.lines);
}

#[test]
fn k174_what_is_no_longer_configured_is_removed_without_being_started() {
    let mut world = World::new();
    let gone = launch_system(&mut world, "gone", &["a", "b"]);
    let kept = launch_system(&mut world, "kept", &["c"]);
    let user = world.launch(&["d"]);
    // Work that waits for the orphan does not start it either.
    world.hold("a");
    world.send(gone.root("a"), "late", &[]);
    world.run();
    world.system.remove("gone");
    let mut world = world.reboot();
    let started: Vec<_> = world.starts.iter().map(|start| start.vat).collect();
    assert_eq!(started, [kept.vat("c"), user.vat("d")]);
    assert_eq!(root(&mut world, "gone"), not_found("gone"));
    assert_eq!(root(&mut world, "kept"), Ok(kept.root("c")));
    world.request(HostOp::Collect).expect("collected");
    let left: Vec<_> = world.kernel.db().iter::<Vats>().map(|(vat, _)| *vat).collect();
    assert_eq!(left, [kept.vat("c"), user.vat("d")]);
    let orphaned = EndpointId::Vat(gone.vat("a"));
    assert!(world.kernel.db().iter::<Clist>().all(|((endpoint, _), _)| *endpoint != orphaned));
    // Wanted again, it is launched anew.
    let again = launch_system(&mut world, "gone", &["a"]);
    assert_ne!(again.subcluster, gone.subcluster);
}

#[test]
fn k175_a_name_cannot_point_at_a_missing_subcluster_which_is_launched_anew() {
    // The name is a field of the subcluster's own row: with the row goes the name.
    let mut world = World::new();
    let launched = launch_system(&mut world, "one", &["a"]);
    world.request(HostOp::TerminateSubcluster(launched.subcluster)).expect("terminated");
    let mut world = world.reboot();
    assert_eq!(world.checked, Ok(()));
    assert_eq!(root(&mut world, "one"), not_found("one"));
    let again = launch_system(&mut world, "one", &["a"]);
    assert_eq!(root(&mut world, "one"), Ok(again.root("a")));
}

#[test]
fn k175_a_missing_bootstrap_vat_or_root_says_that_the_database_may_be_corrupted() {
    for lacks in ["bootstrap vat", "root object"] {
        let mut world = World::new();
        let launched = launch_system(&mut world, "one", &["a", "b"]);
        let (vat, root) = (launched.vat("a"), launched.root("a"));
        let world = world.reboot_damaged(|tx| {
            if lacks == "bootstrap vat" {
                tx.delete::<Vats>(&vat);
            } else {
                let key = (EndpointId::Vat(vat), KRef::Object(root));
                if let Some(row) = tx.delete::<Clist>(&key) {
                    tx.delete::<ClistByEref>(&(key.0, row.eref));
                }
            }
        });
        let damage = world.checked.expect_err("damage");
        let SystemDamage { name, subcluster, lacks: found } = &damage;
        assert_eq!((&**name, *subcluster, *found), ("one", launched.subcluster, lacks));
        assert_eq!(
            damage.to_string(),
            format!("system subcluster \"one\" (s1) has no {lacks}; the database may be corrupted")
        );
    }
}

#[test]
fn k177_a_terminated_system_subcluster_has_no_name_and_user_ones_change_nothing() {
    let mut world = World::new();
    let system = launch_system(&mut world, "one", &["a"]);
    let user = world.launch(&["b"]);
    world.request(HostOp::TerminateSubcluster(user.subcluster)).expect("terminated");
    assert_eq!(root(&mut world, "one"), Ok(system.root("a")));
    world.request(HostOp::TerminateSubcluster(system.subcluster)).expect("terminated");
    assert_eq!(root(&mut world, "one"), not_found("one"));
}

#[test]
fn k177_without_its_bootstrap_vat_it_is_no_system_subcluster() {
    let mut world = World::new();
    let system = launch_system(&mut world, "one", &["a", "b"]);
    world.request(HostOp::TerminateVat(system.vat("b"))).expect("terminated");
    assert_eq!(root(&mut world, "one"), Ok(system.root("a")));
    let system = launch_system(&mut world, "two", &["c", "d"]);
    world.request(HostOp::TerminateVat(system.vat("c"))).expect("terminated");
    assert_eq!(root(&mut world, "two"), not_found("two"));
    let mut world = world.reboot();
    assert_eq!(world.checked, Ok(()), "the next start is not spoiled");
    assert!(!world.call(system.root("d"), "x", &[]).0);
    launch_system(&mut world, "two", &["c"]);
}

#[test]
fn k169_a_half_launched_system_subcluster_is_removed() {
    let mut world = World::new();
    world.hold("a");
    world.ask(HostOp::LaunchSystem { name: "one".into(), config: World::config(&["a"]) });
    world.run();
    world.system.insert("one".into(), "{}".into());
    let mut world = world.reboot();
    assert_eq!(world.checked, Ok(()));
    world.request(HostOp::Collect).expect("collected");
    is_empty(&world);
    launch_system(&mut world, "one", &["a"]);
}
