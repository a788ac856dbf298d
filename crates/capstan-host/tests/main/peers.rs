//! Two kernels over TCP.

use crate::support::{CHATTER, COUNTER, call, host, launch, within};
use capstan_host::{Host, HostConfig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_two_kernels_call_each_other() {
    let (home_ann, home_bob) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ann, bob) = (host(home_ann.path()).await, host(home_bob.path()).await);
    let chat_ann = launch(&ann, CHATTER).await.root;
    let chat_bob = launch(&bob, CHATTER).await.root;

    let url = within(bob.issue_url(chat_bob)).await.unwrap();
    assert!(url.ends_with(&bob.listen().join(",")), "{url}");
    let far_bob = within(ann.redeem_url(&url)).await.unwrap();
    assert_eq!(call(&ann, far_bob, "reply", "[41]", &[]).await, "#42");

    let met = call(&ann, chat_ann, "meet", r#"["$0"]"#, &[far_bob]).await;
    assert_eq!(met, r##"#"chatter is ready""##);
    assert_eq!(call(&ann, chat_ann, "ask", "[1]", &[]).await, "#2");

    // And back: bob is handed ann's chatter in a message, and asks it.
    call(&ann, far_bob, "meet", r#"["$0"]"#, &[chat_ann]).await;
    assert_eq!(call(&bob, chat_bob, "ask", "[7]", &[]).await, "#8");
    assert_eq!(call(&ann, chat_ann, "counts", "[]", &[]).await, r#"#{"asked":1,"replied":1}"#);
    tokio::join!(within(ann.stop()), within(bob.stop()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r91_a_call_survives_that_either_side_restarts() {
    let (home_ann, home_bob) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ann, bob) = (host(home_ann.path()).await, host(home_bob.path()).await);
    let counter = launch(&bob, COUNTER).await.root;
    let far = within(ann.redeem_url(&within(bob.issue_url(counter)).await.unwrap())).await.unwrap();
    assert_eq!(call(&ann, far, "bump", "[]", &[]).await, "#1");

    let listen =
        bob.listen().into_iter().map(|hint| hint.split("/p2p/").next().unwrap_or_default().to_owned());
    let listen: Vec<String> = listen.collect();
    within(bob.stop()).await;
    let waiting = {
        let ann = ann.clone();
        tokio::spawn(async move { call(&ann, far, "bump", "[]", &[]).await })
    };
    let bob = within(Host::start(HostConfig { listen, ..HostConfig::new(home_bob.path()) })).await.unwrap();
    assert_eq!(within(waiting).await.unwrap(), "#2");

    within(ann.stop()).await;
    let ann = host(home_ann.path()).await;
    assert_eq!(call(&ann, far, "bump", "[]", &[]).await, "#3");
    assert_eq!(call(&bob, counter, "read", "[]", &[]).await, "#3");
    tokio::join!(within(ann.stop()), within(bob.stop()));
}
