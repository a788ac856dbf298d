//! System subclusters, reset and stop of a real host.

use crate::support::{CHATTER, COUNTER, call, host, launch, methargs, single, within};
use capstan_host::{Host, HostConfig, HostError, STORE_FILE, SeedSource, Sync, SystemSubcluster, fsck};
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_model::refs::VRef;
use capstan_store::schema::ChangeSet;
use capstan_store::sqlite::{SqliteStore, load_read_only};
use std::path::Path;

/// Starts a host that wants these system subclusters, each of one vat.
async fn start(home: &Path, system: &[(&str, &str)]) -> Result<Host, HostError> {
    let system = system.iter().map(|(name, source)| SystemSubcluster::new(*name, single(source)));
    let config = HostConfig { network: false, workers: 2, system: system.collect(), ..HostConfig::new(home) };
    within(Host::start(config)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k170_equal_names_start_nothing() {
    let home = tempfile::tempdir().unwrap();
    let refused = start(home.path(), &[("one", COUNTER), ("one", CHATTER)]).await;
    assert_eq!(refused.unwrap_err().to_string(), "system subcluster \"one\": is configured twice");
    assert!(!home.path().join(STORE_FILE).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k171_k173_k174_k176_it_runs_when_the_host_has_started_comes_back_and_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let both = [("one", COUNTER), ("two", COUNTER)];
    let first = start(home.path(), &both).await.unwrap();
    let (one, two) = (first.system_root("one").await.unwrap(), first.system_root("two").await.unwrap());
    assert_ne!(one, two);
    assert_eq!(call(&first, one, "bump", "[]", &[]).await, "#1");
    within(first.stop()).await;

    // Restored: no code is asked for.
    let load = || Err("the source is gone".to_owned());
    let system = both.map(|(name, _)| SystemSubcluster::loaded_by(name, "{}", load)).into();
    let config = HostConfig { network: false, system, ..HostConfig::new(home.path()) };
    let second = within(Host::start(config)).await.unwrap();
    assert_eq!(second.system_root("one").await, Ok(one));
    assert_eq!(call(&second, one, "bump", "[]", &[]).await, "#2");
    within(second.stop()).await;

    let third = start(home.path(), &[("two", COUNTER)]).await.unwrap();
    assert_eq!(third.system_root("one").await, Err(Refusal::SystemSubclusterNotFound("one".into())));
    assert_eq!(third.system_root("two").await, Ok(two));
    within(third.stop()).await;
    assert_eq!(fsck(home.path()).unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k171_a_launch_that_fails_is_a_start_that_fails_and_may_be_tried_again() {
    let home = tempfile::tempdir().unwrap();
    let broken = "export function buildRootObject() { throw Error('not today'); }";
    let failed = start(home.path(), &[("good", COUNTER), ("bad", broken)]).await;
    let text = failed.unwrap_err().to_string();
    assert!(text.starts_with("system subcluster \"bad\": ") && text.contains("not today"), "{text}");
    let again = start(home.path(), &[("good", COUNTER), ("bad", COUNTER)]).await.unwrap();
    assert!(again.system_root("good").await.is_ok() && again.system_root("bad").await.is_ok());
    within(again.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k175_a_root_that_is_gone_is_a_start_that_fails() {
    let home = tempfile::tempdir().unwrap();
    within(start(home.path(), &[("one", COUNTER)]).await.unwrap().stop()).await;
    let path = home.path().join(STORE_FILE);
    let tables = load_read_only(&path).unwrap();
    let mut changes = ChangeSet::default();
    let root = tables.clist.iter().find(|(_, row)| row.eref == VRef::ROOT.into()).unwrap();
    changes.clist.insert(*root.0, None);
    let (mut store, _) = SqliteStore::open(&path, Sync::Full).unwrap();
    store.apply(&changes).unwrap();
    drop(store);
    let failed = start(home.path(), &[("one", COUNTER)]).await;
    let text = failed.unwrap_err().to_string();
    assert_eq!(text, "system subcluster \"one\" (s1) has no root object; the database may be corrupted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k150_with_a_reset_of_the_storage_everything_but_the_identity_is_new() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let (peer, life) = (first.peer().clone(), first.incarnation());
    launch(&first, COUNTER).await;
    within(first.stop()).await;

    let config = || HostConfig { reset_storage: true, network: false, ..HostConfig::new(home.path()) };
    let second = within(Host::start(config())).await.unwrap();
    assert_eq!(second.peer(), &peer);
    assert_ne!(second.incarnation(), life);
    assert_eq!(within(second.query("SELECT * FROM vat")).await.unwrap(), []);
    let counter = launch(&second, COUNTER).await.root;
    assert_eq!(call(&second, counter, "bump", "[]", &[]).await, "#1");
    within(second.stop()).await;

    // A recovered identity takes the place of the old one.
    let words =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    let seed = Some(SeedSource::Mnemonic(words.to_owned()));
    let third = within(Host::start(HostConfig { seed, ..config() })).await.unwrap();
    assert_ne!(third.peer(), &peer);
    within(third.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k200_a_reset_kernel_is_usable_and_peers_meet_another_life() {
    let (home_ann, home_bob) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ann, bob) = (host(home_ann.path()).await, host(home_bob.path()).await);
    let chat_ann = launch(&ann, CHATTER).await.root;
    let counter = launch(&bob, COUNTER).await.root;
    let url = within(bob.issue_url(counter)).await.unwrap();
    let far = within(ann.redeem_url(&url)).await.unwrap();
    assert_eq!(call(&ann, far, "bump", "[]", &[]).await, "#1");
    // Bob holds something of ann's, too, and a call of his is under way there.
    let far_ann = within(bob.redeem_url(&within(ann.issue_url(chat_ann)).await.unwrap())).await.unwrap();
    assert_eq!(call(&bob, far_ann, "reply", "[41]", &[]).await, "#42");

    let (peer, life) = (bob.peer().clone(), bob.incarnation());
    within(bob.reset()).await.unwrap();
    assert_eq!(bob.peer(), &peer);
    assert_ne!(bob.incarnation(), life);
    assert_eq!(within(bob.fsck()).await.unwrap().problems, []);
    let old = within(bob.send(counter.into(), methargs("bump", "[]", &[]))).await.unwrap();
    assert!(old.rejected && old.value.body.contains("OBJECT_DELETED"), "{old:?}");

    // Ann's reference is dead; a new URL works, over a new session.
    let stale = within(ann.send(far.into(), methargs("bump", "[]", &[]))).await.unwrap();
    assert!(stale.rejected, "{stale:?}");
    let fresh = launch(&bob, COUNTER).await.root;
    let url = within(bob.issue_url(fresh)).await.unwrap();
    let far = within(ann.redeem_url(&url)).await.unwrap();
    assert_eq!(call(&ann, far, "bump", "[]", &[]).await, "#1");
    // What ann had exported before still is hers to give.
    let far_ann = within(bob.redeem_url(&within(ann.issue_url(chat_ann)).await.unwrap())).await.unwrap();
    assert_eq!(call(&bob, far_ann, "reply", "[1]", &[]).await, "#2");

    let life = bob.incarnation();
    within(bob.stop()).await;
    let bob = host(home_bob.path()).await;
    assert_eq!(bob.incarnation(), life);
    assert_eq!(call(&bob, fresh, "read", "[]", &[]).await, "#1");
    tokio::join!(within(ann.stop()), within(bob.stop()));
    for home in [home_ann, home_bob] {
        assert_eq!(fsck(home.path()).unwrap().problems, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k198_stop_keeps_the_state_records_the_time_and_may_be_repeated() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let counter = launch(&first, COUNTER).await.root;
    assert_eq!(call(&first, counter, "bump", "[]", &[]).await, "#1");
    tokio::join!(within(first.stop()), within(first.stop()));
    within(first.stop()).await;
    let refused = first.request(HostOp::Status).await;
    assert_eq!(refused, Err(Refusal::Internal("the kernel is stopping".to_owned())));
    let tables = load_read_only(&home.path().join(STORE_FILE)).unwrap();
    let recorded = tables.meta.iter().find(|(key, _)| &***key == "lastActiveTime");
    assert!(recorded.is_some_and(|(_, text)| text.parse::<u64>().is_ok_and(|at| at > 0)), "{recorded:?}");

    let second = host(home.path()).await;
    assert_eq!(call(&second, counter, "bump", "[]", &[]).await, "#2");
    assert!(matches!(second.request(HostOp::ListVats).await, Ok(Answer::Vats(vats)) if vats.len() == 1));
    within(second.stop()).await;
}
