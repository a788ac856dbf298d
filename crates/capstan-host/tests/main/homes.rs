//! Directories: locked, purged, copied, restored.

use crate::support::{COUNTER, call, host, launch, within};
use capstan_host::{Host, HostConfig, HostError, STORE_FILE, SeedSource, fsck, purge, restore};
use capstan_kernel::host_op::Refusal;
use capstan_wire::identity::KeySeed;
use std::os::unix::fs::PermissionsExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_takes_one_host() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let second = Host::start(HostConfig::new(home.path())).await;
    assert!(second.as_ref().is_err_and(HostError::is_locked), "{second:?}");
    assert!(purge(home.path(), false).is_err_and(|error| error.is_locked()));
    assert!(fsck(home.path()).is_err_and(|error| error.is_locked()));
    within(first.stop()).await;
    within(host(home.path()).await.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_start_leaves_the_home_free() {
    let home = tempfile::tempdir().unwrap();
    let config = HostConfig { listen: vec!["nonsense".to_owned()], ..HostConfig::new(home.path()) };
    let failed = Host::start(config).await;
    assert!(matches!(failed, Err(HostError::Network(_))), "{failed:?}");
    let config = HostConfig { network: false, ..HostConfig::new(home.path()) };
    let offline = within(Host::start(config)).await.unwrap();
    assert!(offline.listen().is_empty());
    within(offline.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_r4_what_is_kept_is_private_and_the_given_seed_is_used_once() {
    let home = tempfile::tempdir().unwrap();
    let seed = KeySeed::new([9; 32]);
    let config = || HostConfig { network: false, ..HostConfig::new(home.path()) };
    let first =
        Host::start(HostConfig { seed: Some(SeedSource::Seed(seed.clone())), ..config() }).await.unwrap();
    assert_eq!(first.peer(), &seed.peer_id());
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(home.path()), mode(&home.path().join(STORE_FILE))), (0o700, 0o600));
    within(first.stop()).await;
    let other = SeedSource::Seed(KeySeed::new([1; 32]));
    let again = Host::start(HostConfig { seed: Some(other), ..config() }).await.unwrap();
    assert_eq!(again.peer(), &seed.peer_id());
    within(again.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_keeps_the_identity_if_told_to_and_never_the_life() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let (peer, life) = (first.peer().clone(), first.incarnation());
    launch(&first, COUNTER).await;
    within(first.stop()).await;

    purge(home.path(), true).unwrap();
    assert_eq!(fsck(home.path()).unwrap().problems, []);
    let second = host(home.path()).await;
    assert_eq!(second.peer(), &peer);
    assert_ne!(second.incarnation(), life);
    assert_eq!(within(second.query("SELECT * FROM vat")).await.unwrap(), []);
    within(second.stop()).await;

    purge(home.path(), false).unwrap();
    purge(home.path(), false).unwrap();
    assert!(matches!(fsck(home.path()), Err(HostError::NoStore(_))));
    let third = host(home.path()).await;
    assert_ne!(third.peer(), &peer);
    within(third.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_as_a_new_life() {
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = host(home.path()).await;
    let counter = launch(&first, COUNTER).await.root;
    assert_eq!(call(&first, counter, "bump", "[]", &[]).await, "#1");
    let copy = elsewhere.path().join("copy");
    let backup = within(first.backup(&copy)).await.unwrap();
    assert_eq!((backup.bytes, backup.sha256.len()), (copy.metadata().unwrap().len(), 64));
    assert!(within(first.backup(&copy)).await.is_err());
    assert_eq!(call(&first, counter, "bump", "[]", &[]).await, "#2");
    assert_eq!(within(first.fsck()).await.unwrap().problems, []);
    within(first.stop()).await;

    assert!(matches!(restore(&copy, home.path()), Err(HostError::HasStore(_))));
    let new_home = elsewhere.path().join("home");
    restore(&copy, &new_home).unwrap();
    let second = host(&new_home).await;
    assert_eq!(second.peer(), first.peer());
    assert_ne!(second.incarnation(), first.incarnation());
    assert_eq!(call(&second, counter, "read", "[]", &[]).await, "#1");
    within(second.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_r8_a_mnemonic_recovers_the_identity_after_a_reset_and_not_before() {
    let words = format!("{}about", "abandon ".repeat(11));
    let home = tempfile::tempdir().unwrap();
    let config = || HostConfig {
        network: false,
        seed: Some(SeedSource::Mnemonic(words.clone())),
        ..HostConfig::new(home.path())
    };
    let first = within(Host::start(HostConfig { seed: None, ..config() })).await.unwrap();
    let random = first.peer().clone();
    within(first.stop()).await;
    let refused = Host::start(config()).await;
    assert!(
        matches!(&refused, Err(HostError::Identity(why)) if why.contains("already exists")),
        "{refused:?}"
    );

    let known = KeySeed::from_mnemonic(&words).unwrap().peer_id();
    for _ in 0..2 {
        purge(home.path(), false).unwrap();
        let recovered = within(Host::start(config())).await.unwrap();
        assert_eq!(recovered.peer(), &known);
        assert_ne!(recovered.peer(), &random);
        within(recovered.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_r10_an_identity_without_network_issues_and_redeems_its_own_urls() {
    let home = tempfile::tempdir().unwrap();
    let config = HostConfig { network: false, ..HostConfig::new(home.path()) };
    let host = within(Host::start(config)).await.unwrap();
    let counter = launch(&host, COUNTER).await.root;
    let url = within(host.issue_url(counter)).await.unwrap();
    assert_eq!(within(host.redeem_url(&url)).await, Ok(counter));
    let foreign = url.replace(host.peer().as_str(), "12D3KooWBhvxmvKdTYGJvXjKGBp7ybLvfBWCAfPWAq1NJEwS6Aeu");
    let refusal = Refusal::PeerUnreachable("Remote comms not initialized".to_owned());
    assert_eq!(within(host.redeem_url(&foreign)).await, Err(refusal));
    within(host.stop()).await;
}
