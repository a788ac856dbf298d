//! Objects that refuse everything, for good (02 §11).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_model::id::{KRef, ObjectId, PromiseId};
use capstan_store::schema::{ObjectRow, Objects};

fn revoke(world: &mut World, ko: ObjectId) {
    assert_eq!(world.request(HostOp::Revoke(ko.into())), Ok(Answer::Done));
}

fn is_revoked(world: &mut World, kref: impl Into<KRef>) -> bool {
    match world.request(HostOp::IsRevoked(kref.into())) {
        Ok(Answer::Revoked(revoked)) => revoked,
        other => panic!("{other:?}"),
    }
}

fn refused(world: &mut World, ko: ObjectId) -> bool {
    let (rejected, value) = world.call(ko, "x", &[]);
    rejected && code(&value) == "OBJECT_REVOKED"
}

#[test]
fn k192_k193_revoked_objects_refuse_every_call_each_for_itself() {
    let mut world = World::new();
    let vats = world.launch(&["a", "b", "c"]);
    let [a, b, c] = ["a", "b", "c"].map(|name| vats.root(name));
    revoke(&mut world, a);
    assert!(refused(&mut world, a) && refused(&mut world, a));
    assert!(!world.call(b, "x", &[]).0 && !world.call(c, "x", &[]).0);
    revoke(&mut world, b);
    assert!(refused(&mut world, a) && refused(&mut world, b));
    assert!(!world.call(c, "x", &[]).0);
    assert!(world.methods("a").is_empty(), "the owner was not asked");
    assert_eq!(world.request(HostOp::PingVat(vats.vat("a"))), Ok(Answer::Done));
    let mut world = world.reboot();
    assert!(refused(&mut world, a) && refused(&mut world, b), "also after a restart");
}

#[test]
fn k194_revoking_twice_changes_nothing_and_counts_stay() {
    let mut world = World::new();
    let root = world.launch(&["a"]).root("a");
    let row = |world: &World| world.kernel.db().get::<Objects>(&root).cloned().expect("the root");
    let before = row(&world);
    assert!(!is_revoked(&mut world, root));
    revoke(&mut world, root);
    revoke(&mut world, root);
    assert_eq!(row(&world), ObjectRow { revoked: true, ..before });
    assert!(is_revoked(&mut world, root));
    let kp = PromiseId(1);
    let refusal = Refusal::CannotRevoke(kp);
    assert_eq!(refusal.to_string(), "cannot revoke promise kp1");
    assert_eq!(world.request(HostOp::Revoke(kp.into())), Err(refusal));
}

#[test]
fn k194_what_is_unknown_cannot_be_revoked_and_the_flag_goes_with_its_object() {
    let mut world = World::new();
    let unknown = ObjectId(99);
    assert_eq!(world.request(HostOp::Revoke(unknown.into())), Err(Refusal::BadReference("ko99".into())));
    assert!(!is_revoked(&mut world, unknown));
    let vats = world.launch(&["a"]);
    let root = vats.root("a");
    revoke(&mut world, root);
    world.request(HostOp::TerminateVat(vats.vat("a"))).expect("terminated");
    world.request(HostOp::Collect).expect("collected");
    assert_eq!(world.kernel.db().get::<Objects>(&root), None);
    assert!(!is_revoked(&mut world, root));
    assert_eq!(world.request(HostOp::Revoke(root.into())), Err(Refusal::BadReference(root.to_string())));
}

#[test]
fn k195_messages_that_wait_when_the_object_is_revoked_are_refused() {
    let mut world = World::new();
    let vats = world.launch(&["a", "b"]);
    world.hold("a");
    let flying = world.send(vats.root("a"), "flying", &[]);
    let waiting = world.send(vats.root("a"), "waiting", &[]);
    world.script("b", |delivery| {
        let mut syscalls = returns(delivery, reference(vref("o-1")));
        syscalls.insert(0, send("o-1", "from b", &[], None));
        ok(syscalls)
    });
    let from_b = world.send(vats.root("b"), "poke", &[vats.root("a").into()]);
    world.run();
    assert!(!world.settled(from_b).0);
    revoke(&mut world, vats.root("a"));
    world.release("a");
    assert!(!world.settled(flying).0, "it was delivered before");
    let (rejected, value) = world.settled(waiting);
    assert_eq!((rejected, code(&value).as_str()), (true, "OBJECT_REVOKED"));
    assert_eq!(world.methods("a"), ["flying"]);
}
