//! From the kernel's names to an endpoint's and back (01 §3, §4).

use crate::harness::*;
use capstan_kernel::host_op::HostOp;
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, ObjectId, RemoteId};
use capstan_model::peer::{PeerId, Seq};
use capstan_model::refs::{RRef, RefKind, Side, VRef};
use capstan_model::vat::VatDelivery;
use capstan_store::schema::{Clist, ClistRow, Counters, HoldKind, Holds, ObjectRow, Objects, Outbox, Owner};

/// Alice makes two objects and a promise; the host has their names.
fn made(world: &mut World) -> (Launched, Vec<KRef>) {
    let vats = world.launch(&["alice", "bob", "carol"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => {
            let slots = vec![vref("o+10"), vref("o+11"), vref("p+5")];
            ok(returns(delivery, CapData { body: "#[\"$0\",\"$1\",\"&2\"]".into(), slots }))
        }
        _ => obliging(delivery),
    });
    let slots = world.call(vats.root("alice"), "make", &[]).1.slots;
    world.log.clear();
    (vats, slots)
}

fn arguments(world: &World, name: &str) -> Vec<Vec<VRef>> {
    let told = world.delivered(name);
    told.iter().filter_map(message).map(|m| m.methargs.slots.clone()).collect()
}

#[test]
fn k5_k7_imports_are_numbered_from_one_for_each_vat_and_keep_their_names() {
    let mut world = World::new();
    let (vats, slots) = made(&mut world);
    for name in ["bob", "carol", "bob"] {
        world.call(vats.root(name), "take", &slots);
    }
    let names = vec![vref("o-1"), vref("o-2"), vref("p-1")];
    // Each call has a result, which is an import as well: the second time the names are the old ones.
    assert_eq!(arguments(&world, "bob"), [names.clone(), names.clone()]);
    assert_eq!(arguments(&world, "carol"), [names]);
    // Back to where it comes from, a name is the owner's own.
    world.call(vats.root("alice"), "take", &slots);
    assert_eq!(arguments(&world, "alice"), [vec![vref("o+10"), vref("o+11"), vref("p+5")]]);
}

#[test]
fn k8_the_body_is_not_touched_and_slots_keep_their_order() {
    let mut world = World::new();
    let (vats, slots) = made(&mut world);
    let body = "#[\"take\",[\"$1.Alleged: \u{fffd} odd\",  \"$1\"]]";
    let (a, b) = (slots[0], slots[1]);
    // One slot is named twice, one is listed and not mentioned.
    let methargs = CapData { body: body.into(), slots: vec![b, a, b] };
    world.request(HostOp::Send { target: vats.root("bob").into(), methargs }).expect("sent");
    let told = world.delivered("bob");
    let [m] = &told.iter().filter_map(message).collect::<Vec<_>>()[..] else { panic!("{told:?}") };
    assert_eq!(&*m.methargs.body, body);
    assert_eq!(m.methargs.slots, [vref("o-1"), vref("o-2"), vref("o-1")]);
}

#[test]
fn k9_a_message_has_a_result_or_none_on_the_other_side_too() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let bob = message(delivery).map(|m| m.methargs.slots[0].to_string()).unwrap_or_default();
        ok(vec![send(&bob, "silent", &[], None), send(&bob, "asking", &[], Some("p+5"))])
    });
    world.send(vats.root("alice"), "go", &[vats.root("bob").into()]);
    world.run();
    let told = world.delivered("bob");
    let results: Vec<_> = told.iter().filter_map(message).map(|m| m.result).collect();
    assert_eq!(results, [None, Some(vref("p-1"))]);
}

#[test]
fn k6_k13_imports_of_a_remote_are_numbered_from_one_and_written_in_its_terms() {
    let mut world = World::new();
    let (vats, slots) = made(&mut world);
    world.request(HostOp::PeerHint { peer: PeerId::new("12D3KooWother"), hints: vec![] }).expect("a remote");
    let (endpoint, ko) = (EndpointId::Remote(RemoteId(1)), ObjectId(100));
    let mut world = world.reboot_changed(|tx| {
        let owner = Some(Owner::Endpoint(endpoint));
        tx.put::<Counters>("object".into(), 101);
        tx.put::<Objects>(ko, ObjectRow { owner, reachable: 1, recognizable: 1, revoked: false });
        let eref = RRef { kind: RefKind::Object, side: Side::Export, index: 3 }.into();
        tx.put::<Clist>((endpoint, ko.into()), ClistRow { eref, reachable: true, last_mention: Seq(0) });
        tx.put::<Holds>((ko.into(), HoldKind::Handed), 1);
    });
    // The promise was ephemeral in alice, who has started again since; it is settled and an import all the same.
    world.send(ko, "take", &[slots[2], vats.root("alice").into()]);
    world.run();
    let own = world.kernel.db().iter::<Clist>().filter(|((of, _), _)| *of == endpoint);
    let names: Vec<_> = own.map(|((_, kref), row)| (*kref, row.eref.to_string())).collect();
    assert!(names.contains(&(vats.root("alice").into(), "ro-1".into())), "{names:?}");
    assert!(names.contains(&(slots[2], "rp-1".into())), "{names:?}");
    assert!(names.contains(&(ko.into(), "ro+3".into())), "{names:?}");
    let texts: Vec<_> = world.kernel.db().iter::<Outbox>().map(|(_, row)| row.text.to_string()).collect();
    assert!(texts[0].contains(r#"["message","ro-3","#), "{texts:?}");
    assert!(texts[0].contains(r#""slots":["rp+1","ro+1"]"#), "{texts:?}");
}

#[test]
fn k19_k7_an_object_that_was_dropped_and_comes_again_has_its_old_name() {
    use capstan_model::vat::VatSyscall;
    let mut world = World::new();
    let (vats, slots) = made(&mut world);
    world.script("bob", |delivery| {
        let mut out = returns(delivery, CapData::data("#1"));
        if method(delivery).as_deref() == Some("drop") {
            out.push(VatSyscall::DropImports(vec![vref("o-1")]));
        }
        ok(out)
    });
    world.call(vats.root("bob"), "take", &slots[..1]);
    world.call(vats.root("bob"), "drop", &[]);
    let key = (EndpointId::Vat(vats.vat("bob")), slots[0]);
    let bit = |world: &World| world.kernel.db().get::<Clist>(&key).map(|row| row.reachable);
    assert_eq!(bit(&world), Some(false));
    world.call(vats.root("bob"), "take", &slots[..1]);
    assert_eq!(bit(&world), Some(true));
    assert_eq!(arguments(&world, "bob"), [vec![vref("o-1")], vec![], vec![vref("o-1")]]);
    assert!(world.delivered("alice").iter().all(|d| !matches!(d, VatDelivery::DropExports(_))));
}
